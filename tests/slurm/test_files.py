"""The end of a log, whatever is in it; and files that cannot be written, by their names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slurm.files import append_line, create_json, last_lines, replace_json, tail


@pytest.mark.skipif("os.getuid() != 0")
def test_a_full_disk_is_named_by_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        for write in (replace_json, create_json, append_line):
            with pytest.raises(OSError, match="No space left on device") as caught:
                write(tmp_path / "a.json", {"long": "x" * 100_000})
            assert caught.value.filename == str(tmp_path / "a.json")
            for path in tmp_path.iterdir():
                path.unlink()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_last_lines_of_a_log_are_the_runs_own(tmp_path: Path) -> None:
    text = "first\n\nablate: run begins, restart 0, on n1\nsecond  \nthird\n"
    assert last_lines(text, 2) == ["second", "third"]
    assert last_lines(text) == ["first", "second", "third"]
    assert tail(None) == tail(tmp_path / "none") == tail(tmp_path) == ""
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\xff end")
    assert tail(log).endswith(" end") and len(tail(log)) < 50_000
