"""Controls of implicit knowledge: a faster bias, a vector that never learns, one merged before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from ablations.registry import resolve, table_named
from tests.yolor_core.training.results import assert_same_result, stop_after
from yolor_core.config import ImplicitConfig, ModelConfig, OptimiserConfig, RunConfig
from yolor_core.data.anchors import kmeans_anchors
from yolor_core.data.batches import box_sizes
from yolor_core.errors import WeightsError
from yolor_core.identity import signature
from yolor_core.models import create_model, implicit_values
from yolor_core.runs.directory import RunDirectory
from yolor_core.training import train
from yolor_core.training.loop import load_data
from yolor_core.training.schedule import Settings
from yolor_core.training.state import apply_settings, build_optimiser
from yolor_core.weights import key_layout, load_run

ADD_FA = ImplicitConfig(site="fa", operator="add")
BASELINE = "d3ab11a9a1dff2f56ca790b78caa0a4da54d7d11f36cdf843ca67b14c416e265"


def small(*implicit: ImplicitConfig) -> torch.nn.Module:
    config = ModelConfig(architecture="yolov4_csp_fast", width=0.0625, depth=0.33, implicit=implicit)
    return create_model(config, classes=2, seed=3).double()


def test_a_faster_bias_moves_as_bias_and_added_refinement_together() -> None:
    """100 steps with a warm-up, where the two learning rates differ most.

    With fixed statistics of BatchNorm: otherwise training is chaotic and amplifies the last digit.
    """
    refined, faster = small(ImplicitConfig(site="pr", operator="add", std=0.0)).eval(), small().eval()
    optimisers = [
        build_optimiser(model, OptimiserConfig(predictor_bias_rate=rate), 5e-4)
        for model, rate in ((refined, 1.0), (faster, 2.0))
    ]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    for step in range(100):
        settings = Settings(
            min(step, 30) * 1e-4, 0.02 - 3e-4 * min(step, 30), 0.8 + 0.001 * min(step, 100), 1
        )
        for model, optimiser in zip((refined, faster), optimisers, strict=True):
            apply_settings(optimiser, settings)
            optimiser.zero_grad()
            sum(((level - 0.3) ** 2).mean() for level in model(images)).backward()
            optimiser.step()
    for level in faster.level_names:
        together = refined.part("predictor", level).bias + refined.implicit.of("pr")[level].values()
        torch.testing.assert_close(together, faster.part("predictor", level).bias, rtol=1e-9, atol=1e-9)
        moved = faster.part("predictor", level).bias - small().part("predictor", level).bias
        assert moved.abs().max() > 0.01


def test_only_the_predictors_biases_learn_faster() -> None:
    model = small()
    optimiser = build_optimiser(model, OptimiserConfig(predictor_bias_rate=3.0), 5e-4)
    apply_settings(optimiser, Settings(0.1, 0.5, 0.9, 1))
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    own = {name for name, p in model.named_parameters() if rates[id(p)] == pytest.approx(0.7)}
    assert own == {f"predictor_{level.lower()}.bias" for level in model.level_names}
    assert len(rates) == len(list(model.parameters()))


def test_a_frozen_vector_acts_and_stays(tiny: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = tiny(implicit=(ADD_FA.model_copy(update={"learning": "frozen"}),))
    assert train(config, tmp_path) == "done"
    frame = pd.read_parquet(tmp_path / "implicit.parquet")
    by_epoch = [part["value"].to_numpy() for _, part in frame.groupby("epoch")]
    assert len(by_epoch) == 3 and abs(by_epoch[0]).max() > 0.01
    assert all((values == by_epoch[0]).all() for values in by_epoch)
    effects = pd.read_parquet(tmp_path / "effects.parquet")
    change = (
        (effects["after"] - effects["before"]).groupby(effects["epoch"]).apply(lambda v: tuple(v.round(7)))
    )
    assert change.nunique() == 3  # the predictor that it passes through learns


def test_a_folded_vector_starts_with_the_same_outputs_and_leaves_no_knowledge() -> None:
    images = torch.rand(2, 3, 64, 64).double()
    for site, operator in (("fa", "add"), ("fa", "multiply"), ("fa-cluster", "add"), ("pr", "multiply")):
        part = ImplicitConfig(site=site, operator=operator, std=0.3)
        learnt, folded = small(part).eval(), small(part.model_copy(update={"learning": "folded"})).eval()
        assert implicit_values(folded) == [] and set(folded.state_dict()) == set(small().state_dict())
        for expected, found in zip(learnt(images), folded(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        differing = [
            name
            for name, value in small().state_dict().items()
            if not torch.equal(value, folded.state_dict()[name])
        ]
        assert differing and all(name.startswith("predictor_") for name in differing)


@pytest.mark.parametrize("options", [{"operator": "concatenate"}, {"operator": "add", "form": "markov"}])
def test_what_cannot_be_folded_before_training_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"learning 'folded'.*allowed: operators add and multiply"):
        ImplicitConfig(site="fa", learning="folded", **options)


def test_the_table_compares_each_control_with_the_row_that_it_imitates() -> None:
    table = table_named("controls")
    against = {row.slug: table.baseline(row).slug for row in table.rows}
    assert against["csp-fast.faster-bias"] == "csp-fast.add-pr"
    assert against["csp-fast.add-fa-frozen"] == against["csp-fast.add-fa-folded"] == "csp-fast.add-fa"
    assert against["csp-fast.kmeans-anchors"] == "csp-fast"
    assert (
        against["p6-light.finetuned"] == against["p6-light.add-fa.mul-pr.finetuned"] == "p6-light.finetuned"
    )
    assert resolve("csp-fast.faster-bias", "mini").train.optimiser.predictor_bias_rate == 2
    assert resolve("csp-fast.add-fa-folded", "mini").model.implicit[0].learning == "folded"


def test_released_anchors_leave_no_trace_in_a_signature() -> None:
    """That of the baseline at the paper's scale, from before anchors could be chosen."""
    released, found = (resolve(name, "paper") for name in ("csp-fast", "csp-fast.kmeans-anchors"))
    assert signature(released) == BASELINE
    assert signature(found) not in (BASELINE, signature(resolve("csp-fast.faster-bias", "paper")))


def test_anchors_of_the_data_train_resume_and_come_back_with_the_weights(
    tiny: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tiny()
    model = config.science.model.model_copy(update={"anchors": "kmeans"})
    config = config.model_copy(update={"science": config.science.model_copy(update={"model": model})})
    assert train(config, tmp_path / "whole") == "done"
    assert train(config, tmp_path / "parts", stop=stop_after(2)) == "preempted"
    assert train(config, tmp_path / "parts") == "done"
    whole, parts = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts")
    assert_same_result(whole, parts)

    images, _ = load_data(config)
    size = config.science.train.size
    wanted = kmeans_anchors(box_sizes(images, size), 3, 3)
    loaded, _ = load_run(whole.path)
    assert (loaded.anchors.numpy() == wanted).all()
    record = whole.read_run()
    assert record is not None
    assert [level["anchors"] for level in record["levels"]] == wanted.astype(float).round(3).tolist()
    with pytest.raises(WeightsError, match="anchors in its own configuration"):
        key_layout(loaded)
