"""A baseline and its variants with one seed differ by the implicit knowledge, and further tasks, alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ablations.plan import PlannedRun, plan_runs
from yolor_core.runs.directory import RunDirectory
from yolor_core.training.distributed import Place, Ranks
from yolor_core.training.loop import _Training


def runs(seed: int, results: Path) -> dict[str, PlannedRun]:
    """Runs of Tables 1-8 and of the extended tables at the smoke profile, by experiment."""
    planned = plan_runs([*"12345678", "3x", "6x"], "smoke", seeds=[seed], results=results)
    return {run.config.experiment: run for run in planned}


def prepared(run: PlannedRun) -> _Training:
    return _Training(run.config, RunDirectory(run.run_dir), Ranks(Place(), torch.device("cpu")))


VARIANTS = [
    "csp-fast.add-fa",
    "csp-fast.add-pr",
    "csp-fast.mul-fa",
    "csp-fast.cat-fa",
    "csp-fast.mul-pr",
    "csp-fast.mul-fa-cluster",
    "csp-fast.mul-pr-wh",
    "csp-fast.add-fa-network",
    "csp-fast.add-fa-factorisation",
    "csp-fast.add-fa-markov",
    "csp-fast.add-fa.mul-pr",
    "p6-light.add-fa.mul-pr",
    "p6-light.add-fa.mul-pr.finetuned",
    "csp.jdc",
    "csp.jdc.implicit",
    "csp.jdc.implicit-markov",
    "csp.jde",
    "csp.jde.implicit",
    "csp.jde.implicit-markov",
]
CONTROLS = [
    "csp.classification-alone",
    "csp.classification-alone.implicit",
    "csp.embedding-alone",
    "csp.embedding-alone.implicit",
]


def test_every_variant_of_the_tables_is_covered(tmp_path: Path) -> None:
    assert sorted([*VARIANTS, *CONTROLS, "csp", "csp-fast", "p6-light"]) == sorted(runs(0, tmp_path))


@pytest.mark.parametrize("variant", [*VARIANTS, *CONTROLS])
def test_initial_weights_and_batches_are_those_of_the_baseline(variant: str, tmp_path: Path) -> None:
    planned = runs(0, tmp_path)
    ours, theirs = prepared(planned[variant]), prepared(planned[variant.split(".")[0]])

    initial, shared = dict(theirs.state.model.named_parameters()), 0
    for name, parameter in ours.state.model.named_parameters():
        if name not in initial:
            assert "implicit" in name or name.startswith("branches.")
            continue
        value = parameter[:, -initial[name].shape[1] :] if parameter.ndim == 4 else parameter
        assert torch.equal(value, initial[name]), name
        shared += 1
    assert shared == len(initial) or variant in CONTROLS  # what only detection reads is not built there
    assert shared > len(initial) / 2

    augment = planned[variant].config.science.train.phases[0].augment
    pairs = zip(ours.batches.epoch(0, augment), theirs.batches.epoch(0, augment), strict=True)
    for mine, other in pairs:
        assert mine.ids == other.ids
        assert torch.equal(mine.images, other.images) and torch.equal(mine.targets, other.targets)


def test_another_seed_gives_other_weights_and_batches(tmp_path: Path) -> None:
    first, second = (prepared(runs(seed, tmp_path)["csp-fast"]) for seed in (0, 1))
    weights = (dict(x.state.model.named_parameters()) for x in (first, second))
    convolutions = [(a, b) for a, b in zip(*(w.values() for w in weights), strict=True) if a.ndim == 4]
    assert not any(torch.equal(a, b) for a, b in convolutions)
    augment = first.config.science.train.phases[0].augment
    assert next(first.batches.epoch(0, augment)).ids != next(second.batches.epoch(0, augment)).ids
