"""Figures of the learnt representations and their matrices, on frames whose content is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.errors import NothingToShow
from analysis.figures import implicit
from analysis.implicit import SPECTRA, effective_rank
from analysis.runs import KEYS

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
    data = implicit.learned_data(pd.concat([values(seed=seed, add=seed) for seed in range(3)]))
    assert len(data) == 2 * 14 and set(data["runs"]) == {3} and set(data["band"]) == {"min–max"}
    row = data[(data["level"] == "P4") & (data["index"] == 11)].iloc[0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((416.4, 415.4, 417.4))
    assert (row["anchor"], row["output"], row["block"]) == (1, "obj", "obj")
    first = data[(data["level"] == "P3") & (data["anchor"] == 0)]
    assert first["block"].tolist() == ["x, y"] * 2 + ["w, h"] * 2 + ["obj", "classes", "classes"]


def test_a_line_for_every_level_and_the_blocks_are_named() -> None:
    made = implicit.learned(implicit.learned_data(pd.concat([values(), values("csp-fast.mul-pr")])))
    assert len(made.axes) == 2
    for axes in made.axes:
        lines = [line for line in axes.lines if len(line.get_xdata()) == 14]
        assert axes.get_legend_handles_labels()[1] == ["P3", "P4"]
        np.testing.assert_allclose(lines[1].get_ydata(), 400 + np.arange(14) * 1.4)
        assert [t.get_text() for t in axes.texts] == ["box", "obj", "classes"] * 2
    assert made.axes[0].get_title() == "csp-fast.add-pr"
    assert made.legends[0].get_title().get_text().endswith("One run each")
    assert {line.get_linestyle() for line in lines} == {"-", "--"}  # told apart without colour


@pytest.mark.parametrize("frame", [values().iloc[:0], values(site="fa")], ids=["no runs", "another site"])
def test_without_refinement_there_is_no_figure_9(frame: pd.DataFrame) -> None:
    with pytest.raises(NothingToShow, match="launch Table 2 or 4"):
        implicit.learned_data(frame)


def test_evolution_is_the_change_since_the_first_epoch() -> None:
    data = implicit.evolution_data(values(epochs=(0, 2, 4)))
    row = data[(data["epoch"] == 4) & (data["level"] == "P3") & (data["index"] == 5)].iloc[0]
    assert row["change"] == pytest.approx(2.0) and row["value"] == pytest.approx(307.0)
    assert (data[data["epoch"] == 0]["change"] == 0).all()
    panels = [axes for axes in implicit.heat_map(data).axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["P3", "P4"]
    mesh = panels[0].collections[0].get_array().reshape(14, 3)
    np.testing.assert_allclose(mesh[:, 2], np.arange(14) * 0.4)
    both = implicit.evolution_data(pd.concat([values(epochs=(0, 4)), values(seed=1, epochs=(0, 4))]))
    made = implicit.heat_map(both, "change")
    runs = [axes.get_ylabel() for axes in made.axes if axes.get_ylabel()]
    assert runs == ["csp-fast.add-pr-mini-s0-1\ndimension", "csp-fast.add-pr-mini-s1-1\ndimension"]
    assert [axes.get_xlabel() for axes in made.axes if axes.get_title()] == ["", "", "epoch", "epoch"]
    with pytest.raises(NothingToShow, match="no implicit knowledge"):
        implicit.evolution_data(values().iloc[:0])


def test_settling_is_the_distance_left_to_the_last_value() -> None:
    frame = values(epochs=(0, 2, 4))
    moved = frame["epoch"] == 2
    start = 100 * frame["level"].str[1].astype(int) + frame["index"]
    frame.loc[moved, "value"] = start[moved] + 0.1 * frame.loc[moved, "index"]  # a quarter of the way
    other = values(seed=1, epochs=(0, 2, 4))
    data = implicit.settling_data(pd.concat([frame, other])).set_index(["level", "epoch"])
    np.testing.assert_allclose(data.loc["P3", "mean"], [1, (0.75 + 0.5) / 2, 0])
    np.testing.assert_allclose(data.loc["P3", "low"], [1, 0.5, 0])
    np.testing.assert_allclose(data["change"], np.linalg.norm(0.4 * np.arange(14)))
    assert (data["runs"] == 2).all()
    (panel,) = implicit.settling(data.reset_index()).axes
    assert panel.get_title() == "csp-fast.add-pr" and len(panel.get_legend_handles_labels()[1]) == 2
    with pytest.raises(NothingToShow, match="has changed"):
        implicit.settling_data(values(epochs=(0,)))
    with pytest.raises(NothingToShow, match="Table 1"):
        implicit.settling_data(values().iloc[:0])


def spectrum(*values: float, seed: int = 0, level: str = "P3", tensor: str = "W") -> pd.DataFrame:
    """Singular values of one matrix of a run, n x 2n."""
    n = len(values)
    run = {"run": f"csp-{seed}", "experiment": "csp", "profile": "mini", "seed": seed}
    matrix = {
        "site": "fa",
        "level": level,
        "part": 0,
        "tensor": tensor,
        "layer": 0,
        "rows": n,
        "columns": 2 * n,
    }
    frame = pd.DataFrame({"index": range(n), "singular_value": values})
    return frame.assign(**run, **matrix, nonnegative=False)[[*KEYS, *SPECTRA]]


def test_singular_values_are_relative_to_their_run_and_banded_over_seeds() -> None:
    data = implicit.spectra_data(pd.concat([spectrum(8, 4), spectrum(1, 0.1, seed=1)])).set_index("index")
    assert data.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert data.loc[1, ["mean", "low", "high"]].tolist() == pytest.approx([0.3, 0.1, 0.5])
    assert (data["runs"] == 2).all() and (data["count"] == 2).all()
    ranks = [effective_rank(np.array(each)) for each in ([2, 1], [10, 1])]
    assert data["effective_rank"].tolist() == pytest.approx([np.mean(ranks)] * 2)


def test_nonnegative_matrices_have_no_random_ones_beside_them() -> None:
    data = implicit.spectra_data(spectrum(8, 4, tensor="Z").assign(nonnegative=True))
    assert data[["expected", "expected_rank"]].isna().all(axis=None)
    assert "random" not in implicit.spectra(data).axes[0].texts[0].get_text()


def test_spectra_have_a_panel_for_each_matrix_and_a_line_for_each_level() -> None:
    parts = [spectrum(4, 2, 1), spectrum(1, 1, level="P4"), spectrum(1, 1, tensor="Z")]
    made = implicit.spectra(implicit.spectra_data(pd.concat(parts)))
    assert [axes.get_title() for axes in made.axes] == ["csp: W", "csp: Z"]
    (first,) = [
        line for line in made.axes[0].get_lines() if len(line.get_xdata()) == 3 and line.get_alpha() is None
    ]
    assert first.get_ydata() == pytest.approx([1, 0.5, 0.25])
    assert first.get_xdata() == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    handles, labels = made.axes[0].get_legend_handles_labels()
    assert {"random matrix", "P3", "P4"} == set(labels) and made.axes[0].get_yscale() == "log"
    marks: Any = dict(zip(labels, handles, strict=True))
    assert marks["P3"].get_marker() != marks["P4"].get_marker()
    assert "P4: 2.0 of 2" in made.axes[0].texts[0].get_text()
    with pytest.raises(NothingToShow, match="Table 6"):
        implicit.spectra_data(parts[0].iloc[:0])
