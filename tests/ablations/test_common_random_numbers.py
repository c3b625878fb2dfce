"""A baseline and its variants with one seed differ by the implicit knowledge, and further tasks, alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ablations.plan import plan_runs
from ablations.planned import PlannedRun
from yolor_core.data import TrainingBatches
from yolor_core.device import Numerics
from yolor_core.models import Detector
from yolor_core.training.distributed import Place, Ranks
from yolor_core.training.loop import initial_state, load_data, training_batches
from yolor_core.training.schedule import Schedule


def runs(seed: int, results: Path) -> dict[str, PlannedRun]:
    """Runs of Tables 1-8 and of the extended tables at the smoke profile, by experiment."""
    planned = plan_runs([*"12345678", "3x", "6x"], "smoke", seeds=[seed], results=results)
    return {run.config.experiment: run for run in planned}


def prepared(run: PlannedRun) -> tuple[Detector, TrainingBatches]:
    """The initial model and the batches of a run."""
    config, ranks = run.config, Ranks(Place(), torch.device("cpu"))
    recipe = config.science.train
    images, _ = load_data(config)
    batches = training_batches(config, images, ranks)
    schedule = Schedule(recipe.optimiser, recipe.phases, batches.steps, recipe.batch)
    state = initial_state(config, images, schedule, Numerics(config.science.numerics, ranks.device))
    return state.model, batches


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
    our_model, ours = prepared(planned[variant])
    their_model, theirs = prepared(planned[variant.split(".")[0]])

    initial, shared = dict(their_model.named_parameters()), 0
    for name, parameter in our_model.named_parameters():
        if name not in initial:
            assert "implicit" in name or name.startswith("branches.")
            continue
        value = parameter[:, -initial[name].shape[1] :] if parameter.ndim == 4 else parameter
        assert torch.equal(value, initial[name]), name
        shared += 1
    assert shared == len(initial) or variant in CONTROLS  # what only detection reads is not built there
    assert shared > len(initial) / 2

    augment = planned[variant].config.science.train.phases[0].augment
    pairs = zip(ours.epoch(0, augment), theirs.epoch(0, augment), strict=True)
    for mine, other in pairs:
        assert mine.ids == other.ids
        assert torch.equal(mine.images, other.images) and torch.equal(mine.targets, other.targets)


def test_another_seed_gives_other_weights_and_batches(tmp_path: Path) -> None:
    planned = [runs(seed, tmp_path)["csp-fast"] for seed in (0, 1)]
    (one, first), (other, second) = map(prepared, planned)
    weights = (dict(model.named_parameters()) for model in (one, other))
    convolutions = [(a, b) for a, b in zip(*(w.values() for w in weights), strict=True) if a.ndim == 4]
    assert not any(torch.equal(a, b) for a, b in convolutions)
    augment = planned[0].config.science.train.phases[0].augment
    assert next(first.epoch(0, augment)).ids != next(second.epoch(0, augment)).ids
