"""A results folder that several people share: paths, modes of files, locks of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations.cli import main
from ablations.plan import plan_runs
from slurm import ClusterError
from slurm.scheduler import check_path
from slurm.tokens import claim
from yolor_core.runs import directory
from yolor_core.runs.directory import RunDirectory


@pytest.mark.parametrize("sign", ["%", "\\", ":", '"', "'", "\t", "\n"])
def test_the_signs_that_a_path_must_not_have_are_refused(sign: str) -> None:
    with pytest.raises(ClusterError, match="choose another folder"):
        check_path(Path(f"/shared/a{sign}b"))
    check_path(Path("/shared/a b (copy); $HOME"))


@pytest.mark.parametrize(("mask", "shared"), [(0o002, True), (0o022, False)])
def test_a_group_can_go_on_with_a_run_that_was_begun_with_its_umask(
    tmp_path: Path, mask: int, shared: bool
) -> None:
    run = RunDirectory(tmp_path / "results" / "runs" / "run")
    before = os.umask(mask)
    try:
        with run.lock():
            run.write_state("running", epochs=1)
            assert claim(run.path, 0) is not None
    finally:
        os.umask(before)
    for path in (run.path, run.path / "submits", run.path / ".lock", run.state):
        assert bool(path.stat().st_mode & 0o020) == shared, path
    assert (run.path / "submits" / "0001.json").stat().st_mode & 0o040, "is replaced, never written by others"


def test_a_lock_of_somebody_else_ends_a_training_and_no_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (planned,) = plan_runs(["csp-fast"], "smoke", results=tmp_path / "results")
    run = RunDirectory(planned.run_dir)
    with run.lock():
        run.write_state("running", epochs=1)

    class Theirs:
        def __init__(self, path: Path, timeout: float) -> None:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(directory, "FileLock", Theirs)
    options = ("csp-fast", "--profile", "smoke", "--results", str(tmp_path / "results"))
    looked = CliRunner().invoke(main, ["launch", *options, "--cluster", "example", "--dry-run"])
    assert looked.exit_code == 0, looked.output  # looking takes no lock
    done = CliRunner().invoke(main, ["train", *options])
    assert done.exit_code == 2
    assert ".lock cannot be written: Permission denied" in done.output
