"""A site with limits: QOS that preempt and bound, and memory that is held. On a testbed of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster.grid import Grid
from tests.slurm.cluster.test_life import endings, token
from tests.testbed import Shape, Testbed
from tests.testbed.config import CGROUPS
from yolor_core.runs.directory import RunDirectory

pytestmark = pytest.mark.slow
TWO = ("csp-fast", "csp-fast.add-fa")


@pytest.fixture(scope="module")
def strict() -> Iterator[Testbed]:
    """One node; QOS `low` allows one GPU in all and gives way to `high`."""
    if not os.environ.get("ABLATE_TESTBED"):
        pytest.skip("no SLURM to test on: python -m tests.testbed start, then eval the lines it prints")
    if not os.access(CGROUPS / "memory", os.W_OK):
        pytest.skip("no memory controller of cgroups v1 here")
    with tempfile.TemporaryDirectory(prefix="bed-", dir="/tmp") as folder:
        bed = Testbed(Path(folder) / "b")
        assert bed.start(Shape(nodes=1, strict=True, requeue_delay=6))
        try:
            for words in (
                "add qos low,high",
                "modify qos low set grptres=gres/gpu=1 gracetime=20 maxwall=01:00:00",
                "modify qos high set preempt=low",
                "modify user root set qos=normal,low,high",
            ):
                bed.ask("sacctmgr", "--immediate", *words.split())
            yield bed
        finally:
            bed.stop()


@pytest.fixture
def site(strict: Testbed, tmp_path: Path) -> Iterator[Grid]:
    yield Grid(strict, tmp_path / "results")
    strict.ask("scancel", "--user=root")


def test_runs_of_a_qos_wait_for_its_limit_and_go_on_after_it_preempted_them(site: Grid) -> None:
    sent = site.launch(*TWO, "--set", "train.epochs=16", qos="low")
    first, second = (RunDirectory(site.folder / "runs" / run["run"]) for run in sent["runs"])
    site.until(lambda: ((first.read_state() or {}).get("epoch") or 0) >= 1, 120)
    assert site.status()[second.path.name]["reason"] == "waits: QOSGrpGRES"
    site.bed.ask("scancel", str(token(second).job))
    site.bed.ask("sbatch", "--qos=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    site.until(lambda: endings(first) == ["preempted"], 60)
    site.until(lambda: endings(first) == ["preempted", "done"], 120)
    record = first.read_run()
    assert record is not None and record["resumes"] == 1 and len(record["jobs"]) == 1


def test_runs_that_share_a_gpu_all_hear_a_preemption(site: Grid) -> None:
    """Where processes are tracked by cgroups, SLURM's signal reaches the batch script alone."""
    sent = site.launch(*TWO, "--set", "train.epochs=24", qos="low", runs_per_gpu=2, memory_gb=3)
    pack = [RunDirectory(site.folder / "runs" / run["run"]) for run in sent["runs"]]
    assert len({str(token(run).job) for run in pack}) == 1
    site.until(lambda: all(((run.read_state() or {}).get("epoch") or 0) >= 1 for run in pack), 180)
    site.bed.ask("sbatch", "--qos=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    site.until(lambda: [endings(run) for run in pack] == [["preempted"]] * 2, 60)
    site.until(lambda: [endings(run) for run in pack] == [["preempted", "done"]] * 2, 180)
    assert [(run.read_run() or {})["resumes"] for run in pack] == [1, 1]


def test_a_run_larger_than_its_qos_allows_is_refused_and_check_says_so(site: Grid) -> None:
    larger = site.profile(qos="low", gpus=2)
    words = "a run needs 2 GPUs, and qos 'low' allows 1 (GrpTRES gres/gpu)"
    refused = site.call("launch", *TWO, "--profile", "smoke", "--cluster", larger, code=None)
    assert refused.returncode not in (0, 1) and words in refused.stderr
    assert not (site.folder / "runs").exists() or not list((site.folder / "runs").iterdir())
    check = site.call("cluster", "check", larger, code=1)
    assert words in check.stdout and "submission" not in check.stdout
    good = site.call("cluster", "check", site.profile(qos="low"))
    assert (
        "account root, QOS low; MaxWall 01:00:00 (qos 'low'), GrpTRES gres/gpu=1 (qos 'low')" in good.stdout
    )
    assert "clock: " in good.stdout and "node: " in good.stdout


def test_memory_that_a_cgroup_holds_ends_a_run_once_with_the_reason(site: Grid) -> None:
    site.launch("csp-fast", memory_gb=0.25)
    site.ended("failed", 90)
    run, record = site.only()
    assert record["reason"] == "out of memory: the job was given less than it needs (memory_gb)"
    assert endings(run) == ["failed"] and token(run).number == 1
