"""Figures 3 and 4 on features that are made so that the answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from analysis.errors import NothingToShow
from analysis.figures.features import (
    alignment,
    alignment_data,
    misalignment_data,
    projection,
    projection_data,
)
from analysis.runs import load_features
from yolor_core.errors import RunError

CHANNELS, OUTPUTS = 6, 4
VECTOR = np.array([0, 0, 2.0, 0, 0, 0])


def run_keys(seed: int = 0, experiment: str = "csp.add-fa") -> dict[str, Any]:
    return {"run": f"{experiment}-{seed}", "experiment": experiment, "profile": "mini", "seed": seed}


def features(
    levels: dict[str, NDArray[Any]] | None = None,
    shift: float = 0.5,
    along: float = 3.0,
    seed: int = 0,
    experiment: str = "csp.add-fa",
    operator: str = "add",
    g: NDArray[Any] = VECTOR,
) -> pd.DataFrame:
    """20 object cells and 30 others a level; an object's feature is larger by `along` in channel 2.

    levels: the mean raw output of a level; `after` is larger than `before` by `shift`.
    """
    generator = np.random.default_rng(5)
    rows = []
    for level, mean in (levels or {"P3": np.zeros(OUTPUTS)}).items():
        for place in range(50):
            there = place < 20
            feature = generator.uniform(0, 1, CHANNELS)
            feature[2] += along * there
            before = mean + generator.normal(size=OUTPUTS)
            rows.append(
                {
                    **run_keys(seed, experiment),
                    "image": 7,
                    "level": level,
                    "row": place,
                    "column": 0,
                    "anchor": place % 3,
                    "class": 1 if there else -1,
                    "feature": feature,
                    "aligned": feature + g if operator == "add" else feature * g,
                    "before": before,
                    "after": before + shift,
                }
            )
    return pd.DataFrame(rows)


def implicit(
    values: NDArray[Any] = VECTOR,
    operator: str = "add",
    site: str = "fa",
    seed: int = 0,
    level: str = "P3",
    experiment: str = "csp.add-fa",
) -> pd.DataFrame:
    fixed = {**run_keys(seed, experiment), "epoch": 4, "site": site, "level": level, "form": "vector"}
    return pd.DataFrame({"index": np.arange(len(values)), "value": values}).assign(operator=operator, **fixed)


def write(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    folder.mkdir()
    pq.write_table(pa.Table.from_pandas(frame.drop(columns=list(run_keys()))), folder / "features.parquet")
    return pd.DataFrame([{**run_keys(), "path": str(folder)}])


# Loading


def test_lists_of_the_file_become_arrays(tmp_path: Path) -> None:
    made = features()
    frame = load_features(write(tmp_path / "a", made))
    assert list(frame.columns[:4]) == ["run", "experiment", "profile", "seed"]
    assert isinstance(frame["feature"].iloc[3], np.ndarray)
    assert frame["feature"].iloc[3] == pytest.approx(made["feature"].iloc[3])


def test_runs_without_features_add_nothing(tmp_path: Path) -> None:
    frame = load_features(pd.DataFrame([{**run_keys(), "path": str(tmp_path)}]))
    assert frame.empty and "aligned" in frame
    for make in (misalignment_data, alignment_data):
        with pytest.raises(NothingToShow, match="ablate features"):
            make(frame)
    with pytest.raises(NothingToShow, match="ablate features"):
        projection_data(frame, implicit())


def test_damaged_features_are_named(tmp_path: Path) -> None:
    runs = write(tmp_path / "a", features())
    (tmp_path / "a" / "features.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(RunError, match=r"features\.parquet cannot be read"):
        load_features(runs)


# Fig. 3


def numbers(frame: pd.DataFrame, vectors: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """What stands beside the only panel."""
    columns = ["auc", "chance_low", "chance_high", "dimension_before", "dimension_after"]
    (row,) = projection_data(frame, vectors, seed)[columns].drop_duplicates().to_dict("records")
    return row


def test_vector_that_separates_has_auc_1_and_its_opposite_0() -> None:
    for sign, expected in ((1, 1.0), (-1, 0.0)):
        row = numbers(features(), implicit(sign * VECTOR))
        assert row["auc"] == expected
        assert 0 <= row["chance_low"] < 0.5 < row["chance_high"] <= 1
        assert row["chance_low"] == pytest.approx(1 - row["chance_high"])


def test_chance_finds_nothing_where_objects_are_like_others() -> None:
    row = numbers(features(along=0), implicit())
    assert row["chance_low"] < row["auc"] < row["chance_high"]


def test_multiplication_takes_the_difference_to_one() -> None:
    g = np.ones(CHANNELS)
    g[2] = 0.5
    frame = features(operator="multiply", g=g)
    row = numbers(frame, implicit(g, "multiply"))
    assert row["auc"] == 0.0  # g - 1 points against channel 2
    data = projection_data(frame, implicit(g, "multiply"))
    largest = max(feature[2] for feature in frame["feature"])
    assert data["left"].min() == pytest.approx(-largest)


def test_adding_changes_no_dimension_and_multiplying_does() -> None:
    added = numbers(features(), implicit())
    assert added["dimension_before"] == pytest.approx(added["dimension_after"])
    g = np.ones(CHANNELS)
    g[2] = 100.0
    scaled = numbers(features(operator="multiply", g=g), implicit(g, "multiply"))
    assert scaled["dimension_after"] == pytest.approx(1, abs=0.01) and scaled["dimension_before"] > 1.1


def test_every_anchor_has_its_own_vector_at_fa_cluster() -> None:
    frame = features()
    # Each anchor's objects are larger in another channel; no shared vector would separate them all.
    frame["feature"] = [
        np.eye(CHANNELS)[anchor] * (5 if there >= 0 else 0)
        for anchor, there in zip(frame["anchor"], frame["class"], strict=True)
    ]
    values = np.eye(CHANNELS)[:3].ravel()
    row = numbers(frame, implicit(values, site="fa-cluster"))
    assert row["auc"] == 1.0
    swapped = np.roll(np.eye(CHANNELS)[:3], 1, axis=0).ravel()
    row = numbers(frame, implicit(swapped, site="fa-cluster"))
    assert row["auc"] == 0.5


def test_cell_with_several_anchors_counts_once_and_as_an_object() -> None:
    frame = features()
    twins = frame.assign(anchor=frame["anchor"] + 3, **{"class": -1})
    data = projection_data(pd.concat([twins, frame], ignore_index=True), implicit())
    assert set(data["auc"]) == {1.0}
    for cells, count in (("object", 20), ("background", 30)):
        held = data.loc[data["cells"] == cells, "share"] * count / 100
        assert held.sum() == pytest.approx(count) and list(held) == pytest.approx(list(held.round()))


def test_chance_is_the_same_every_time_and_another_by_another_seed() -> None:
    frame = features(along=0.2)
    first, again, other = (numbers(frame, implicit(), seed) for seed in (0, 0, 1))
    assert first == again
    assert other["chance_low"] != first["chance_low"]


@pytest.mark.parametrize(
    "what", [implicit(site="pr"), implicit(operator="concatenate"), implicit(np.zeros(CHANNELS))]
)
def test_without_a_vector_in_front_of_the_predictor_there_is_no_projection(what: pd.DataFrame) -> None:
    with pytest.raises(NothingToShow, match="before the predictor"):
        projection_data(features(), what)


def test_histograms_hold_all_cells_and_scores_are_over_runs() -> None:
    both = pd.concat([features(), features(seed=1)], ignore_index=True)
    vectors = pd.concat([implicit(), implicit(-VECTOR, seed=1)])
    data = projection_data(both, vectors)
    assert data.groupby("cells")["share"].sum().tolist() == pytest.approx([100, 100])
    assert set(data[["auc", "auc_low", "auc_high", "runs"]].itertuples(index=False, name=None)) == {
        (0.5, 0.0, 1.0, 2)
    }


def test_projection_shows_levels_side_by_side_and_its_numbers() -> None:
    zeros = np.zeros(OUTPUTS)
    vectors = pd.concat([implicit(), implicit(level="P4")])
    made = projection(projection_data(features({"P3": zeros, "P4": zeros}), vectors))
    assert [axes.get_title().split("\n")[0] for axes in made.axes] == ["P3: AUC 1.00", "P4: AUC 1.00"]
    handles, labels = made.axes[0].get_legend_handles_labels()
    shown: Any = dict(zip(labels, handles, strict=True))
    assert shown["object"].get_linestyle() != shown["background"].get_linestyle()


def test_level_without_objects_is_drawn_and_said() -> None:
    frame = features()
    made = projection(projection_data(frame[frame["class"] < 0], implicit()))
    assert made.axes[0].get_title().startswith("P3: no objects")


# Fig. 4


def test_bringing_levels_together_lowers_the_number() -> None:
    levels = {"P3": np.full(OUTPUTS, 8.0), "P4": np.zeros(OUTPUTS)}
    frame = features(levels)
    frame["after"] = [b - levels[level] for b, level in zip(frame["before"], frame["level"], strict=True)]
    (row,) = misalignment_data(frame).to_dict("records")
    assert row["before"] > 5 and row["after"] < 1 and row["objects"] == 40
    made = alignment(alignment_data(frame))
    assert [axes.get_title().split(":")[0] for axes in made.axes] == ["before", "after"]
    assert f"{row['before']:.2f}" in made.axes[0].get_title()
    assert {text.get_text() for text in made.legends[0].get_texts()} == {"P3", "P4"}


def test_plane_is_that_of_both_moments_and_keeps_distances() -> None:
    frame = features(shift=50.0)  # nearly all variance is the shift, the same for all
    data = alignment_data(frame)
    centres = data.groupby("moment")[["first", "second"]].mean()
    apart = np.linalg.norm(centres.loc["after"] - centres.loc["before"])
    assert apart == pytest.approx(50 * np.sqrt(OUTPUTS), rel=1e-3)
    assert data["share_first"].iloc[0] > 0.99


def test_lowest_seed_is_shown_and_numbers_are_over_all() -> None:
    levels = {"P3": np.full(OUTPUTS, 3.0), "P4": np.zeros(OUTPUTS)}
    wider = {"P3": np.full(OUTPUTS, 6.0), "P4": np.zeros(OUTPUTS)}
    both = pd.concat([features(wider, seed=4), features(levels, seed=2)], ignore_index=True)
    data = alignment_data(both)
    assert set(data["seed"]) == {2} and set(data["runs"]) == {2}
    expected = misalignment_data(both).set_index("seed")["before"]
    first = data[data["moment"] == "before"].iloc[0]
    assert first["misalignment"] == pytest.approx(expected[2])
    assert (first["low"], first["high"]) == pytest.approx((expected[2], expected[4]))


def test_background_is_no_part_of_it() -> None:
    data = alignment_data(features())
    assert len(data) == 2 * 20
    frame = features()
    with pytest.raises(NothingToShow, match="background"):
        alignment_data(frame[frame["class"] < 0])


def test_runs_that_change_nothing_are_left_out() -> None:
    with pytest.raises(NothingToShow, match="implicit knowledge"):
        alignment_data(features(shift=0.0))
    both = pd.concat([features(shift=0.0, experiment="csp"), features()], ignore_index=True)
    assert set(misalignment_data(both)["experiment"]) == {"csp.add-fa"}
