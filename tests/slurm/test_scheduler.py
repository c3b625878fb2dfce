"""What SLURM's programs print, read; and what they are asked, counted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from slurm import ClusterError, scheduler
from slurm.scheduler import Own, UnansweredError
from tests.slurm.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


def test_the_queue_is_read_as_squeue_prints_it(slurm: FakeSlurm) -> None:
    slurm.answer(
        "squeue",
        "7_0|RUNNING|node[1-2]|1-02:03:04|None\n"
        "7_1|PENDING||0:00|Resources\n"
        "8|COMPLETED|node1|12:34|None\n"
        "9|PENDING||0:00|(launch failed|requeued held)\n"
        "slurm_load_jobs warning\n",
    )
    seen = scheduler.queue(["7_0", "7_1", "8", "9"])
    assert set(seen) == {"7_0", "7_1", "8", "9"}
    running, waiting, over = seen["7_0"], seen["7_1"], seen["8"]
    assert (running.node, running.reason, running.seconds) == ("node[1-2]", "", 93784)
    assert running.alive and not running.waiting
    assert waiting.alive and waiting.waiting and waiting.reason == "Resources"
    assert not over.alive and over.seconds == 754
    assert seen["9"].reason == "(launch failed|requeued held)"


def test_a_thousand_jobs_of_an_array_are_one_question(slurm: FakeSlurm) -> None:
    scheduler.queue(f"{array}_{index}" for array in (10, 9) for index in range(1000))
    (call,) = slurm.calls("squeue")
    assert call[call.index("-j") + 1] == "9,10"
    assert "-r" in call  # or the waiting jobs of an array would come as one line


def test_many_jobs_are_asked_for_in_lines_of_bearable_length(slurm: FakeSlurm) -> None:
    scheduler.queue(str(job) for job in range(1, 1202))
    asked = [call[call.index("-j") + 1].split(",") for call in slurm.calls("squeue")]
    assert sorted(int(job) for some in asked for job in some) == list(range(1, 1202))
    assert max(map(len, asked)) <= 500


def test_jobs_that_are_forgotten_are_no_error(slurm: FakeSlurm) -> None:
    slurm.answer("squeue", error="slurm_load_jobs error: Invalid job id specified", code=1)
    assert scheduler.queue(["7"]) == {}
    slurm.answer("squeue", error="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
        scheduler.queue(["7"])


def test_jobs_are_found_by_the_names_that_launches_give_them(slurm: FakeSlurm) -> None:
    slurm.answer("squeue", "7_0|PENDING||0:00|ablate-x-0\n7_1|RUNNING|n1|0:10|ablate-x-0")
    seen = scheduler.queue_named({"ablate-x-0", "ablate-y-0"})
    assert {job: one.reason for job, one in seen.items()} == {"7_0": "ablate-x-0", "7_1": "ablate-x-0"}
    (call,) = slurm.calls("squeue")
    assert call[call.index("-n") + 1] == "ablate-x-0,ablate-y-0"


def test_the_accounting_adds_all_attempts_and_gpus(slurm: FakeSlurm) -> None:
    slurm.answer(
        "sacct",
        "7_0|PREEMPTED|100|billing=8,cpu=8,gres/gpu=2,gres/gpu:a100=2,mem=4G,node=1|n1\n"
        "7_0|COMPLETED|50|cpu=8,gres/gpu:a100=2,gres/gpu=2|n2\n"
        "7_1|CANCELLED by 1000|10|cpu=8|n3\n"
        "7_4|COMPLETED|100|cpu=8,gres/gpu:a100=4,node=1|n1\n"
        "7_[2-3,6%4]|PENDING|0||None assigned\n"
        "8|OUT_OF_MEMORY|3600|cpu=1,gres/gpu=8|n[1-2]\n"
        "8.batch|OUT_OF_MEMORY|3600|cpu=1|n1\n"
        "short|line\n",
    )
    past = scheduler.history(["7_0", "7_1", "7_2", "8"])
    assert set(past) == {"7_0", "7_1", "7_2", "7_3", "7_4", "7_6", "8"}
    first = past["7_0"]
    assert (first.state, first.seconds, first.gpu_seconds, first.node) == ("COMPLETED", 150, 300, "n2")
    assert (past["7_1"].state, past["7_1"].gpu_seconds) == ("CANCELLED", 0)  # it had no GPUs
    assert past["7_4"].gpu_seconds == 400  # by their type alone
    assert past["7_6"].waiting
    assert past["8"].gpu_seconds == 8 * 3600
    (call,) = slurm.calls("sacct")
    assert {"-X", "-D"} <= set(call)  # no steps; requeued attempts too


def test_every_second_job_of_an_array_is_read_as_slurm_writes_it(slurm: FakeSlurm) -> None:
    """From six jobs over more than eleven numbers on, a step stands for a list."""
    # squeue and scontrol of SLURM 22.05.8 print a waiting --array=1-23:2%64 as 1_[1-23:2%64].
    slurm.answer("sacct", "7_[1-13:4,20%64]|PENDING|0||None assigned\n8_[0-12:2]|PENDING|0||None assigned")
    found = scheduler.history(["7_1", "8_0"])
    assert set(found) == {f"7_{k}" for k in (1, 5, 9, 13, 20)} | {f"8_{k}" for k in range(0, 13, 2)}


def test_lists_of_an_arrays_jobs_are_asked_for_whole(slurm: FakeSlurm, tmp_path: Path) -> None:
    """SLURM cuts them after 64 characters where nobody says otherwise."""
    slurm.shell("sacct", f'printf "%s" "$SLURM_BITSTR_LEN" > {tmp_path}/seen')
    scheduler.history(["7_1"])
    assert (tmp_path / "seen").read_text() == "0"


def test_an_attempt_that_had_ended_when_it_was_requeued_counts_as_long_as_it_ran(slurm: FakeSlurm) -> None:
    """As SLURM 22.05 booked a job of 5 s that was requeued by hand 9 s after it had ended."""
    slurm.answer(
        "sacct",
        "7|REQUEUED|14|billing=1,cpu=1,gres/gpu=1,node=1|n2\n"
        "7.batch|COMPLETED|5|cpu=1,gres/gpu=1,mem=0,node=1|n2\n"
        "7.0|COMPLETED|4|cpu=1,gres/gpu=1,mem=0,node=1|n2\n"
        "7|COMPLETED|5|billing=1,cpu=1,gres/gpu=1,node=1|n1\n"
        "7.batch|COMPLETED|5|cpu=1,gres/gpu=1,mem=0,node=1|n1\n",
    )
    found = scheduler.history(["7"], exact=True)
    assert (found["7"].seconds, found["7"].gpu_seconds, found["7"].state) == (10, 10, "COMPLETED")
    assert "-X" not in slurm.calls("sacct")[0]


def test_reasons_that_do_not_pass_are_known() -> None:
    for reason in (
        "PartitionTimeLimit",
        "QOSMaxWallDurationPerJobLimit",
        "launch failed requeued held",
        "AssocMaxCpuPerJobLimit",
        "QOSMaxCpuPerNode",
        "AssocMaxMemPerJob",
        "QOSMaxGRESPerJob",
        "JobHoldMaxRequeue",
    ):
        assert scheduler.forever(reason), reason
    for reason in ("Priority", "Resources", "Dependency", "BeginTime", "QOSMaxJobsPerUserLimit", "", "None"):
        assert not scheduler.forever(reason)
    for reason in ("QOSMaxCpuPerUserLimit", "MaxCpuPerAccount", "QOSMaxGRESPerUser", "AssocGrpGRES"):
        assert not scheduler.forever(reason), reason  # until other jobs have ended


def test_queue_and_accounting_are_asked_at_once_and_fail_alone(slurm: FakeSlurm) -> None:
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None")
    slurm.answer("sacct", error="Slurm accounting storage is disabled", code=1)
    queued, past = scheduler.look(["7"], 5.0)
    assert queued is not None and queued["7"].alive
    assert past is None
    slurm.answer("squeue", error="down", code=1)
    slurm.answer("sacct", "7|TIMEOUT|60|cpu=1|n1")
    queued, past = scheduler.look(["7"], 5.0)
    assert queued is None
    assert past is not None and past["7"].state == "TIMEOUT"


def test_nothing_is_asked_about_nothing(slurm: FakeSlurm) -> None:
    assert scheduler.look([], 5.0) == ({}, {})
    assert scheduler.queue([]) == scheduler.history([]) == scheduler.queue_named([]) == {}
    scheduler.cancel([])
    assert not any(slurm.calls(program) for program in ("squeue", "sacct", "scancel"))


def test_a_scheduler_that_hangs_is_given_up(slurm: FakeSlurm) -> None:
    slurm.shell("squeue", "exec sleep 30")
    began = time.monotonic()
    queued, past = scheduler.look(["7"], 0.2)
    assert (queued, past) == (None, {})
    assert time.monotonic() - began < 20
    with pytest.raises(ClusterError, match=r"squeue did not answer within 0\.2 s"):
        scheduler.queue(["7"], 0.2)


def test_errors_are_slurms_own_words(slurm: FakeSlurm) -> None:
    slurm.answer("scontrol", error="slurm_requeue error: Access/permission denied", code=1)
    with pytest.raises(ClusterError, match="Access/permission denied"):
        scheduler.requeue("7")
    slurm.answer("scontrol", code=3)
    with pytest.raises(ClusterError, match="scontrol ended with 3"):
        scheduler.requeue("7")
    slurm.remove("scontrol")
    with pytest.raises(ClusterError, match="scontrol is not on the PATH"):
        scheduler.requeue("7")
    text = "sbatch: error: Batch job submission failed: Invalid partition\n\nsbatch: fatal: no\n"
    assert scheduler.said(text) == "Batch job submission failed: Invalid partition; no"


def test_a_machine_without_slurm_says_what_to_do(slurm: FakeSlurm) -> None:
    scheduler.require()
    slurm.remove("sbatch")
    with pytest.raises(ClusterError, match="login node"):
        scheduler.require()


def test_orders_name_the_jobs(slurm: FakeSlurm) -> None:
    scheduler.cancel(["7_0", "7_1"])
    scheduler.requeue("8")
    assert slurm.calls("scancel") == [["7_0", "7_1"]]
    assert slurm.calls("scontrol") == [["requeue", "8"]]


def test_the_own_job_is_read_as_scontrol_shows_it(slurm: FakeSlurm) -> None:
    shown = "JobId=2 JobName=a\n   JobState=COMPLETING Reason=launch_failed_requeued_held Dependency=(null)"
    slurm.answer("scontrol", f"{shown}\n   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0")
    assert scheduler.own("7") == Own("COMPLETING", 2)
    slurm.answer("scontrol", "slurm says something new")
    assert scheduler.own("7") is None
    slurm.answer("scontrol", error="down", code=1)
    assert scheduler.own("7") is None


def test_a_users_own_options_are_kept_from_slurms_commands(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ("SBATCH_PARTITION", "SALLOC_QOS", "SRUN_EXPORT_ENV", "SLURM_MEM_PER_CPU", "SQUEUE_USERS")
    for name in (*options, "SACCT_FORMAT", "SLURM_CONF", "SLURMD_NODENAME", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    slurm.shell("sbatch", f"env > {tmp_path}/seen")
    scheduler.run(["sbatch", "x"])
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())
    assert not {*options, "SACCT_FORMAT"} & set(seen)
    assert {"SLURM_CONF", "SLURMD_NODENAME", "OMP_NUM_THREADS", "PATH"} <= set(seen)
    assert scheduler.foreign() == sorted({*options, "SACCT_FORMAT"})


@pytest.mark.parametrize("words", ["Socket timed out on send/recv operation", "Zero Bytes were transmitted"])
def test_an_order_of_which_nobody_knows_is_no_refusal(slurm: FakeSlurm, words: str) -> None:
    slurm.answer("sbatch", error=f"sbatch: error: Batch job submission failed: {words}", code=1)
    with pytest.raises(UnansweredError, match=words):
        scheduler.run(["sbatch", "x"])


def test_the_longest_array_is_the_clusters(slurm: FakeSlurm) -> None:
    text = "Configuration data as of 2026\nClusterName             = tiny\nMaxArraySize            = 1001"
    slurm.answer("scontrol", f"{text}\nPreemptParameters       = reclaim=1,send_user_signal")
    found = scheduler.settings()
    assert found["ClusterName"] == "tiny"
    assert found["PreemptParameters"] == "reclaim=1,send_user_signal"
    assert scheduler.longest_array() == 1001  # indices 0 to 1000, one less than MaxArraySize
    assert scheduler.longest_array({}) > 0
    most = {"MaxArraySize": "100001", "SchedulerParameters": "bf_continue,max_array_tasks=500,defer"}
    assert scheduler.longest_array(most) == 500
    assert scheduler.longest_array({**most, "MaxArraySize": "301"}) == 301
