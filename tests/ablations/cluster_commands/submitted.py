"""Runs that were submitted with stand-ins for SLURM's programs, and how to find them again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from ablations.plan import plan_runs
from slurm.tokens import current
from yolor_core.runs.directory import RunDirectory

PROFILE = 'gpus = 1\ncpus = 2\ntime = "10:00:00"\nsetup = ["module load cuda"]\n'
HERE = f"NodeName=n1 Arch=x86_64 NodeAddr=n1 NodeHostName={os.uname().nodename} State=IDLE"
NAMES = ("csp-fast", "csp-fast.add-fa", "csp-fast.add-pr")

Ablate = Callable[..., Result]


def run_of(results: Path, experiment: str, seed: int = 0) -> RunDirectory:
    """The run of an experiment at profile smoke."""
    planned = plan_runs([experiment], "smoke", [seed], results=results)
    return RunDirectory(next(r.run_dir for r in planned if r.config.experiment == experiment))


def job_of(results: Path, experiment: str) -> str:
    """The job that it was submitted as."""
    token = current(run_of(results, experiment).path)
    assert token is not None and token.job is not None
    return token.job
