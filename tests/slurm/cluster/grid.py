"""A results folder on the testbed: `ablate` as a user calls it, and waiting for what it set in motion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.testbed import Testbed
from yolor_core.runs.directory import RunDirectory

PROFILE = """
partition = "main"
gpus = 1
cpus = 1
memory_gb = 1
time = "00:30:00"
signal_delay = 30
device = "cpu"
"""


@dataclass
class Grid:
    """`folder` is the results folder; the cluster profile is a file beside it."""

    bed: Testbed
    folder: Path
    more: dict[str, str] = field(default_factory=dict)  # variables of the user's shell

    def profile(self, **changes: Any) -> str:
        """Write a cluster profile, the testbed's with these keys changed; its path."""
        lines = dict(line.split(" = ") for line in PROFILE.strip().splitlines())
        lines |= {name: json.dumps(value) for name, value in changes.items()}
        path = self.folder.parent / "own.toml"
        path.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        return str(path)

    def call(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`ablate WORDS --results FOLDER`; fails unless it returns `code` (None: any)."""
        done = subprocess.run(
            self.command(*words), env=self.environment(), capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    def command(self, *words: str) -> list[str]:
        """The command line of `call`."""
        return [sys.executable, "-m", "ablations", *words, "--results", str(self.folder)]

    def environment(self) -> dict[str, str]:
        """Ours, with the testbed's SLURM; without what the tests themselves have set for torch."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "WORLD_SIZE", "SLURM_"))}
        return ours | self.bed.environment | {"OMP_NUM_THREADS": "1"} | self.more

    def launch(self, *words: str, code: int | None = 0, **profile: Any) -> dict[str, Any]:
        """`ablate launch WORDS --cluster PROFILE --json`, at the smoke profile."""
        more = ["--profile", "smoke", "--cluster", self.profile(**profile), "--json"]
        return json.loads(self.call("launch", *words, *more, code=code).stdout)

    def status(self) -> dict[str, dict[str, Any]]:
        """Records of `ablate status --json` by run."""
        return {record["run"]: record for record in json.loads(self.call("status", "--json").stdout)}

    def states(self) -> list[str]:
        """The states of all runs, sorted."""
        return sorted(record["state"] for record in self.status().values())

    def only(self) -> tuple[RunDirectory, dict[str, Any]]:
        """The one run there is, and its record."""
        ((name, record),) = self.status().items()
        return RunDirectory(self.folder / "runs" / name), record

    def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait for a condition; when it does not come true, fail with all that helps to see why."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.describe()
            time.sleep(0.5)

    def ended(self, state: str = "done", seconds: float = 180.0) -> None:
        """Wait until every run has this state."""
        self.until(lambda: set(self.states()) == {state}, seconds)

    def training(self, steps: int = 1) -> RunDirectory:
        """Wait until the one run there is has finished so many epochs; it."""
        ((path),) = (self.folder / "runs").iterdir()
        run = RunDirectory(path)

        def begun() -> bool:
            state = run.read_state()
            return state is not None and state["state"] == "running" and state["epoch"] >= steps

        self.until(begun)
        return run

    def describe(self) -> str:
        """All that helps to see why a test waited in vain."""
        logs = [p.read_text(errors="replace")[-3000:] for p in self.folder.glob("launches/*/arrays/*/*.out")]
        queue = self.bed.ask("squeue", "-a", "-t", "all")
        return "\n".join([self.call("status", code=None).stdout, queue, *logs])


def process_of(run: RunDirectory) -> int:
    """The process that trains, by state.json."""
    state = run.read_state()
    assert state is not None and state["state"] == "running"
    return int(state["pid"])
