"""Boxes in pixels, on raw predictions whose decoding is known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.errors import NothingToShow
from analysis.figures.effects import anchor_sizes, centre_offsets, geometry_data
from analysis.runs import Level, Outputs

OUTPUTS = ("x", "y", "w", "h", "obj", "disc")
LEVELS = (
    Level("P3", 8, 16, ((10.0, 20.0), (30.0, 15.0))),
    Level("P4", 16, 32, ((60.0, 80.0), (100.0, 90.0))),
)
LAYOUT = Outputs(("disc",), LEVELS)
BOXES = {"size_edges": [4.0, 8.0, 16.0, 32.0, 64.0], "sizes": np.diag([0, 3, 1, 0]).tolist()}


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def effects(
    before: float = 0.0,
    seed: int = 0,
    site: str = "pr-wh",
    experiment: str = "csp",
    **after: float,
) -> pd.DataFrame:
    """One run whose every raw prediction is `before`, and then `after` for the named outputs."""
    rows = [
        {"level": level.name, "anchor": anchor, "output": output, "after": after.get(output, before)}
        for level in LEVELS
        for anchor in range(2)
        for output in OUTPUTS
    ]
    run = {"run": f"{experiment}-{seed}", "experiment": experiment, "profile": "mini", "seed": seed}
    frame = pd.DataFrame(rows).assign(**run, site=site, before=before)
    return frame.assign(effect=frame["after"] - frame["before"])


def data(*parts: pd.DataFrame) -> pd.DataFrame:
    together = pd.concat(parts, ignore_index=True)
    return geometry_data(together, dict.fromkeys(together["run"], LAYOUT))


def at(found: pd.DataFrame, quantity: str, level: str = "P3", anchor: int = 0) -> Any:
    here = (found["quantity"] == quantity) & (found["level"] == level) & (found["anchor"] == anchor)
    assert here.sum() == 1
    return found[here].iloc[0]


def test_raw_zero_is_the_anchor_itself() -> None:
    found = data(effects())
    for level in LEVELS:
        for anchor, (width, height) in enumerate(level.anchors):
            for when in ("before", "after"):
                assert at(found, f"width {when}", level.name, anchor)["mean"] == pytest.approx(width)
                assert at(found, f"height {when}", level.name, anchor)["mean"] == pytest.approx(height)


def test_factor_acts_inside_the_sigmoid() -> None:
    raw, factor = 0.7, 1.5
    found = data(effects(raw, w=factor * raw))
    before, after = ((2 / (1 + np.exp(-value))) ** 2 for value in (raw, factor * raw))
    assert at(found, "width before", "P4")["mean"] == pytest.approx(60 * before)
    assert at(found, "width after", "P4")["mean"] == pytest.approx(60 * after)
    assert at(found, "width", "P4")["mean"] == pytest.approx(100 * (after / before - 1))
    assert at(found, "height", "P4")["mean"] == pytest.approx(0, abs=1e-12)


def test_factor_of_one_changes_no_size_and_is_not_drawn() -> None:
    found = data(effects(0.7))
    sizes = found[found["quantity"].isin(["width", "height"])]
    assert sizes["mean"].tolist() == [0.0] * 8
    with pytest.raises(NothingToShow, match="No site changes the size"):
        anchor_sizes(found)


def test_centre_moves_by_twice_the_probability_in_strides() -> None:
    found = data(effects(logit(0.5), x=logit(0.75), y=logit(0.25)))
    assert at(found, "x")["mean"] == pytest.approx(2 * 0.25 * 8)
    assert at(found, "y")["mean"] == pytest.approx(-2 * 0.25 * 8)
    assert at(found, "x", "P4", 1)["mean"] == pytest.approx(2 * 0.25 * 16)
    assert at(found, "x")["unit"] == "px"


def test_seeds_of_an_experiment_are_joined() -> None:
    found = data(effects(x=logit(0.75)), effects(x=logit(0.625), seed=1))
    row = at(found, "x")
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((3, 2, 4))
    assert (row["runs"], row["band"]) == (2, "min–max")


def test_runs_of_unknown_layout_are_left_out() -> None:
    known, unknown = effects(x=1.0), effects(x=1.0, seed=1)
    found = geometry_data(pd.concat([known, unknown], ignore_index=True), {"csp-0": LAYOUT})
    assert (found["runs"] == 1).all()
    with pytest.raises(NothingToShow, match="launch"):
        geometry_data(unknown, {"csp-0": LAYOUT})


def test_nothing_recorded_is_said() -> None:
    with pytest.raises(NothingToShow, match="launch"):
        geometry_data(effects().iloc[:0], {})


def test_sizes_are_drawn_from_before_to_after_over_the_boxes() -> None:
    made = anchor_sizes(data(effects(0.5, w=1.0)), BOXES)
    axes = made.axes[0]
    marks = {str(line.get_label()): line for line in axes.get_lines()}
    assert list(marks["P3"].get_xdata()) == pytest.approx([(2 / (1 + np.exp(-1))) ** 2 * w for w in (10, 30)])
    assert marks["P3"].get_marker() != marks["P4"].get_marker()
    mesh = axes.collections[0].get_array()
    assert mesh is not None and np.asarray(mesh).reshape(4, 4)[1, 1] == np.asarray(mesh).max()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "(px)" in axes.get_xlabel() and "(px)" in axes.get_ylabel()


def test_boxes_lie_at_their_width_and_height() -> None:
    sizes = np.zeros((4, 4), int)
    sizes[0, 2] = 5  # width 4 to 8, height 16 to 32
    axes = anchor_sizes(data(effects(0.5, w=1.0)), BOXES | {"sizes": sizes.tolist()}).axes[0]
    mesh: Any = axes.collections[0]
    row, column = np.argwhere(np.asarray(mesh.get_array()).reshape(4, 4))[0]
    corner = mesh.get_coordinates()[row, column]
    assert tuple(corner) == (4, 16)


def test_all_anchors_are_in_view() -> None:
    for boxes in (BOXES, None):
        axes = anchor_sizes(data(effects(-3.0, w=3.0)), boxes).axes[0]
        for line in axes.get_lines():
            for values, (low, high) in (
                (line.get_xdata(), axes.get_xlim()),
                (line.get_ydata(), axes.get_ylim()),
            ):
                assert low < np.min(values) and np.max(values) < high


def test_sites_that_refine_sizes_come_first_and_those_that_do_nothing_are_left_out() -> None:
    found = data(
        effects(0.5, experiment="a", site="fa", w=1.0),
        effects(0.5, experiment="b", site="pr-wh", w=1.0),
        effects(0.5, experiment="c", site="pr"),
    )
    titles = [axes.get_title() for axes in anchor_sizes(found).axes[::2]]
    assert titles == ["b, site pr-wh", "a, site fa"]


def test_offsets_are_drawn_by_anchor_with_bars_over_seeds() -> None:
    made = centre_offsets(data(effects(x=logit(0.75)), effects(x=logit(0.625), seed=1)))
    axes = made.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["P3\n1", "2", "P4\n1", "2"]
    handles, labels = axes.get_legend_handles_labels()
    errors: Any = dict(zip(labels, handles, strict=True))["P3"]
    assert list(errors[0].get_ydata()) == pytest.approx([3, 3])
    assert errors[2][0].get_segments()[0][:, 1] == pytest.approx([2, 4])
    assert "mean of 2 runs; bar: min–max" in made.legends[0].get_title().get_text()


def test_sites_on_sizes_alone_move_no_centre() -> None:
    with pytest.raises(NothingToShow, match="centre"):
        centre_offsets(data(effects(0.5, w=1.0)))
