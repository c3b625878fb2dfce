"""`ablate launch` where training is writing a score down: a study by a rule in a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ablations import local_launch
from ablations.cli import main
from ablations.planned import PlannedRun
from ablations.registry import table_named
from slurm.local import Outcome
from yolor_core.data import data_fingerprint
from yolor_core.identity import signature
from yolor_core.runs.directory import RunDirectory

ARMS = tuple(dict.fromkeys(e.slug for e in table_named("4").experiments))
EFFECTS = dict(zip(ARMS, (0.0, 3.0, 0.0, -2.5, 0.4, 0.0), strict=True))
Score = Callable[[str, int], float | None]


def ap(slug: str, seed: int) -> float:
    """A run's AP (points): its arm's, its seed's, and a residual of σ = 0.4."""
    rng = np.random.default_rng([ARMS.index(slug), seed])
    return 40 + EFFECTS[slug] + np.random.default_rng(seed).normal(0, 1.0) + rng.normal(0, 0.4)


def leave(run: PlannedRun, score: float | None) -> str:
    """The files of a run that took a minute, finished with a score or failed; the word for it."""
    config, directory = run.config, RunDirectory(run.run_dir)
    record = {
        "schema": 1,
        "experiment": config.experiment,
        "signature": signature(config.science),
        "run": run.run_id,
        "config": json.loads(config.to_json()),
        "fingerprint": data_fingerprint(config.data),
        "source_hash": "a" * 64,
    }
    run.run_dir.mkdir(parents=True, exist_ok=True)
    directory.run.write_text(json.dumps(record))
    if score is None:
        directory.write_state("failed", reason="too wide", seconds=60.0)
        return "failed"
    directory.write_state("done", epoch=1, epochs=1, seconds=60.0)
    directory.evaluation.write_text(json.dumps({"detection": {"AP": score / 100}, "per_class": {}}))
    directory.weights.write_bytes(b"")
    return "done"


class Launches:
    """`ablate launch` at profile smoke, where training is writing a score down."""

    def __init__(self, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.results, self.score, self.trained = results, ap, 0
        self.interrupt_after: int | None = None
        monkeypatch.setattr(local_launch, "run_missing", self._train)

    def _train(
        self, missing: Sequence[PlannedRun], parallel: int, output: Any
    ) -> tuple[dict[str, Outcome], bool]:
        outcomes = {}
        for run in missing:
            if self.interrupt_after == self.trained:
                left = {each.run_id: Outcome("skipped") for each in missing if each.run_id not in outcomes}
                return outcomes | left, True
            self.trained += 1
            word = leave(run, self.score(run.config.experiment, run.config.seed))
            outcomes[run.run_id] = Outcome(word, "too wide" if word == "failed" else None)
        return outcomes, False

    def __call__(self, *words: str) -> Result:
        command = ["launch", *(words or ("4",)), "--profile", "smoke", "--results", str(self.results)]
        return CliRunner().invoke(main, command)

    def seeds(self) -> dict[str, int]:
        """Runs of each arm, each with all seeds from 0 on."""
        found: dict[str, list[int]] = {}
        for path in (self.results / "runs").glob("*/run.json"):
            config = json.loads(path.read_text())["config"]
            found.setdefault(config["experiment"], []).append(config["seed"])
        assert all(sorted(seeds) == list(range(len(seeds))) for seeds in found.values())
        return {slug: len(seeds) for slug, seeds in found.items()}

    def plan(self) -> dict[str, Any]:
        (path,) = (self.results / "stopping").glob("*.json")
        return dict(json.loads(path.read_text()))
