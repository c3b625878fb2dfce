"""From planned runs to requests: which are sent, with what, and what is refused before that."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ablations import cluster_launch, worker
from ablations.cluster_launch import (
    ClusterPlan,
    by_table,
    check,
    check_shared,
    on_cluster,
    plan_on_cluster,
    send,
)
from ablations.plan import plan_runs
from ablations.planned import Place, PlannedRun, planned_record, read_planned
from slurm import ClusterError
from slurm.cluster import Cluster
from slurm.files import replace_json
from slurm.tokens import claim
from tests.ablations.fake_training import leave_results
from tests.slurm.fake_slurm import FakeSlurm
from yolor_core.errors import ConfigError, RunError
from yolor_core.runs.directory import RunDirectory

NAMES = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr", "csp-fast.mul-fa", "csp-fast.cat-fa")
FIRST, SECOND = "p6-light.add-fa.mul-pr", "p6-light.add-fa.mul-pr.finetuned"
OLD = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def planned(results: Path, *names: str) -> dict[str, PlannedRun]:
    return {run.config.experiment: run for run in plan_runs(names, "smoke", results=results)}


def plan_of(results: Path, *names: str, **profile: Any) -> ClusterPlan:
    return plan_on_cluster(list(planned(results, *names).values()), Cluster(**profile), results)


def labels(plan: ClusterPlan) -> set[str]:
    return {request.label for request in plan.requests}


def submit(run: PlannedRun, **content: Any) -> None:
    assert claim(run.run_dir, 0, **{"written": OLD, **content}) is not None


def test_runs_are_sorted_into_done_taken_and_to_send(results: Path, slurm: FakeSlurm) -> None:
    runs = planned(results, *NAMES)
    leave_results(RunDirectory(runs["csp-fast"].run_dir))
    submit(runs["csp-fast.add-fa"], job="7")
    submit(runs["csp-fast.add-pr"], job="8")
    submit(runs["csp-fast.mul-fa"], job="9")
    RunDirectory(runs["csp-fast.mul-fa"].run_dir).write_state("failed")
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None\n8|PENDING||0:00|Priority")
    plan = plan_of(results, *NAMES)
    assert labels(plan) == {"csp-fast.mul-fa", "csp-fast.cat-fa"}
    state = {name: plan.states[run.run_id] for name, run in runs.items()}
    assert [state[name] for name in NAMES[:3]] == ["done", "running", "queued"]
    numbers = {request.label: request.number for request in plan.requests}
    assert numbers == {"csp-fast.mul-fa": 1, "csp-fast.cat-fa": 0}
    assert (
        plan.hours == pytest.approx(sum(request.hours or 0 for request in plan.requests)) and plan.hours > 0
    )


def test_the_longest_runs_come_first(results: Path, slurm: FakeSlurm) -> None:
    hours = [request.hours or 0.0 for request in plan_of(results, "csp-fast", "p6-light", "y4-sss").requests]
    assert hours == sorted(hours, reverse=True) and len(set(hours)) > 1


def test_a_run_that_is_trained_here_or_damaged_is_left_out(results: Path, slurm: FakeSlurm) -> None:
    runs = planned(results, *NAMES[:2])
    broken = RunDirectory(runs["csp-fast"].run_dir)
    broken.path.mkdir(parents=True)
    broken.state.write_text("{")
    here = RunDirectory(runs["csp-fast.add-fa"].run_dir)
    with here.lock():
        here.write_state("running")
        plan = plan_of(results, *NAMES[:3])
    assert labels(plan) == {"csp-fast.add-pr"}
    assert "damaged" in plan.held[runs["csp-fast"].run_id]
    assert "this machine" in plan.held[runs["csp-fast.add-fa"].run_id]


def test_what_the_queue_cannot_tell_is_not_started_twice(results: Path, slurm: FakeSlurm) -> None:
    submit(planned(results, "csp-fast")["csp-fast"], job="7", user="ann")
    slurm.answer("squeue", error="down", code=1)
    with pytest.raises(ClusterError, match="ann as job 7"):
        plan_of(results, *NAMES)


def test_a_run_waits_for_the_one_it_continues(results: Path, slurm: FakeSlurm) -> None:
    first = planned(results, SECOND)[FIRST]

    def second() -> tuple[str | None, str | None]:
        plan = plan_of(results, SECOND)
        (request,) = (request for request in plan.requests if request.label == SECOND)
        return request.after, request.after_job

    assert second() == (first.run_id, None)
    submit(first, job="7_3")
    slurm.answer("squeue", "7_3|PENDING||0:00|Priority")
    assert second() == (None, "7_3")
    slurm.answer("squeue")  # it is gone, and has not finished
    assert second() == (first.run_id, None)
    leave_results(RunDirectory(first.run_dir))
    assert second() == (None, None)


def test_a_job_does_not_begin_anew_what_a_run_that_failed_should_have_begun(results: Path) -> None:
    """Where runs share a job, a run that waits for it starts however they ended."""
    runs = planned(results, FIRST, SECOND)
    replace_json(runs[SECOND].run_dir / "planned.json", planned_record(runs[SECOND], Place()))
    RunDirectory(runs[FIRST].run_dir).write_state("failed", reason="too wide")
    with pytest.raises(RunError, match=f"continues {runs[FIRST].run_id}, which is failed"):
        worker.work(runs[SECOND].run_dir, lambda: False)


def test_a_run_whose_predecessor_is_just_being_sent_is_left_for_later(
    results: Path, slurm: FakeSlurm
) -> None:
    runs = planned(results, SECOND)
    submit(runs[FIRST], written=datetime.now(UTC).isoformat(timespec="seconds"))
    plan = plan_of(results, SECOND)
    assert "launch again" in plan.held[runs[SECOND].run_id]


def test_a_run_whose_predecessor_cannot_be_started_is_left_out(results: Path, slurm: FakeSlurm) -> None:
    runs = planned(results, SECOND)
    broken = RunDirectory(runs[FIRST].run_dir)
    broken.path.mkdir(parents=True)
    broken.state.write_text("{")
    plan = plan_of(results, SECOND)
    assert set(plan.held) == {runs[FIRST].run_id, runs[SECOND].run_id}


def test_the_machines_part_of_a_configuration_follows_the_profile(results: Path) -> None:
    config = planned(results, "csp-fast")["csp-fast"].config
    config = config.model_copy(update={"execution": config.execution.model_copy(update={"workers": 8})})
    cluster = Cluster.model_validate({"cpus": 4, "override": [{"experiments": "csp-fast*", "cpus": 3}]})
    changed = on_cluster(config, cluster)
    assert changed.execution.workers == 2  # one CPU is left for the training itself
    assert (config.execution.device, changed.execution.device) == (
        "auto",
        "cuda",
    )  # never a processor instead
    assert on_cluster(config, Cluster(gpus=0)).execution.device == "auto"
    assert (changed.science, changed.data, changed.seed) == (config.science, config.data, config.seed)
    slow = on_cluster(config, Cluster(cpus=12, gpus=0, device="cpu"))
    assert (slow.execution.workers, slow.execution.threads, slow.execution.device) == (8, 4, "cpu")
    assert on_cluster(config, Cluster(cpus=1)).execution.workers == 0


def test_relative_folders_are_whole_paths_in_jobs(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_of(Path("results"), SECOND)
    for request in plan.requests:
        assert request.run_dir.is_relative_to(tmp_path)
        start = request.planned["cluster"]["execution"]["start_checkpoint"]
        assert start is None or Path(start).is_absolute()


def test_more_processes_than_a_batch_can_be_shared_by_are_refused(results: Path, slurm: FakeSlurm) -> None:
    check(plan_of(results, "csp-fast"))
    with pytest.raises(ConfigError, match="csp-fast on 7 x 13 processes"):
        check(plan_of(results, "csp-fast", nodes=7, gpus=13))


def test_a_limit_shorter_than_an_epoch_is_refused_unless_forced(results: Path, slurm: FakeSlurm) -> None:
    plan = plan_of(results, "csp-fast", tflops=1e-9, time="10")
    with pytest.raises(ClusterError, match=r"time = '10'.*epoch of csp-fast.*--force"):
        check(plan)
    check(plan, force=True)
    check(plan_of(results, "csp-fast", tflops=1000, time="10"))
    plan = plan_of(results, "csp-fast", time="10")  # 30 runs on a GPU take 30 times as long by the clock
    (estimate,) = plan.estimates.values()
    enough = 20 * estimate.epoch / 400 * plan.cluster.tflops  # with 600 s, less 120 to start and 120 to save
    cluster = Cluster(tflops=enough, time="10", runs_per_gpu=40)
    runs = plan_runs(["csp-fast"], "smoke", range(30), results=results)
    check(plan_on_cluster(runs[:10], cluster, results))
    with pytest.raises(ClusterError, match="shorter than an epoch"):
        check(plan_on_cluster(runs, cluster, results))
    with pytest.raises(ClusterError, match="signal_delay"):  # no time is left to train
        check(plan_of(results, "csp-fast", tflops=1000, time="3"))


def test_a_folder_with_signs_that_sbatch_reads_is_refused(tmp_path: Path, slurm: FakeSlurm) -> None:
    with pytest.raises(ClusterError, match="'%'"):
        check(plan_of(tmp_path / "50%", "csp-fast"))


@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "overlay", "xfs"])
def test_a_disk_of_this_machine_is_refused(
    results: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(cluster_launch, "file_system", lambda path: kind)
    slurm.answer("scontrol", "NodeName=n1 NodeHostName=n1\nNodeName=n2 NodeHostName=n2", to="show node")
    with pytest.raises(ClusterError, match=f"{kind}.*--results.*cluster check"):
        check_shared(results, Cluster())
    replace_json(results / "clusters" / "cluster.json", {"shared": True})
    check_shared(results, Cluster())
    with pytest.raises(ClusterError):
        check_shared(results, Cluster(name="another"))


@pytest.mark.parametrize("kind", ["nfs", "lustre", "gpfs", "beegfs", "fuseblk", "UNKNOWN (0x1)", ""])
def test_a_shared_or_unknown_file_system_will_do(
    results: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(cluster_launch, "file_system", lambda path: kind)
    check_shared(results, Cluster())


def test_a_cluster_of_this_machine_alone_may_use_its_disk(
    results: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_launch, "file_system", lambda path: "ext4")
    here = f"NodeName=a NodeHostName={os.uname().nodename} State=IDLE"
    slurm.answer("scontrol", f"{here}\n{here}", to="show node")
    check_shared(results, Cluster())
    slurm.answer("scontrol", f"{here}\nNodeName=b NodeHostName=elsewhere", to="show node")
    with pytest.raises(ClusterError):
        check_shared(results, Cluster())


def test_the_file_system_of_a_folder_that_is_not_there_yet_is_known(tmp_path: Path) -> None:
    kind = cluster_launch.file_system(tmp_path)
    assert kind
    assert cluster_launch.file_system(tmp_path / "a" / "b") == kind
    assert cluster_launch.file_system(Path("/proc")) == "proc"


def test_what_is_sent_can_be_planned_again(
    results: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_launch, "check_shared", lambda *_: None)
    slurm.accept(7)
    sent = send(plan_of(results, SECOND))
    assert sent.problem is None and sorted(sent.jobs.values()) == ["7", "8"]
    for run in planned(results, SECOND).values():
        again, place = read_planned(run.run_dir)
        assert (again.run_id, again.after, again.run_dir) == (run.run_id, run.after, run.run_dir)
        assert again.config == run.config
        assert place is not None and place.execution == on_cluster(run.config, Cluster()).execution
    with pytest.raises(RunError, match="launch the run instead"):
        read_planned(results / "runs" / "none")


def test_nothing_is_written_where_sbatch_would_refuse(results: Path, slurm: FakeSlurm) -> None:
    slurm.answer("sbatch", error="sbatch: error: invalid partition specified: x", code=1, to="--test-only")
    with pytest.raises(ClusterError, match="`partition`"):
        send(plan_of(results, "csp-fast"))
    assert not results.exists()
    assert [call[0] for call in slurm.calls("sbatch")] == ["--test-only"]


def test_tables_count_their_runs(results: Path, slurm: FakeSlurm) -> None:
    runs = planned(results, *NAMES)
    leave_results(RunDirectory(runs["csp-fast"].run_dir))
    submit(runs["csp-fast.add-fa"], job="7")
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None")
    ids = [run.run_id for run in runs.values()]
    plan = plan_of(results, *NAMES)
    one, two = by_table(plan, {"one": ids, "two": [ids[0], "not planned"]})
    assert [one[key] for key in ("runs", "done", "submitted", "to_send")] == [5, 1, 1, 3]
    assert [two[key] for key in ("runs", "done", "submitted", "to_send")] == [1, 1, 0, 0]
    assert (one["gpu_hours"], two["gpu_hours"]) == (pytest.approx(plan.hours, abs=1e-3), 0)
