"""Submit tokens: of all who submit a run at once, one does."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from slurm import tokens
from slurm.files import append_line, create_json, read_json, read_lines, replace_json
from slurm.tokens import claim, current, moment, process_mark, read

HOUR_AGO = (datetime.now(UTC) - timedelta(hours=1)).isoformat()


def rush(run_dir: Path, start: multiprocessing.synchronize.Barrier, wins: multiprocessing.Queue[int]) -> None:
    start.wait()
    for after in range(20):
        if claim(run_dir, after, pid=os.getpid()) is not None:
            wins.put(after + 1)


def test_each_submission_has_one_owner_however_many_claim_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, wins = context.Barrier(4), context.Queue()
    processes = [context.Process(target=rush, args=(tmp_path / "run", start, wins)) for _ in range(4)]
    for process in processes:
        process.start()
    numbers = [wins.get(timeout=20) for _ in range(20)]
    for process in processes:
        process.join(20)
    assert sorted(numbers) == list(range(1, 21))
    assert wins.empty()
    assert sorted(path.name for path in (tmp_path / "run" / "submits").iterdir()) == [
        f"{number:04}.json" for number in range(1, 21)
    ]


def test_the_highest_number_counts(tmp_path: Path) -> None:
    assert current(tmp_path) is None
    (tmp_path / "submits").mkdir()
    assert current(tmp_path) is None
    for after in range(11):
        assert claim(tmp_path, after, job=str(100 + after)) is not None
    token = current(tmp_path)
    assert token is not None
    assert (token.number, token.job) == (11, "110")
    assert read(tmp_path, 2).job == "101"


def test_what_lies_beside_a_token_is_no_token(tmp_path: Path) -> None:
    token = claim(tmp_path, 0)
    assert token is not None
    token.note("start")
    token.ended(0, 0, state="done")
    token.cancel()
    (tmp_path / "submits" / ".0009.json.x.tmp").write_text("{}")
    (tmp_path / "submits" / "notes.json").write_text("{}")
    found = current(tmp_path)
    assert found is not None and found.number == 1


def test_a_token_says_who_wrote_it_and_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    token = claim(tmp_path, 0, hours=2.5, gpus=4, name="ablate-x-0", folder="/shared/array")
    assert token is not None
    found = current(tmp_path)
    assert found is not None
    assert (found.user, found.hours, found.gpus, found.name) == ("ann", 2.5, 4, "ablate-x-0")
    assert found.being_sent
    assert (found.job, found.withdrawn, found.log) == (None, None, None)
    token.update(job="12_3")
    again = read(tmp_path, 1)
    assert (again.job, again.hours) == ("12_3", 2.5)
    assert str(again.log) == "/shared/array/12_3_0_log.out"


def test_a_launch_of_this_machine_is_sending_as_long_as_its_process_lives(tmp_path: Path) -> None:
    token = claim(tmp_path, 0, written=HOUR_AGO)
    assert token is not None and token.being_sent
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = process_mark(child.pid)
    theirs = token.update(process=mark, written=moment())
    assert mark and theirs.being_sent
    child.kill()
    child.communicate()
    assert not theirs.being_sent
    # Another process of that number, or the same after the machine was started anew, is not it.
    number, boot, began = process_mark(os.getpid()).split(":")
    assert not token.update(process=f"{number}:{boot}:{int(began) - 1}").being_sent
    assert not token.update(process=f"{number}:another:{began}").being_sent


@pytest.mark.parametrize(
    "written",
    ["yesterday", None, HOUR_AGO, "2020-01-01T00:00:00"],
    ids=["no time", "absent", "an hour ago", "long ago"],
)
def test_a_launch_of_another_machine_is_sending_until_it_has_been_silent_for_long(
    tmp_path: Path, written: str | None
) -> None:
    token = claim(tmp_path / "run", 0, host="login2", written=written, folder=str(tmp_path / "L/arrays/0"))
    assert token is not None and not token.being_sent
    (tmp_path / "L").mkdir()
    (tmp_path / "L/launch.json").write_text(json.dumps({"written": moment()}))
    assert token.being_sent
    assert not token.update(job="7").being_sent and not token.update(withdrawn="refused").being_sent
    assert token.update(written=moment(), folder="").being_sent


def test_a_damaged_token_still_counts_as_a_submission(tmp_path: Path) -> None:
    assert claim(tmp_path, 0) is not None
    (tmp_path / "submits" / "0001.json").write_text('{"job": ')
    token = current(tmp_path)
    assert token is not None
    assert (token.number, token.job, token.user, token.gpus, token.hours) == (1, None, "somebody", 1, None)
    assert claim(tmp_path, 0) is None
    assert claim(tmp_path, 1) is not None


def test_a_cancelled_token_says_by_whom_and_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = claim(tmp_path, 0)
    assert token is not None and token.cancelled is None
    for name in ("ann", "bob"):
        monkeypatch.setattr(tokens, "user", lambda name=name: name)
        token.cancel()
    assert (read(tmp_path, 1).cancelled or {})["user"] == "ann"
    assert claim(tmp_path, 1) is not None
    assert read(tmp_path, 2).cancelled is None


def test_attempts_are_kept_in_order_and_torn_lines_left_out(tmp_path: Path) -> None:
    token = claim(tmp_path, 0)
    assert token is not None
    token.note("start", restart=0)
    with (tmp_path / "submits" / "0001.attempts.jsonl").open("a") as file:
        file.write('{"event": "en\n')
    token.note("end", restart=0, kind="crash")
    assert [record["event"] for record in token.attempts()] == ["start", "end"]


def test_outcomes_are_those_of_one_attempt(tmp_path: Path) -> None:
    token = claim(tmp_path, 0)
    other = claim(tmp_path, 1)
    assert token is not None and other is not None
    token.ended(0, 0, state="preempted")
    token.ended(1, 0, state="preempted")
    token.ended(1, 1, state="failed", reason="x")
    other.ended(0, 1, state="done")
    assert [o["state"] for o in token.outcomes(1)] == ["failed"]
    assert [o["rank"] for o in token.outcomes(0)] == [0]


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    replace_json(path, {"a": 1})
    with pytest.raises(TypeError):
        replace_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1} and [*path.parent.iterdir()] == [path]
    assert create_json(path, {"a": 2}) is False
    assert read_json(path) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o644  # others of the group read it


def test_damaged_files_read_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"", b"{", b"[1]", b"\xff", b"null"):
        path.write_bytes(content)
        assert read_json(path) is None
    assert read_json(tmp_path / "none.json") is None
    path.write_text('{"a": 1}\nrubbish\n[2]\n{"a": 3}\n{"a')
    assert read_lines(path) == [{"a": 1}, {"a": 3}]
    path.unlink()
    append_line(path, {"a": 1})
    append_line(path, {"a": 2})
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_bytes(b"\xff\n")
    assert read_lines(path) == []
