"""What implicit knowledge does to the predictions, on effects whose relations are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.errors import NothingToShow
from analysis.figures.effects import (
    anchors,
    anchors_data,
    classes,
    classes_data,
    components,
    components_data,
    dimensions_data,
    similarity,
    similarity_data,
    vectors,
)
from analysis.figures.implicit import learned

OUTPUTS = ("x", "y", "w", "h", "obj", "disc", "ring")
LEVELS = ("P3", "P4")
SIZE = len(LEVELS) * 2 * len(OUTPUTS)


def effects(
    vector: np.ndarray | list[float],
    seed: int = 0,
    experiment: str = "csp-fast.add-fa",
    levels: tuple[str, ...] = LEVELS,
) -> pd.DataFrame:
    """Effects of one run with two anchors: `vector` is laid out level by level."""
    count = 2 * len(OUTPUTS)
    index = np.tile(np.arange(count), len(levels))
    return pd.DataFrame(
        {
            "run": f"{experiment}-{seed}",
            "experiment": experiment,
            "profile": "mini",
            "seed": seed,
            "epoch": 4,
            "site": "fa",
            "level": np.repeat(levels, count),
            "index": index,
            "before": 0.0,
            "after": vector,
            "anchor": index // len(OUTPUTS),
            "output": np.array(OUTPUTS)[index % len(OUTPUTS)],
            "effect": vector,
        }
    )


RISING = np.arange(SIZE, dtype=float)


def test_anchors_are_means_over_the_outputs_of_a_block() -> None:
    data = anchors_data(pd.concat([effects(RISING), effects(RISING + 2, seed=1)]))
    found = data.set_index(["level", "anchor", "block"])["mean"]
    assert found["P3", 0, "x, y"] == 0.5 + 1 and found["P4", 1, "classes"] == (26 + 27) / 2 + 1
    assert set(data["runs"]) == {2} and (data["high"] - data["low"] == 2).all()
    made = anchors(data)
    assert [axes.get_title() for axes in made.axes] == ["P3", "P4"]
    (legend,) = made.legends
    assert [text.get_text() for text in legend.get_texts()] == ["anchor 1", "anchor 2"]


def test_classes_stand_beside_their_frequency_and_ap() -> None:
    scores = pd.DataFrame({"run": ["csp-fast.add-fa-0"] * 2, "output": ["disc", "ring"], "AP": [30.0, 50.0]})
    data = classes_data(effects(RISING), {"disc": 10, "ring": 400}, scores).set_index("output")
    assert data.loc["disc", "mean"] == np.mean([5, 12, 19, 26]) and data.loc["ring", "boxes"] == 400
    assert data["AP"].tolist() == [30.0, 50.0]
    made = classes(data.reset_index())
    assert [axes.get_xlabel() for axes in made.axes] == [
        "boxes in the training data",
        "AP of the class, mean of the runs (%)",
    ]
    assert {text.get_text() for text in made.axes[0].texts} == {"disc", "ring"}


def test_classes_without_scores_have_no_panel_of_scores() -> None:
    data = classes_data(effects(RISING), {"disc": 10, "ring": 400})
    assert data["AP"].isna().all() and len(classes(data).axes) == 1


def test_similarity_is_the_cosine_whatever_the_length() -> None:
    unit = np.zeros(SIZE)
    unit[3] = 1.0
    other = np.zeros(SIZE)
    other[9] = 2.0
    frames = [effects(v, seed) for seed, v in enumerate((unit, 5 * unit, -unit, other))]
    data = similarity_data(pd.concat(frames))
    table = data["cosine"].to_numpy().reshape(4, 4)
    np.testing.assert_allclose(table[0], [1, 1, -1, 0], atol=1e-12)
    np.testing.assert_allclose(table, table.T)
    assert data["a"].iloc[4] == "csp-fast.add-fa seed 1"
    image = similarity(data).axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), table)


def test_components_find_the_direction_in_which_runs_differ() -> None:
    direction = np.linspace(-1, 1, SIZE)
    frames = [
        effects(RISING + step * direction, seed=place) for place, step in enumerate((-2.0, 0.0, 1.0, 3.0))
    ]
    data = components_data(pd.concat(frames)).sort_values("seed")
    assert data["share_first"].iloc[0] == pytest.approx(1.0)
    steps = np.array([-2.5, -0.5, 0.5, 2.5]) * np.linalg.norm(direction)
    np.testing.assert_allclose(np.abs(data["first"]), np.abs(steps))
    assert np.sign(data["first"].iloc[0]) == -np.sign(data["first"].iloc[3])
    assert len(components(data).axes[0].texts) == 4


def test_models_with_other_outputs_are_not_compared_and_counted() -> None:
    along = [RISING, RISING**2, -RISING]
    frames = [effects(vector, seed) for seed, vector in enumerate(along)]
    frames.append(effects(RISING[:14], 0, "p6-light", ("P3",)))
    table = similarity_data(pd.concat(frames))["cosine"].to_numpy().reshape(4, 4)
    assert np.isnan(table[3, :3]).all() and np.isnan(table[:3, 3]).all() and table[3, 3] == pytest.approx(1)
    assert not np.isnan(table[:3, :3]).any()
    data = components_data(pd.concat(frames))
    assert len(data) == 3 and (data["left_out"] == 1).all()
    assert "1 not shown" in components(data).legends[0].get_title().get_text()


def test_what_is_missing_is_said() -> None:
    none = effects(RISING).iloc[:0]
    for call in (anchors_data, similarity_data, components_data, vectors):
        with pytest.raises(NothingToShow, match="ablate launch 1"):
            call(none)
    with pytest.raises(NothingToShow, match="needs two"):
        similarity_data(effects(RISING))
    with pytest.raises(NothingToShow, match="2 effects of runs; principal components need three"):
        components_data(pd.concat([effects(RISING), effects(RISING, 1)]))


def test_fig_9_shows_effects_of_every_site() -> None:
    refined = effects(-RISING).assign(site="pr")
    data = dimensions_data(pd.concat([effects(RISING), refined, effects(RISING + 2, seed=1)]))
    assert set(data["quantity"]) == {"effect of fa (logits)", "effect of pr (logits)"}
    row = data[(data["quantity"] == "effect of fa (logits)") & (data["level"] == "P4")].iloc[3]
    assert (row["mean"], row["runs"], row["output"], row["block"]) == (14 + 3 + 1, 2, "h", "w, h")
    assert [axes.get_ylabel() for axes in learned(data).axes] == [
        "effect of fa (logits)",
        "effect of pr (logits)",
    ]
