"""A damaged file in a run directory is named, with what to do about it, and never counts as a result."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import pytest

from ablations.worker import claim
from yolor_core.errors import BusyError, RunError
from yolor_core.runs.directory import RunDirectory, write_atomically

DAMAGE = {
    "not JSON": (b'{"state": ', "not JSON"),
    "empty": (b"", "it is empty"),
    "a list": (b"[1]", "holds a list, not an object"),
    "binary": (b'{"state": "\xff\xfe', "not text"),
    "an unknown state": (b'{"state": ["done"]}', "allowed: queued, running"),
}


def finished(path: Path) -> RunDirectory:
    """A run directory with all that a finished run is good for."""
    run = RunDirectory(path)
    run.write_state("done", epoch=2, epochs=2)
    run.run.write_text("{}")
    run.evaluation.write_text('{"detection": {"AP": 0.5}}')
    run.weights.write_bytes(b"")
    return run


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_state_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    content, reason = DAMAGE[name]
    run = finished(tmp_path / "run")
    run.state.write_bytes(content)
    for read in (run.read_state, run.complete, lambda: claim(run)):
        with pytest.raises(RunError) as caught:
            read()
        assert str(run.state) in str(caught.value)
        assert reason in str(caught.value)
        assert "Remove the file, or the folder" in str(caught.value)
    assert run.life() == "unreadable"


def test_a_state_that_is_a_folder_is_unreadable(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.state.mkdir()
    with pytest.raises(RunError, match=r"state\.json cannot be read: Is a directory"):
        run.read_state()


@pytest.mark.parametrize("name", DAMAGE)
def test_a_new_state_replaces_a_damaged_one(tmp_path: Path, name: str) -> None:
    run = RunDirectory(tmp_path)
    run.state.write_bytes(DAMAGE[name][0])
    run.write_state("failed", reason="disk full", epoch=3)
    state = run.read_state()
    assert state is not None
    assert (state["state"], state["reason"], state["epoch"], state["ap"]) == ("failed", "disk full", 3, None)


@pytest.mark.parametrize("line", [b'{"epoch": 2', b"[1, 2]", b"7", b"\xff\xfe"])
def test_damaged_metrics_are_named(tmp_path: Path, line: bytes) -> None:
    run = RunDirectory(tmp_path)
    assert run.read_metrics() == []
    run.metrics.write_bytes(b'{"epoch": 1}\n' + line + b"\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read"):
        run.read_metrics()


def test_a_complete_run_is_done(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    assert run.complete()
    assert (claim(run), run.life()) == ("done", "done")
    run.write_state("preempted")
    assert not run.complete()
    assert not RunDirectory(tmp_path / "nothing").complete()


@pytest.mark.parametrize("content", ["{}", '{"images": 5}', '{"detection": {}}'])
def test_a_finished_run_whose_evaluation_says_nothing_is_started_again(tmp_path: Path, content: str) -> None:
    run = finished(tmp_path / "run")
    run.evaluation.write_text(content)
    assert run.read_evaluation() is None
    assert (claim(run), run.life(), run.missing()) == (
        "start",
        "incomplete",
        ["evaluation.json has no scores"],
    )


@pytest.mark.parametrize("name", ["run.json", "evaluation.json", "weights.safetensors"])
def test_a_finished_run_that_lost_a_file_is_started_again(tmp_path: Path, name: str) -> None:
    run = finished(tmp_path / "run")
    (run.path / name).unlink()
    assert (claim(run), run.life(), run.missing()) == ("start", "incomplete", [f"{name} is missing"])


@pytest.mark.parametrize("name", ["run.json", "evaluation.json"])
def test_a_finished_run_with_a_damaged_file_is_started_again(tmp_path: Path, name: str) -> None:
    run = finished(tmp_path / "run")
    (run.path / name).write_text("{")
    assert (claim(run), run.life(), run.missing()) == ("start", "incomplete", [f"{name} cannot be read"])


def test_a_file_system_without_flock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """filelock would take the file itself for the lock, and that stays when a node is lost."""

    def none_here(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    run = RunDirectory(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", none_here)
        with pytest.raises(RunError, match=r"has no flock \(Lustre: mount option flock\)"), run.lock():
            pass
    with run.lock(), pytest.raises(BusyError), RunDirectory(tmp_path).lock(0.1):
        pass


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "state.json", write)
    assert caught.value.filename == str(tmp_path / "state.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No such file") as caught:
        write_atomically(tmp_path / "absent" / "state.json", write)
    assert caught.value.filename == str(tmp_path / "absent" / "state.json")
