"""The end of a log, whatever is in it."""

from __future__ import annotations

from pathlib import Path

from slurm.files import last_lines, tail


def test_the_last_lines_of_a_log_are_the_runs_own(tmp_path: Path) -> None:
    text = "first\n\nablate: run begins, restart 0, on n1\nsecond  \nthird\n"
    assert last_lines(text, 2) == ["second", "third"]
    assert last_lines(text) == ["first", "second", "third"]
    assert tail(None) == tail(tmp_path / "none") == tail(tmp_path) == ""
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\xff end")
    assert tail(log).endswith(" end") and len(tail(log)) < 50_000
