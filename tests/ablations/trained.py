"""A small finished run, for the commands that look at one."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from ablations.cli import main


def ablate(*arguments: str | Path) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def train(results: Path, experiment: str = "csp-fast.add-fa.mul-pr") -> Path:
    """Train at profile smoke; the run directory."""
    done = ablate("train", experiment, "--profile", "smoke", "--results", results)
    assert done.exit_code == 0, done.output
    (run,) = (results / "runs").iterdir()
    return run
