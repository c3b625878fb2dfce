"""`ablate status` tells how far the runs are, quickly and honestly."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations.cli import main
from tests.ablations.fake_training import leave_results
from yolor_core.runs.directory import RunDirectory


def status(results: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["status", "--results", str(results), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_running_without_a_process_is_shown_as_interrupted(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "a")
    run.write_state("running", epoch=3, epochs=24, ap=0.125, seconds=75.0)
    RunDirectory(tmp_path / "runs" / "b").write_state("failed", reason="OSError: disk full")
    (record, other) = json.loads(status(tmp_path, "--json"))
    assert record == {
        "run": "a",
        "state": "interrupted",
        "epoch": 3,
        "epochs": 24,
        "ap": 0.125,
        "seconds": 75.0,
        "left": None,
        "node": "",
        "gpu_hours": None,
        "job": None,
        "heartbeat": record["heartbeat"],
        "reason": None,
        "run_dir": str(tmp_path / "runs" / "a"),
    }
    assert (other["state"], other["reason"]) == ("failed", "OSError: disk full")
    with run.lock():
        assert json.loads(status(tmp_path, "--json"))[0]["state"] == "running"


def test_a_reader_without_leave_to_write_sees_the_same(request: pytest.FixtureRequest) -> None:
    results = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    request.addfinalizer(lambda: shutil.rmtree(results))
    results.chmod(0o755)
    for name in "ab":
        run = RunDirectory(results / "runs" / name)
        run.write_state("running", epoch=3, epochs=24)
        (run.path / "logs" / "1").mkdir(parents=True)
        (run.path / "logs" / "1" / "run_log.out").write_text(f"epoch 3 of {name}\n")
        with run.lock():
            pass

    def look(answers: multiprocessing.Queue[tuple[int, str]]) -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        for words in (["status", "--json"], ["cost"], ["logs", "b"]):
            result = CliRunner().invoke(main, [*words, "--results", str(results)])
            answers.put((result.exit_code, result.output))

    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with RunDirectory(results / "runs" / "a").lock():
        before = set(results.rglob("*"))
        for path in before:
            path.chmod(0o555 if path.is_dir() else 0o444)
        process = context.Process(target=look, args=(answers,))
        process.start()
        found = [answers.get(timeout=60) for _ in range(3)]
        process.join(60)
    assert [code for code, _ in found] == [0, 0, 0], found
    assert [record["state"] for record in json.loads(found[0][1])] == ["running", "interrupted"]
    assert "epoch 3 of b" in found[2][1]
    assert set(results.rglob("*")) == before
    for path in before:  # or nobody but root could remove them
        path.chmod(0o755)


def test_text_has_a_line_per_run_and_a_count(tmp_path: Path) -> None:
    assert "no runs in" in status(tmp_path)
    run = RunDirectory(tmp_path / "runs" / "a")
    leave_results(run)
    run.write_state("done", epoch=24, epochs=24, ap=0.125, seconds=75.0)
    lines = status(tmp_path).splitlines()
    assert lines[1].split() == ["a", "done", "24/24", "12.5", "1:15"]
    assert lines[-1] == "1 run: 1 done"


@pytest.mark.parametrize("content", ["{", "", "[1]"])
def test_folder_with_a_damaged_record_alone_is_named(content: str, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "a")
    run.path.mkdir(parents=True)
    run.run.write_text(content)
    (record,) = json.loads(status(tmp_path, "--json"))
    assert record["state"] == "unreadable" and str(run.run) in record["reason"]


def test_status_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "runs" / "a").write_state("done", epoch=1, epochs=1)
    code = (
        "import sys; from pathlib import Path; from ablations.cli import main\n"
        f"main(['status', '--results', {str(tmp_path)!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff\xfe\x00", b'{"state": 3}'])
def test_a_damaged_state_is_a_row_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    leave_results(RunDirectory(tmp_path / "runs" / "a"))
    broken = tmp_path / "runs" / "b" / "state.json"
    broken.parent.mkdir()
    broken.write_bytes(content)
    first, second = json.loads(status(tmp_path, "--json"))
    assert (first["state"], first["ap"]) == ("done", 0.25)
    assert (second["run"], second["state"], second["ap"]) == ("b", "unreadable", None)
    assert f"{broken} cannot be read: " in second["reason"]
    lines = status(tmp_path).splitlines()
    assert lines[1].split()[:2] == ["a", "done"]
    assert lines[2].split()[:2] == ["b", "unreadable"]
    assert str(broken) in lines[2]
    assert lines[-1] == "2 runs: 1 done, 1 unreadable"


def test_fields_of_the_wrong_type_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    wrong = {"state": "failed", "ap": "y", "epoch": [1], "epochs": "x", "seconds": {}, "reason": ["a", 1]}
    (folder / "state.json").write_text(json.dumps(wrong))
    (record,) = json.loads(status(tmp_path, "--json"))
    assert (record["ap"], record["epoch"], record["epochs"], record["seconds"]) == (None, 0, None, 0.0)
    assert status(tmp_path).splitlines()[1].split() == ["a", "failed", "['a',", "1]"]
