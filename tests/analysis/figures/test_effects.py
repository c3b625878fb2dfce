"""What implicit knowledge does to predictions and boxes, on effects whose relations are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.errors import NothingToShow
from analysis.figures import effects
from analysis.figures.implicit import learned
from analysis.runs import Level, Outputs

OUTPUTS = ("x", "y", "w", "h", "obj", "disc", "ring")
LEVELS = (
    Level("P3", 8, 16, ((10.0, 20.0), (30.0, 15.0))),
    Level("P4", 16, 32, ((60.0, 80.0), (100.0, 90.0))),
)
KNOWN = Outputs(("disc", "ring"), LEVELS)
ANCHORS, SIZE = 2, len(LEVELS) * 2 * len(OUTPUTS)
RISING = np.arange(SIZE, dtype=float)
BOXES = {"size_edges": [4.0, 8.0, 16.0, 32.0, 64.0], "sizes": np.diag([0, 3, 1, 0]).tolist()}


def run(
    effect: NDArray[Any] | Sequence[float] = RISING,
    seed: int = 0,
    experiment: str = "csp-fast.add-fa",
    site: str = "fa",
    levels: Sequence[Level] = LEVELS,
    before: float = 0.0,
) -> pd.DataFrame:
    """Effects of one run with two anchors, laid out level by level, anchor by anchor, output by output."""
    count = ANCHORS * len(OUTPUTS)
    index = np.tile(np.arange(count), len(levels))
    effect = np.asarray(effect, float)
    return pd.DataFrame(
        {
            "run": f"{experiment}-{seed}",
            "experiment": experiment,
            "profile": "mini",
            "seed": seed,
            "epoch": 4,
            "site": site,
            "level": np.repeat([level.name for level in levels], count),
            "index": index,
            "before": before,
            "after": before + effect,
            "anchor": index // len(OUTPUTS),
            "output": np.array(OUTPUTS)[index % len(OUTPUTS)],
            "effect": effect,
        }
    )


def moved(
    before: float = 0.0, *, seed: int = 0, experiment: str = "csp", site: str = "pr", **after: float
) -> Any:
    """A run whose every raw prediction is `before`, and then `after` for the named outputs."""
    one = [after.get(output, before) - before for output in OUTPUTS]
    return run(one * ANCHORS * len(LEVELS), seed, experiment, site, before=before)


def boxes(*runs: pd.DataFrame) -> pd.DataFrame:
    frame = pd.concat(runs, ignore_index=True)
    return effects.geometry_data(frame, dict.fromkeys(frame["run"], KNOWN))


def at(found: pd.DataFrame, quantity: str, level: str = "P3", anchor: int = 0) -> Any:
    here = (found["quantity"] == quantity) & (found["level"] == level) & (found["anchor"] == anchor)
    (row,) = found[here].to_dict("records")
    return row


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


# Raw predictions


def test_anchors_are_means_over_the_outputs_of_a_block() -> None:
    data = effects.anchors_data(pd.concat([run(), run(RISING + 2, seed=1)]))
    found = data.set_index(["level", "anchor", "block"])["mean"]
    assert found["P3", 0, "x, y"] == 0.5 + 1 and found["P4", 1, "classes"] == (26 + 27) / 2 + 1
    assert set(data["runs"]) == {2} and (data["high"] - data["low"] == 2).all()
    made = effects.anchors(data)
    assert [axes.get_title() for axes in made.axes] == ["P3", "P4"]
    (legend,) = made.legends
    assert [text.get_text() for text in legend.get_texts()] == ["anchor 1", "anchor 2"]
    handles, labels = made.axes[1].get_legend_handles_labels()
    bars: Any = handles[labels.index("anchor 2")]
    drawn = dict(
        zip(np.round(np.asarray(bars[0].get_xdata(), float)), bars[2][0].get_segments(), strict=True)
    )
    for place, block in enumerate(("x, y", "w, h", "obj", "classes")):
        mean = found["P4", 1, block]
        assert drawn[place][:, 1] == pytest.approx([mean - 1, mean + 1])


def test_classes_stand_beside_their_frequency_and_ap() -> None:
    scores = pd.DataFrame({"run": ["csp-fast.add-fa-0"] * 2, "output": ["disc", "ring"], "AP": [30.0, 50.0]})
    frequency = {"disc": 10, "ring": 400}
    data = effects.classes_data(run(), frequency, scores).set_index("output")
    assert data.loc["disc", "mean"] == np.mean([5, 12, 19, 26]) and data.loc["ring", "boxes"] == 400
    assert data["AP"].tolist() == [30.0, 50.0]
    made = effects.classes(data.reset_index())
    labels = [axes.get_xlabel() for axes in made.axes]
    assert labels == ["boxes in the training data", "AP of the class, mean of the runs (%)"]
    assert {text.get_text() for text in made.axes[0].texts} == {"disc", "ring"}
    without = effects.classes_data(run(), frequency)
    assert without["AP"].isna().all() and len(effects.classes(without).axes) == 1


def test_similarity_is_the_cosine_whatever_the_length() -> None:
    unit, other = np.zeros(SIZE), np.zeros(SIZE)
    unit[3], other[9] = 1.0, 2.0
    data = effects.similarity_data(
        pd.concat(run(v, seed) for seed, v in enumerate((unit, 5 * unit, -unit, other)))
    )
    table = data["cosine"].to_numpy().reshape(4, 4)
    np.testing.assert_allclose(table[0], [1, 1, -1, 0], atol=1e-12)
    np.testing.assert_allclose(table, table.T)
    assert data["a"].iloc[4] == "csp-fast.add-fa seed 1"
    panel = effects.similarity(data).axes[0]
    np.testing.assert_allclose(np.asarray(panel.collections[0].get_array()).reshape(4, 4), table)
    assert [text.get_text() for text in panel.texts][:4] == ["+1.0", "+1.0", "−1.0", "0.0"]


def test_components_find_the_direction_in_which_runs_differ() -> None:
    direction = np.linspace(-1, 1, SIZE)
    steps = (-2.0, 0.0, 1.0, 3.0)
    frames = [run(RISING + step * direction, seed=place) for place, step in enumerate(steps)]
    data = effects.components_data(pd.concat(frames)).sort_values("seed")
    assert data["share_first"].iloc[0] == pytest.approx(1.0)
    expected = np.array([-2.5, -0.5, 0.5, 2.5]) * np.linalg.norm(direction)
    np.testing.assert_allclose(np.abs(data["first"]), np.abs(expected))
    assert np.sign(data["first"].iloc[0]) == -np.sign(data["first"].iloc[3])
    panel = effects.components(data).axes[0]
    assert len(panel.texts) == 4
    places = np.concatenate([np.asarray(marks.get_offsets()) for marks in panel.collections])
    np.testing.assert_allclose(places, data[["first", "second"]])


def test_models_with_other_outputs_are_not_compared_and_counted() -> None:
    frames = [run(vector, seed) for seed, vector in enumerate([RISING, RISING**2, -RISING])]
    frames.append(run(RISING[:14], 0, "p6-light", levels=LEVELS[:1]))
    similar = effects.similarity_data(pd.concat(frames))
    table = similar["cosine"].to_numpy().reshape(4, 4)
    assert np.isnan(table[3, :3]).all() and np.isnan(table[:3, 3]).all() and table[3, 3] == pytest.approx(1)
    assert not np.isnan(table[:3, :3]).any()
    assert len(effects.similarity(similar).axes[0].texts) == 10, "no number where there is no cosine"
    data = effects.components_data(pd.concat(frames))
    assert len(data) == 3 and (data["left_out"] == 1).all()
    assert "1 not shown" in effects.components(data).legends[0].get_title().get_text()


def test_fig_9_shows_effects_of_every_site() -> None:
    data = effects.dimensions_data(pd.concat([run(), run(-RISING, site="pr"), run(RISING + 2, seed=1)]))
    quantities = ["effect of fa (logits)", "effect of pr (logits)"]
    row = data[(data["quantity"] == quantities[0]) & (data["level"] == "P4")].iloc[3]
    assert (row["mean"], row["runs"], row["output"], row["block"]) == (14 + 3 + 1, 2, "h", "w, h")
    assert [axes.get_ylabel() for axes in learned(data).axes] == quantities


def test_what_is_missing_is_said() -> None:
    none = run().iloc[:0]
    for call in (effects.anchors_data, effects.similarity_data, effects.components_data, effects.vectors):
        with pytest.raises(NothingToShow, match="ablate launch 1"):
            call(none)
    with pytest.raises(NothingToShow, match="needs two"):
        effects.similarity_data(run())
    with pytest.raises(NothingToShow, match="2 effects of runs; principal components need three"):
        effects.components_data(pd.concat([run(), run(seed=1)]))
    with pytest.raises(NothingToShow, match="launch"):
        effects.geometry_data(none, {})
    with pytest.raises(NothingToShow, match="No site changes the size"):
        effects.anchor_sizes(boxes(moved(0.7)))
    with pytest.raises(NothingToShow, match="centre"):
        effects.centre_offsets(boxes(moved(0.5, w=1.0)))


# Boxes in pixels


def test_raw_zero_is_the_anchor_itself() -> None:
    found = boxes(moved())
    for level in LEVELS:
        for anchor, sides in enumerate(level.anchors):
            for when in ("before", "after"):
                shown = [
                    at(found, f"{side} {when}", level.name, anchor)["mean"] for side in ("width", "height")
                ]
                assert shown == pytest.approx(sides)


def test_factor_acts_inside_the_sigmoid() -> None:
    raw, factor = 0.7, 1.5
    found = boxes(moved(raw, w=factor * raw))
    before, after = ((2 / (1 + np.exp(-value))) ** 2 for value in (raw, factor * raw))
    assert at(found, "width before", "P4")["mean"] == pytest.approx(60 * before)
    assert at(found, "width after", "P4")["mean"] == pytest.approx(60 * after)
    assert at(found, "width", "P4")["mean"] == pytest.approx(100 * (after / before - 1))
    assert at(found, "height", "P4")["mean"] == pytest.approx(0, abs=1e-12)


def test_centre_moves_by_twice_the_probability_in_strides_and_seeds_are_joined() -> None:
    found = boxes(moved(x=logit(0.75), y=logit(0.25)), moved(x=logit(0.625), seed=1))
    row = at(found, "x")
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((3, 2, 2 * 0.25 * 8))
    assert (row["runs"], row["band"], row["unit"]) == (2, "min–max", "px")
    assert at(found, "x", "P4", 1)["high"] == pytest.approx(2 * 0.25 * 16)
    assert at(found, "y")["low"] == pytest.approx(-2 * 0.25 * 8)
    made = effects.centre_offsets(found)
    axes = made.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["P3\n1", "2", "P4\n1", "2"]
    handles, labels = axes.get_legend_handles_labels()
    errors: Any = dict(zip(labels, handles, strict=True))["P3"]
    assert list(errors[0].get_ydata()) == pytest.approx([3, 3])
    assert errors[2][0].get_segments()[0][:, 1] == pytest.approx([2, 4])
    assert "mean of 2 runs; bar: min–max" in made.legends[0].get_title().get_text()


def test_runs_of_unknown_outputs_are_left_out() -> None:
    known, unknown = moved(x=1.0), moved(x=1.0, seed=1)
    found = effects.geometry_data(pd.concat([known, unknown], ignore_index=True), {"csp-0": KNOWN})
    assert (found["runs"] == 1).all()


def test_sizes_are_drawn_from_before_to_after_over_the_boxes() -> None:
    sizes = np.zeros((4, 4), int)
    sizes[0, 2] = 5  # width 4 to 8, height 16 to 32
    axes = effects.anchor_sizes(boxes(moved(0.5, w=1.0)), BOXES | {"sizes": sizes.tolist()}).axes[0]
    marks = {str(line.get_label()): line for line in axes.get_lines()}
    assert list(marks["P3"].get_xdata()) == pytest.approx([(2 / (1 + np.exp(-1))) ** 2 * w for w in (10, 30)])
    assert marks["P3"].get_marker() != marks["P4"].get_marker()
    mesh: Any = axes.collections[0]
    row, column = np.argwhere(np.asarray(mesh.get_array()).reshape(4, 4))[0]
    assert tuple(mesh.get_coordinates()[row, column]) == (4, 16)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "(px)" in axes.get_xlabel() and "(px)" in axes.get_ylabel()


@pytest.mark.parametrize("given", [BOXES, None])
def test_all_anchors_are_in_view(given: dict[str, Any] | None) -> None:
    axes = effects.anchor_sizes(boxes(moved(-3.0, w=3.0)), given).axes[0]
    for line in axes.get_lines():
        for values, (low, high) in ((line.get_xdata(), axes.get_xlim()), (line.get_ydata(), axes.get_ylim())):
            assert low < np.min(values) and np.max(values) < high


def test_sites_that_refine_sizes_come_first_and_those_that_do_nothing_are_left_out() -> None:
    found = boxes(
        moved(0.5, experiment="a", site="fa", w=1.0),
        moved(0.5, experiment="b", site="pr-wh", w=1.0),
        moved(0.5, experiment="c", site="pr"),
    )
    titles = [axes.get_title() for axes in effects.anchor_sizes(found).axes[::2]]
    assert titles == ["b, site pr-wh", "a, site fa"]
