"""A run that is killed again and again ends where an undisturbed one does, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.yolor_core.training.results import NO_GPU, assert_nearly_the_same, assert_same_result
from yolor_core.config import ImplicitConfig, OptimiserConfig, PhaseConfig, RunConfig
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train

TRAINEE = Path(__file__).with_name("trainee.py")
ADD_FA = ImplicitConfig(site="fa", operator="add")
# Two iterations make a step of the optimiser, so some kills come while gradients wait for it.
ACCUMULATE = OptimiserConfig(nominal_batch=8, warmup_min_iterations=2, warmup_epochs=0.5, ema_updates=5)
Tiny = Callable[..., RunConfig]


def run_into(config: RunConfig, run_dir: Path, *accident: object) -> int:
    file = run_dir.parent / "config.json"
    file.write_text(config.to_json())
    command = [sys.executable, str(TRAINEE), str(file), str(run_dir), *map(str, accident)]
    return subprocess.run(command, timeout=120, check=False).returncode


def test_a_run_killed_several_times_at_random_steps_ends_bit_for_bit(
    tiny: Tiny, chain: tuple[PhaseConfig, ...], tmp_path: Path
) -> None:
    config = tiny(implicit=(ADD_FA,), phases=chain, optimiser=ACCUMULATE, evaluate_every=1)
    train(config, tmp_path / "whole")
    rng = np.random.default_rng(20210510)
    deaths = 0
    # Three steps an epoch: a run that starts anew at every checkpoint gets on if it sometimes lives for four.
    for _ in range(4):
        deaths += run_into(config, tmp_path / "killed", "kill", 0, int(rng.integers(2, 7))) == -9
    assert deaths >= 3
    assert run_into(config, tmp_path / "killed") == 0
    assert_same_result(RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "killed"))


@pytest.mark.parametrize(
    ("device", "workers"),
    [("cpu", 0), ("cpu", 2), pytest.param("cuda", 2, id="gpu", marks=[pytest.mark.gpu, NO_GPU])],
)
def test_a_run_stopped_and_then_killed_ends_bit_for_bit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, workers: int
) -> None:
    # The stop saves in the middle of an epoch and of an accumulation; the kill loses steps after it.
    config = tiny(implicit=(ADD_FA,), optimiser=ACCUMULATE, workers=workers, device=device)
    # A GPU's kernels add up in any order, so there it computes in float64 and comes near.
    monkeypatch.setenv("TRAINEE_DOUBLE", str(int(device == "cuda")))

    def finish(folder: Path) -> bool:
        return run_into(config, folder) == 0 if device == "cuda" else train(config, folder) == "done"

    assert finish(tmp_path / "whole")
    assert run_into(config, tmp_path / "parts", "stop", 0, 2) == 3
    assert run_into(config, tmp_path / "parts", "kill", 0, 2) == -9
    assert run_into(config, tmp_path / "parts", "stop", 0, 3) == 3
    assert finish(tmp_path / "parts")
    if device == "cuda":
        assert_nearly_the_same(tmp_path / "whole", tmp_path / "parts")
    else:
        assert_same_result(RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts"))


def test_a_run_killed_while_writing_any_of_its_files_ends_bit_for_bit(
    tiny: Tiny, implicit_run: RunDirectory, tmp_path: Path
) -> None:
    config = tiny(implicit=(ADD_FA,), tensorboard=False)
    writes = count_of_writes(config, tmp_path / "counted")
    assert writes > 12
    deaths = 0
    # Every third of the moments at which a file is put in place, checkpoints among them; each time the run
    # goes on from what the last death left.
    for moment in range(1, writes + 1, 3):
        deaths += run_into(config, tmp_path / "killed", "kill-writing", 0, moment) == -9
    assert deaths >= 3
    assert run_into(config, tmp_path / "killed") == 0
    assert_same_result(implicit_run, RunDirectory(tmp_path / "killed"))


def test_a_run_killed_in_the_middle_of_a_checkpoint_goes_on_from_the_one_before(
    tiny: Tiny, plain_run: RunDirectory, tmp_path: Path
) -> None:
    config = tiny(tensorboard=False)
    run = RunDirectory(tmp_path / "killed")
    assert run_into(config, run.path, "kill-checkpoint", 0, 2) == -9
    assert run.previous_checkpoint.exists() and not run.checkpoint.exists()
    assert train(config, run.path) == "done"
    record = run.read_run()
    assert record is not None and record["resumes"] == 1
    assert_same_result(plain_run, run)


def count_of_writes(config: RunConfig, run_dir: Path) -> int:
    """How many files an undisturbed run puts in place."""
    import os

    calls = 0
    replace = os.replace

    def counted(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counted)
        train(config, run_dir)
    return calls
