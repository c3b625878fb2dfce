"""A private testbed beside whatever else runs: start it, use it, break it, stop it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.testbed import Shape, Testbed, TestbedError
from tests.testbed.__main__ import cli
from tests.testbed.processes import (
    Process,
    all_processes,
    environment_of,
    load,
    missing_programs,
    name_of,
    until,
)

SMALL = Shape(nodes=1, gpus=0, accounting=False)


def skip_reason() -> str | None:
    if os.geteuid() != 0:
        return "a testbed needs root"
    if missing := missing_programs(accounting=False):
        return f"SLURM is not installed: {', '.join(missing)} missing"
    return None


@pytest.fixture(scope="module")
def shorts() -> Iterator[Iterator[Path]]:
    """Short paths: those of SLURM's sockets have a limit, which pytest's own folders pass."""
    with tempfile.TemporaryDirectory(prefix="bed-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield (Path(folder) / str(number) for number in count())


@pytest.fixture
def short(shorts: Iterator[Path]) -> Path:
    """An empty folder of its own."""
    folder = next(shorts)
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def testbed(shorts: Iterator[Path]) -> Iterator[Testbed]:
    if reason := skip_reason():
        pytest.skip(reason)
    bed = Testbed(next(shorts))
    assert bed.start(Shape(nodes=2, accounting=False))
    yield bed
    bed.stop()


def jobs(bed: Testbed) -> dict[str, str]:
    lines = bed.ask("squeue", "--noheader", "--format=%i %T").splitlines()
    return {job: state for job, _, state in (line.partition(" ") for line in lines)}


@pytest.mark.slow
def test_jobs_run_on_both_nodes(testbed: Testbed) -> None:
    answer = testbed.ask("srun", "-N2", "--label", "printenv", "SLURMD_NODENAME")
    assert sorted(answer.splitlines()) == ["0: n1", "1: n2"]


@pytest.mark.slow
def test_a_job_sees_its_own_gpus_only(testbed: Testbed) -> None:
    assert testbed.ask("srun", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES") == "0,1\n"
    assert testbed.ask("srun", "--gpus-per-node=1", "printenv", "CUDA_VISIBLE_DEVICES") == "0\n"


@pytest.mark.slow
def test_an_ordinary_user_may_use_it_and_read_no_secret(testbed: Testbed) -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    variables = {"PATH": os.environ["PATH"], **testbed.environment}
    run = partial(subprocess.run, env=variables, cwd="/", capture_output=True, text=True, **nobody)
    script = "#!/bin/sh\nsrun id -u\n"
    job = run(["sbatch", "--wait", "--parsable", "--output=/dev/null"], input=script)
    assert job.returncode == 0, job.stderr
    assert run(["srun", "id", "-u"]).stdout == "65534\n"
    assert run(["cat", str(testbed.layout.munge_key)]).returncode != 0


@pytest.mark.slow
def test_a_second_start_changes_nothing(testbed: Testbed) -> None:
    before = load(testbed.layout.process("slurmctld"))
    assert testbed.start(Shape(nodes=2, accounting=False)) is False
    assert load(testbed.layout.process("slurmctld")) == before


@pytest.mark.slow
def test_the_job_of_a_node_that_lost_its_power_is_requeued(testbed: Testbed, tmp_path: Path) -> None:
    script = 'echo begin $SLURM_RESTART_COUNT; test -n "$SLURM_RESTART_COUNT" || exec srun sleep 600'
    log = tmp_path / "log"
    submit = ("sbatch", "--parsable", "-N2", "--requeue", "--open-mode=append", f"--output={log}")
    job = testbed.ask(*submit, "--wrap", script).strip()
    assert until(lambda: len(sleepers(testbed)) == 2, 20)
    testbed.kill_node("n2")
    assert not testbed.daemons()["n2"] and testbed.daemons()["n1"]
    assert len(sleepers(testbed)) <= 1
    testbed.revive_node("n2")
    assert until(lambda: jobs(testbed).get(job) == "PENDING", 60)
    assert until(lambda: job not in jobs(testbed), 60)
    assert testbed.node_states() == {"n1": "idle", "n2": "idle"}
    assert [line for line in log.read_text().splitlines() if line.startswith("begin")] == ["begin", "begin 1"]


def sleepers(bed: Testbed) -> list[Process]:
    """The `sleep` processes of the jobs."""
    return [p for pid, (p, _) in all_processes().items() if name_of(pid) == "sleep" and belongs(pid, bed)]


def belongs(pid: int, bed: Testbed) -> bool:
    return environment_of(pid).get("SLURM_CONF") == bed.environment["SLURM_CONF"]


@pytest.mark.slow
def test_the_command_line_tells_the_shell_what_it_needs(testbed: Testbed) -> None:
    folder = str(testbed.folder)
    answer = CliRunner().invoke(cli, ["env", "--dir", folder])
    assert answer.output.splitlines() == [
        f"export SLURM_CONF={folder}/etc/slurm.conf",
        f"export ABLATE_TESTBED={folder}",
    ]
    answer = CliRunner().invoke(cli, ["status", "--dir", folder])
    assert answer.exit_code == 0 and "n2         up" in answer.output


@pytest.mark.slow
def test_stop_leaves_no_process_and_no_file(short: Path) -> None:
    if reason := skip_reason():
        pytest.skip(reason)
    bed = Testbed(short / "b")
    bed.start(SMALL)
    client = None
    try:
        # A process of a job may leave the job's session and ignore what it is told.
        bed.ask("sbatch", "--wrap", "trap '' TERM; setsid sleep 600 & sleep 600")
        client = subprocess.Popen(["srun", "sleep", "600"], env=os.environ | bed.environment)
        assert until(lambda: len(sleepers(bed)) == 3, 30)
        assert bed.stop()
        assert not bed.folder.exists()
        assert client.wait(30) != 0
        assert [pid for pid in all_processes() if belongs(pid, bed)] == []
        assert bed.stop() is False
    finally:
        bed.stop()
        if client:
            client.kill()
            client.wait()


@pytest.mark.slow
def test_a_daemon_that_does_not_come_up_is_named_with_its_log(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := skip_reason():
        pytest.skip(reason)
    bed = Testbed(short / "b")
    monkeypatch.setattr("tests.testbed.config.slurm_conf", lambda *_: "NoSuchSetting=1\n")
    with pytest.raises(TestbedError, match=r"(?s)slurmctld ended at once.*NoSuchSetting"):
        bed.start(SMALL)
    assert not bed.folder.exists()


def test_a_folder_with_other_things_in_it_is_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("tests.testbed.processes.missing_programs", lambda accounting: [])
    (short / "thesis.txt").touch()
    with pytest.raises(TestbedError, match="something else than a testbed"):
        Testbed(short).start(Shape())
    assert Testbed(short).stop() is False
    assert (short / "thesis.txt").exists()


def test_a_machine_that_cannot_run_one_is_told_why(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("tests.testbed.processes.missing_programs", lambda accounting: ["slurmd"])
    install = r"slurmd: not installed.*apt-get install -y --no-install-recommends"
    with pytest.raises(TestbedError, match=install):
        Testbed(short / "b").start(Shape())
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(TestbedError, match="needs root"):
        Testbed(short / "b").start(Shape())


def test_what_is_asked_of_no_testbed_is_answered_with_how_to_start_one(short: Path) -> None:
    with pytest.raises(
        TestbedError, match=r"there is no testbed in .* Start one: python -m tests.testbed start"
    ):
        _ = Testbed(short).nodes
    assert Testbed(short).running() is False
