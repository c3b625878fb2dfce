"""Figures of the learnt representations, on frames whose content is known."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from analysis.errors import NothingToShow
from analysis.figures.implicit import (
    evolution_data,
    heat_map,
    learned,
    learned_data,
    settling,
    settling_data,
    trajectories,
)

OUTPUTS = ("x", "y", "w", "h", "obj", "disc", "ring")


def values(
    experiment: str = "csp-fast.add-pr",
    seed: int = 0,
    site: str = "pr",
    epochs: tuple[int, ...] = (4,),
    add: float = 0,
) -> pd.DataFrame:
    """g(z) of two levels with two anchors: value = 100 level + dimension + epoch x dimension / 10 + `add`."""
    rows = [
        {
            "run": f"{experiment}-mini-s{seed}-1",
            "experiment": experiment,
            "profile": "mini",
            "seed": seed,
            "epoch": epoch,
            "site": site,
            "level": level,
            "form": "vector",
            "operator": "add",
            "index": index,
            "value": 100 * int(level[1]) + index + epoch * index / 10 + add,
            "anchor": index // len(OUTPUTS),
            "output": OUTPUTS[index % len(OUTPUTS)],
        }
        for epoch, level, index in itertools.product(epochs, ("P3", "P4"), range(2 * len(OUTPUTS)))
    ]
    return pd.DataFrame(rows)


def test_the_learnt_vector_is_the_mean_over_seeds_by_dimension() -> None:
    data = learned_data(pd.concat([values(seed=seed, add=seed) for seed in range(3)]))
    assert len(data) == 2 * 14 and set(data["runs"]) == {3} and set(data["band"]) == {"min–max"}
    row = data[(data["level"] == "P4") & (data["index"] == 11)].iloc[0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((416.4, 415.4, 417.4))
    assert (row["anchor"], row["output"], row["block"]) == (1, "obj", "obj")
    first = data[(data["level"] == "P3") & (data["anchor"] == 0)]
    assert first["block"].tolist() == ["x, y"] * 2 + ["w, h"] * 2 + ["obj", "classes", "classes"]


def test_a_line_for_every_level_and_the_blocks_are_named() -> None:
    made = learned(learned_data(pd.concat([values(), values("csp-fast.mul-pr")])))
    assert len(made.axes) == 2
    for axes in made.axes:
        lines = [line for line in axes.lines if len(line.get_xdata()) == 14]
        assert [line.get_label() for line in lines] == ["P3", "P4"]
        np.testing.assert_allclose(lines[1].get_ydata(), 400 + np.arange(14) * 1.4)
        assert [t.get_text() for t in axes.texts] == ["x, y", "w, h", "obj", "classes"] * 2
    assert "csp-fast.add-pr (one run)" in made.axes[0].get_title()
    assert {line.get_linestyle() for line in lines} == {"-", "--"}  # told apart without colour


@pytest.mark.parametrize("frame", [values().iloc[:0], values(site="fa")], ids=["no runs", "another site"])
def test_without_refinement_there_is_no_figure_9(frame: pd.DataFrame) -> None:
    with pytest.raises(NothingToShow, match="launch Table 2 or 4"):
        learned_data(frame)


def test_evolution_is_the_change_since_the_first_epoch() -> None:
    data = evolution_data(values(epochs=(0, 2, 4)))
    row = data[(data["epoch"] == 4) & (data["level"] == "P3") & (data["index"] == 5)].iloc[0]
    assert row["change"] == pytest.approx(2.0) and row["value"] == pytest.approx(307.0)
    assert (data[data["epoch"] == 0]["change"] == 0).all()
    with pytest.raises(ValueError, match="one run"):
        evolution_data(pd.concat([values(), values(seed=1)]))
    with pytest.raises(NothingToShow, match="no implicit knowledge"):
        evolution_data(values().iloc[:0])


def test_the_heat_map_has_a_cell_for_every_dimension_and_epoch() -> None:
    made = heat_map(evolution_data(values(epochs=(0, 2, 4))))
    panels = [axes for axes in made.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["P3, site pr", "P4, site pr"]
    mesh = panels[0].collections[0].get_array().reshape(14, 3)
    np.testing.assert_allclose(mesh[:, 2], np.arange(14) * 0.4)


def test_trajectories_name_the_values_that_moved_most() -> None:
    made = trajectories(evolution_data(values(epochs=(0, 2, 4))))
    assert len(made.axes[0].lines) == 12
    assert [t.get_text().strip() for t in made.axes[0].texts] == ["ring", "disc"]


def test_one_epoch_can_be_drawn_too() -> None:
    data = evolution_data(values(epochs=(0,)))
    assert len(heat_map(data).axes) == 3 and len(trajectories(data).axes) == 2


def test_settling_compares_every_change_with_the_last() -> None:
    frame = values(epochs=(0, 2, 4))
    turned = (frame["epoch"] == 2) & (frame["level"] == "P4")
    start = 400 + frame["index"]
    frame.loc[turned, "value"] = (2 * start - frame["value"])[turned]  # the opposite change
    data = settling_data(frame).set_index(["level", "epoch"])
    assert data.index.tolist() == [("P3", 2), ("P3", 4), ("P4", 2), ("P4", 4)]  # none before anything changed
    np.testing.assert_allclose(data["cosine"], [1, 1, -1, 1])
    np.testing.assert_allclose(data["size"], [0.5, 1, 0.5, 1])
    assert len(settling(data.reset_index()).axes[0].lines) == 2
    with pytest.raises(NothingToShow, match="has not changed"):
        settling_data(values(epochs=(0,)))
