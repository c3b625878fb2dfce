"""What `ablate cluster check` concludes from what a cluster says of itself and a tiny job saw."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from slurm import ClusterError, probe
from slurm.cluster import Cluster, Override
from slurm.files import replace_json
from slurm.probe import Finding, conclude, gpus, look_around, look_from_inside, send_probe
from tests.slurm.fake_slurm import FakeSlurm

CONFIG = "ClusterName = tiny\nMaxArraySize = 501\nPreemptMode = OFF\nPreemptType = preempt/none"
NODES = "gpu|1-00:00:00|gpu:a100:8(S:0-1)|128|1000000|up|4|(null)\ncpu|infinite|(null)|64|256000|up|9|(null)"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path, monkeypatch)
    fake.answer("sbatch", "slurm 23.11.4", to="--version")
    fake.answer("scontrol", CONFIG, to="show config")
    fake.answer("sinfo", NODES)
    return fake


def looked(cluster: Cluster) -> tuple[bool, dict[str, Finding]]:
    found: list[Finding] = []
    return look_around(cluster, found.append), {finding.what: finding for finding in found}


@pytest.mark.parametrize(
    ("gres", "kind", "count"),
    [
        ("gpu:4", "", 4),
        ("gpu:a100:4(S:0-1)", "", 4),
        ("gpu:a100:4(S:0-1),gpu:v100:2", "", 6),
        ("gpu:a100:4(S:0-1),gpu:v100:2", "v100", 2),
        ("gpu:a100:4(S:0,2-3),gpu:v100:2(S:1)", "a100", 4),
        ("gpu:a100:4", "h100", 0),
        ("gpu:4", "a100", 0),
        ("(null)", "", 0),
        ("", "", 0),
        ("shard:16,gpu:2,craynetwork:4", "", 2),
        ("gpu:tesla_v100:no_consume:2", "tesla_v100", 2),
    ],
)
def test_gpus_of_a_node_are_read_as_sinfo_writes_them(gres: str, kind: str, count: int) -> None:
    assert gpus(gres, kind) == count


def test_a_cluster_that_has_what_is_asked_for_is_fine(slurm: FakeSlurm) -> None:
    assert looked(Cluster(partition="cpu,gpu", gpus=8, gpu_type="a100"))[0]  # where a job can start first
    good, found = looked(Cluster(partition="gpu", gpus=8, gpu_type="a100"))
    assert good
    assert {finding.what for finding in found.values() if finding.level != "ok"} == {"limits"}
    assert "slurm 23.11.4" in found["controller"].words and "tiny" in found["controller"].words
    assert "501" in found["arrays"].words


@pytest.mark.parametrize(
    ("profile", "what", "words"),
    [
        ({"partition": "gpuu"}, "partition", ["'gpuu'", "cpu, gpu"]),
        ({"partition": "gpu", "gpus": 9}, "GPUs", ["9 GPUs", "8 is the most"]),
        ({"partition": "cpu"}, "GPUs", ["1 GPUs", "0 is the most"]),
        ({"partition": "gpu", "gpu_type": "h100"}, "GPUs", ["of type h100", "a100"]),
        (
            {"partition": "cpu", "gpus": 0, "override": (Override(experiments="p6*", gpus=2),)},
            "GPUs",
            ["2 GPUs"],
        ),
    ],
)
def test_what_the_cluster_does_not_have_is_a_problem(
    slurm: FakeSlurm, profile: dict[str, Any], what: str, words: list[str]
) -> None:
    good, found = looked(Cluster(**profile))
    assert not good
    assert found[what].level == "problem"
    for word in words:
        assert word in found[what].words


def test_a_partition_that_is_hidden_is_there(slurm: FakeSlurm) -> None:
    hidden = f"{NODES}\ngroup|1-00:00:00|gpu:h100:4|64|512000|up|2|(null)"
    slurm.shell("sinfo", f"case \" $* \" in *' -a '*) echo '{hidden}' ;; *) echo '{NODES}' ;; esac")
    assert looked(Cluster(partition="group", gpus=4))[0]


def test_a_partition_with_different_gpus_is_told(slurm: FakeSlurm) -> None:
    mixed = "gpu|1-0|gpu:a100:8|128|1000|up|4|(null)\ngpu|1-0|gpu:v100:8|64|1000|up|1|(null)"
    slurm.answer("sinfo", mixed)
    good, found = looked(Cluster(partition="gpu"))
    assert good and found["GPU types"].level == "note"
    assert "a100 (4 nodes), v100 (1 node)" in found["GPU types"].words
    assert found["GPU types"].facts["kinds"] == {"a100": 4, "v100": 1}
    chosen = looked(Cluster(partition="gpu", gpu_type="v100"))[1]["GPU types"]
    assert (chosen.level, chosen.words) == ("ok", "v100 (1 node)")


def test_limits_that_no_run_could_keep_are_a_problem(slurm: FakeSlurm) -> None:
    slurm.answer("sacctmgr", "lab|normal|normal|12:00:00|||||", to="-n -P show assoc")
    good, found = looked(Cluster(gpus=0))
    assert not good and found["limits"].level == "problem"
    assert "longer than account 'lab' allows: 720 minutes" in found["limits"].words
    good, found = looked(Cluster(gpus=0, time="12:00:00"))
    assert good and found["limits"].words == "account lab, QOS normal; MaxWall 12:00:00 (account 'lab')"


def test_without_slurm_nothing_is_tried(slurm: FakeSlurm) -> None:
    slurm.remove("squeue")
    good, found = looked(Cluster())
    assert not good
    assert (found["commands"].level, "squeue" in found["commands"].words) == ("problem", True)
    assert slurm.calls("sbatch") == []


def test_a_controller_that_is_down_is_told_in_slurms_words(slurm: FakeSlurm) -> None:
    slurm.answer("scontrol", error="slurm_load_ctl_conf error: Unable to contact", code=1, to="show config")
    good, found = looked(Cluster())
    assert not good
    assert "Unable to contact" in found["controller"].words


def test_a_cluster_without_accounting_will_do(slurm: FakeSlurm) -> None:
    slurm.answer("sacct", error="Slurm accounting storage is disabled", code=1)
    good, found = looked(Cluster(gpus=0))
    assert good
    assert (found["accounting"].level, "disabled" in found["accounting"].words) == ("note", True)


@pytest.mark.parametrize(
    ("mode", "parameters", "level", "word"),
    [
        ("REQUEUE", "(null)", "ok", "SIGTERM"),
        ("GANG,REQUEUE", "preempt_send_user_signal", "ok", "signal that they know"),
        ("CANCEL", "(null)", "note", "launched again"),
        ("SUSPEND,GANG", "(null)", "ok", "SUSPEND"),
    ],
)
def test_preemption_is_told_as_far_as_it_matters(
    slurm: FakeSlurm, mode: str, parameters: str, level: str, word: str
) -> None:
    config = f"PreemptMode = {mode}\nPreemptType = preempt/partition_prio\nSlurmctldParameters = {parameters}"
    slurm.answer("scontrol", config, to="show config")
    good, found = looked(Cluster(gpus=0))
    assert good
    assert found["preemption"].level == level
    assert word in found["preemption"].words


SOFTWARE = {
    "modules": "Lmod",
    "module_function": True,
    "loaded": "cuda/12.8",
    "containers": ["enroot"],
    "inside": "apptainer",
    "system": "Rocky Linux 9",
    "headers": False,
    "compiler": "gcc",
}


@pytest.mark.parametrize(
    ("clock", "here", "level", "words"),
    [
        (1000.0, [999.0, 1001.0], "ok", "within 1 s"),
        (1000.0, [990.0, 995.0], "ok", "within 10 s"),
        (1000.0, [600.0, 640.0], "note", "360 s ahead or more"),
        (1000.0, [1300.0, 1330.0], "note", "300 s late or more"),
    ],
)
def test_a_nodes_clock_is_compared_as_well_as_it_can_be(
    clock: float, here: list[float], level: str, words: str
) -> None:
    good, found = concluded(Cluster(), clock=clock, clock_here=here)
    assert good and found["clock"].level == level and words in found["clock"].words


def test_what_a_node_has_is_told_in_a_line_each() -> None:
    scratch = {"name": "$SLURM_TMPDIR", "folder": "/scratch/7", "kind": "xfs", "free": 812.0}
    good, found = concluded(Cluster(), software=SOFTWARE, scratch=scratch)
    assert good
    for word in ("Lmod, loaded: cuda/12.8", "enroot", "in a container (apptainer)", "without Python.h,"):
        assert word in found["node"].words
    assert "a C compiler" not in found["node"].words
    assert found["node"].facts == SOFTWARE
    assert "$SLURM_TMPDIR is /scratch/7, xfs, 812 GB free" in found["local disk"].words
    good, found = concluded(Cluster(), software=SOFTWARE | {"module_function": False, "loaded": ""})
    assert "read its init file" in found["node"].words and found["node"].level == "ok"


@pytest.mark.parametrize(
    ("line", "loaded", "level"),
    [
        ("module load cuda", "", "note"),
        ("module use /shared/modules && ml cuda", "", "note"),
        ("module load cuda", "cuda/12.8", "ok"),
        ("module purge", "", "ok"),
        ("echo html", "", "ok"),
    ],
)
def test_modules_that_a_profile_loads_in_vain_are_told(line: str, loaded: str, level: str) -> None:
    _, found = concluded(Cluster(setup=(line,)), software=SOFTWARE | {"loaded": loaded})
    assert (found["node"].level, "none is loaded" in found["node"].words) == (level, level == "note")


SEEN = {
    "host": "n1",
    "python": "3.11.4",
    "torch": "2.11",
    "cuda": "12.8",
    "gpus": 1,
    "gpu": "H100",
    "sum": 8.0,
    "given": "0",
    "code": "/results/code/abc",
}


def concluded(cluster: Cluster, **changes: Any) -> tuple[bool, dict[str, Finding]]:
    found: list[Finding] = []
    seen = {key: value for key, value in (SEEN | changes).items() if value is not None}
    good = conclude(cluster, seen, Path("/results"), Path("/results/code/abc"), found.append)
    return good, {finding.what: finding for finding in found}


@pytest.mark.parametrize(
    ("cluster", "changes", "problem"),
    [
        (Cluster(), {}, None),
        (Cluster(), {"data": True, "disk": 900.0}, None),
        (Cluster(), {"gpus": 0, "gpu": None, "sum": None}, "GPUs"),
        (Cluster(gpus=8), {}, "GPUs"),
        (Cluster(), {"sum": 7.0}, "GPUs"),
        (Cluster(device="cpu"), {"gpus": 0}, None),
        (Cluster(gpus=0), {"gpus": 0}, None),
        (Cluster(), {"code": "/home/ann/checkout"}, "code"),
        (Cluster(), {"error": "ImportError: libcudart", "torch": None}, "torch"),
        (Cluster(), {"data": False}, "data"),
        (Cluster(), {"disk_error": "/scratch: No such file or directory"}, "local disk"),
    ],
)
def test_what_the_job_saw_is_told(cluster: Cluster, changes: dict[str, Any], problem: str | None) -> None:
    good, found = concluded(cluster, **changes)
    assert good == (problem is None)
    assert [what for what, finding in found.items() if finding.level == "problem"] == (
        [problem] if problem else []
    )


def test_a_node_is_looked_at_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    monkeypatch.setenv("ABLATE_TEST_DISK", str(tmp_path))
    found = look_from_inside(str(tmp_path / "data"), "$ABLATE_TEST_DISK")
    assert found["host"] == os.uname().nodename
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["data"] is True and found["disk"] > 0
    assert Path(found["code"]) == Path(probe.__file__).parent.parent
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    found = look_from_inside(str(tmp_path), str(tmp_path / "none"))
    assert found["data"] is False
    assert "none" in found["disk_error"]
    json.dumps(found)


def test_the_job_leaves_what_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "clusters").mkdir()
    replace_json(tmp_path / "planned.json", {"results": str(tmp_path), "data": "", "local_disk": ""})
    assert probe.work(tmp_path, lambda: False) == "done"
    assert json.loads((tmp_path / "clusters" / ".probe-7.json").read_text())["host"]


def sent(
    slurm: FakeSlurm, results: Path, patience: float = 20.0
) -> tuple[dict[str, Any] | None, dict[str, Finding]]:
    found: list[Finding] = []
    seen = send_probe(Cluster(), results, Path("/code"), "", patience, found.append)
    return seen, {finding.what: finding for finding in found}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_an_answer_is_taken_and_nothing_left_behind(slurm: FakeSlurm, results: Path) -> None:
    slurm.accept(7)
    answer = results / "clusters" / ".probe-7.json"
    body = slurm.answers["sbatch"][""].replace("\nexit 0", "")
    slurm.shell("sbatch", f"""printf '{{"host": "n1"}}' > {answer}\n{body}\nexit 0""")
    seen, found = sent(slurm, results)
    assert seen is not None and seen["host"] == "n1"
    before, after = seen["clock_here"]
    assert 0 <= after - before < 20
    assert "7" in found["submission"].words
    assert list((results / "launches").iterdir()) == []
    assert not answer.exists()


def test_a_job_that_is_not_started_in_time_is_withdrawn(slurm: FakeSlurm, results: Path) -> None:
    slurm.accept(7)
    slurm.answer("squeue", "7|PENDING||0:00|Resources")
    seen, found = sent(slurm, results, 0.01)
    assert seen is None
    assert "still Resources" in found["job"].words and "--timeout" in found["job"].words
    assert slurm.calls("scancel") == [["7"]]


def test_a_job_that_failed_says_its_last_words(slurm: FakeSlurm, results: Path) -> None:
    slurm.accept(7)
    logs = f'for d in {results}/launches/*/arrays/0; do printf "one\\nno such env\\n" > $d/7_0_log.out; done'
    slurm.shell("squeue", f'{logs}\nprintf "7|FAILED|n1|0:01|NonZeroExitCode\\n"\nexit 0')
    seen, found = sent(slurm, results)
    assert seen is None
    assert found["job"].level == "problem"
    assert "FAILED" in found["job"].words and "no such env" in found["job"].words


def test_a_job_that_left_no_file_means_that_the_folder_is_not_shared(slurm: FakeSlurm, results: Path) -> None:
    slurm.accept(7)
    slurm.answer("squeue", "7|FAILED|n1|0:01|NonZeroExitCode")
    seen, found = sent(slurm, results)
    assert seen is None
    assert "do not see this results folder" in " ".join(found["job"].words.split())


def test_a_refused_probe_raises_and_leaves_no_launch(slurm: FakeSlurm, results: Path) -> None:
    slurm.answer("sbatch", error="sbatch: error: Invalid qos", code=1)
    with pytest.raises(ClusterError, match="Invalid qos"):
        sent(slurm, results)
    assert list((results / "launches").iterdir()) == []
    with pytest.raises(ClusterError, match="choose another"):
        sent(slurm, results / "50%")
