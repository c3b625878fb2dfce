"""A launch that adds seeds by a rule, with real trainings: interrupted in the middle, then to the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WORDS = ("launch", "1", "--until-verdict", "--batch", "2", "--most", "4", "--profile", "smoke", "--json")


def test_an_interrupted_launch_trains_on_and_looks_as_planned(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablations", *WORDS, "--jobs", "1", "--results", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "runs").glob("*/evaluation.json")) and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.2)
    (plan,) = (tmp_path / "stopping").iterdir()
    content = json.loads(plan.read_text())
    assert (content["rule"]["looks"], content["taken"]) == ([2, 4], [])
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 130 and b"The same command goes on from here" in said
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/evaluation.json")}
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=900)
    found = json.loads(done.stdout)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    (row,) = found["rows"]
    assert (row["arm"], row["control"], row["lost"]) == ("csp-fast.add-fa", "csp-fast", 0)
    assert row["finished"] == row["seeds"] and row["word"] is not None
    assert len(list((tmp_path / "runs").iterdir())) == 2 * row["seeds"]
    after = json.loads(plan.read_text())
    assert after["begun"] == content["begun"] and after["taken"] == [2, 4][: row["seeds"] // 2]
    assert after["decided"] == [row] and found["hours"] > 0
