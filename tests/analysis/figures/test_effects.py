"""What implicit knowledge does to predictions and boxes, on effects whose relations are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
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


def title(made: Figure) -> str:
    return " ".join(made.legends[0].get_title().get_text().split())


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


def mesh(made: Figure) -> pd.DataFrame:
    """The values of a heat map by the names of its rows and columns."""
    panel = made.axes[0]
    rows, columns = (
        [text.get_text() for text in labels] for labels in (panel.get_yticklabels(), panel.get_xticklabels())
    )
    values: Any = panel.collections[0].get_array()
    return pd.DataFrame(values.filled(np.nan).reshape(len(rows), -1), rows, columns)


def test_blocks_are_means_over_anchors_and_runs() -> None:
    alone = run().astype({"level": "category", "site": "category", "output": "category"})
    assert mesh(effects.blocks(effects.blocks_data(alone))).loc["csp-fast.add-fa", "P3 x, y"] == 4
    data = effects.blocks_data(pd.concat([run(), run(RISING + 2, seed=1)]))
    found = data.set_index(["level", "block"])["mean"]
    assert (
        found["P3", "x, y"] == np.mean([0, 1, 7, 8]) + 1
        and found["P4", "classes"] == np.mean([19, 20, 26, 27]) + 1
    )
    assert set(data["runs"]) == {2} and (data["high"] - data["low"] == 2).all()
    table = mesh(effects.blocks(data))
    blocks = ("x, y", "w, h", "obj", "classes")
    assert list(table.columns) == [f"{level} {block}" for block in blocks for level in ("P3", "P4")]
    assert table.loc["csp-fast.add-fa", "P4 obj"] == np.mean([18, 25]) + 1


def test_classes_stand_with_their_frequency_and_ap_the_rarest_first() -> None:
    scores = pd.DataFrame({"run": ["csp-fast.add-fa-0"] * 2, "output": ["disc", "ring"], "AP": [30.0, 50.0]})
    frequency = {"disc": 400, "ring": 10}
    data = effects.classes_data(run(), frequency, scores).set_index("output")
    assert data.loc["disc", "mean"] == np.mean([5, 12, 19, 26]) and data.loc["ring", "boxes"] == 10
    table = mesh(effects.classes(data.reset_index()))
    assert list(table.columns) == ["ring, 10 boxes, AP 50", "disc, 400 boxes, AP 30"]
    assert table.iloc[0].tolist() == [np.mean([6, 13, 20, 27]), np.mean([5, 12, 19, 26])]
    without = effects.classes_data(run(), frequency)
    assert without["AP"].isna().all()
    assert list(mesh(effects.classes(without)).columns) == ["ring, 10 boxes", "disc, 400 boxes"]


def test_many_classes_are_put_together_by_frequency() -> None:
    one = effects.classes_data(run(), {"disc": 1, "ring": 2}).iloc[:1]
    many = pd.concat(
        one.assign(output=f"c{place}", boxes=float(place), mean=float(place)) for place in range(24)
    )
    table = mesh(effects.classes(many))
    assert list(table.columns[:2]) == ["0 to 1 boxes", "2 to 3 boxes"] and table.shape == (1, 12)
    assert table.iloc[0].tolist() == [2 * place + 0.5 for place in range(12)]


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
    few = effects.similarity(data)
    np.testing.assert_allclose(mesh(few), table)
    assert [text.get_text() for text in few.axes[0].texts][:4] == ["+1.0", "+1.0", "−1.0", "0.0"]
    alike = pd.concat(run(unit, seed, name) for seed in range(4) for name in ("a", "b"))
    other = pd.concat(run(sign * unit, seed, "c") for seed, sign in enumerate((1, 1, -1)))
    means = mesh(effects.similarity(effects.similarity_data(pd.concat([alike, other]))))
    np.testing.assert_allclose(means, [[1, 1, 1 / 3], [1, 1, 1 / 3], [1 / 3, 1 / 3, -1 / 3]])


def test_components_find_the_direction_in_which_runs_differ() -> None:
    direction = np.linspace(-1, 1, SIZE)
    steps = (-2.0, 0.0, 1.0, 3.0)
    frames = [run(RISING + step * direction, seed=place) for place, step in enumerate(steps)]
    data = effects.components_data(pd.concat(frames)).sort_values("seed")
    assert data["share_first"].iloc[0] == pytest.approx(1.0)
    expected = np.array([-2.5, -0.5, 0.5, 2.5]) * np.linalg.norm(direction)
    np.testing.assert_allclose(np.abs(data["first"]), np.abs(expected))
    assert np.sign(data["first"].iloc[0]) == -np.sign(data["first"].iloc[3])
    others, own = [np.asarray(marks.get_offsets()) for marks in effects.components(data).axes[0].collections]
    np.testing.assert_allclose(others, data[["first", "second"]])
    np.testing.assert_allclose(own, data[["first", "second"]])


def test_models_with_other_outputs_are_not_compared_and_counted() -> None:
    frames = [run(vector, seed) for seed, vector in enumerate([RISING, RISING**2, -RISING])]
    frames.append(run(RISING[:14], 0, "p6-light", levels=LEVELS[:1]))
    similar = effects.similarity_data(pd.concat(frames))
    table = similar["cosine"].to_numpy().reshape(4, 4)
    assert np.isnan(table[3, :3]).all() and np.isnan(table[:3, 3]).all() and table[3, 3] == pytest.approx(1)
    assert not np.isnan(table[:3, :3]).any()
    shown = effects.similarity(similar)
    assert mesh(shown).isna().to_numpy().sum() == 6
    assert len([text for text in shown.axes[0].texts if text.get_text()]) == 10, "no number without a cosine"
    data = effects.components_data(pd.concat(frames))
    assert len(data) == 3 and (data["left_out"] == 1).all()
    assert "1 not shown" in title(effects.components(data))


def test_fig_9_shows_effects_of_every_site() -> None:
    data = effects.dimensions_data(pd.concat([run(), run(-RISING, site="pr"), run(RISING + 2, seed=1)]))
    quantities = ["effect of fa (logits)", "effect of pr (logits)"]
    row = data[(data["quantity"] == quantities[0]) & (data["level"] == "P4")].iloc[3]
    assert (row["mean"], row["runs"], row["output"], row["block"]) == (14 + 3 + 1, 2, "h", "w, h")
    made = learned(data)
    assert [axes.get_title() for axes in made.axes] == ["csp-fast.add-fa, FA", "csp-fast.add-fa, PR"]
    assert {axes.get_ylabel() for axes in made.axes} == {"effect (logits)"}
    assert len({axes.get_ylim() for axes in made.axes}) == 1, "effects can be compared"


def test_what_is_missing_is_said() -> None:
    none = run().iloc[:0]
    for call in (effects.blocks_data, effects.similarity_data, effects.components_data, effects.vectors):
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
    (axes,) = made.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["csp"]
    shifts = np.concatenate([np.asarray(marks.get_offsets())[:, 0] for marks in axes.collections])
    assert sorted(shifts) == pytest.approx(sorted(found[found["quantity"].isin(["x", "y"])]["mean"]))
    assert "The largest mean shift is 6 px; for 50%" in title(made)


def test_runs_of_unknown_outputs_are_left_out() -> None:
    known, unknown = moved(x=1.0), moved(x=1.0, seed=1)
    found = effects.geometry_data(pd.concat([known, unknown], ignore_index=True), {"csp-0": KNOWN})
    assert (found["runs"] == 1).all()


def test_sizes_are_drawn_from_before_to_after_over_the_boxes() -> None:
    sizes = np.zeros((4, 4), int)
    sizes[0, 2] = 5  # width 4 to 8, height 16 to 32
    axes = effects.anchor_sizes(boxes(moved(0.5, w=1.0)), BOXES | {"sizes": sizes.tolist()}).axes[0]
    mesh_, after = axes.collections
    widths = [(2 / (1 + np.exp(-1))) ** 2 * w for level in LEVELS for w, _ in level.anchors]
    assert np.asarray(after.get_offsets())[:, 0] == pytest.approx(widths)
    grid: Any = mesh_
    row, column = np.argwhere(np.asarray(grid.get_array()).reshape(4, 4))[0]
    assert tuple(grid.get_coordinates()[row, column]) == (4, 16)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "(px)" in axes.get_xlabel() and "(px)" in axes.get_ylabel()
    assert axes.get_title().splitlines() == ["csp", "0 to +38 %"]


def test_each_row_is_drawn_over_the_boxes_that_it_was_trained_on() -> None:
    found = boxes(moved(0.5, experiment="a", w=1.0), moved(0.5, experiment="b", w=1.0))
    own = {}
    for place, run in enumerate(found.drop_duplicates("series")["one_run"]):
        sizes = np.zeros((4, 4), int)
        sizes[place, place] = 5
        own[run] = BOXES | {"sizes": sizes.tolist()}
    assert len(own) == 2
    meshes: list[Any] = [axes.collections[0] for axes in effects.anchor_sizes(found, own).axes]
    most = [np.asarray(mesh_.get_array()).reshape(4, 4).argmax() for mesh_ in meshes]
    assert most == [0, 5]


@pytest.mark.parametrize("given", [BOXES, None])
def test_all_anchors_are_in_view(given: dict[str, Any] | None) -> None:
    axes = effects.anchor_sizes(boxes(moved(-3.0, w=3.0)), given).axes[0]
    for line in (each for each in axes.get_lines() if len(each.get_xdata())):
        for values, (low, high) in ((line.get_xdata(), axes.get_xlim()), (line.get_ydata(), axes.get_ylim())):
            assert low < np.min(values) and np.max(values) < high


def test_sites_that_refine_sizes_come_first_and_those_that_do_nothing_are_left_out() -> None:
    found = boxes(
        moved(0.5, experiment="a", site="fa", w=1.0),
        moved(0.5, experiment="b", site="pr-wh", w=1.0),
        moved(0.5, experiment="c", site="pr"),
    )
    titles = [axes.get_title().splitlines()[0] for axes in effects.anchor_sizes(found).axes]
    assert titles == ["b", "a"]
