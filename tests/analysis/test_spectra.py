"""Singular values of W and Z, on matrices whose spectrum is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.numpy import save_file

from analysis.errors import NothingToShow
from analysis.figures.implicit import spectra, spectra_data
from analysis.implicit import effective_rank, load_spectra, random_spectrum
from yolor_core.errors import RunError

W, Z = "implicit.sites.fa.{}.forms.0.layers.0.weight", "implicit.sites.fa.{}.forms.0.z"


def rows(folder: Path, *tensors: dict[str, NDArray[Any]], model: Any = None) -> pd.DataFrame:
    """Runs that differ in their seed, each with these tensors."""
    found = []
    for seed, own in enumerate(tensors):
        path = folder / f"csp-{seed}"
        path.mkdir()
        save_file(
            {k: np.ascontiguousarray(v, np.float32) for k, v in own.items()},
            path / "implicit_priors.safetensors",
        )
        if model is not None:
            (path / "run.json").write_text(json.dumps({"config": {"science": {"model": model}}}))
        found.append(
            {"run": path.name, "experiment": "csp", "profile": "mini", "seed": seed, "path": str(path)}
        )
    return pd.DataFrame(found, columns=["run", "experiment", "profile", "seed", "path"])


def wide(*values: float) -> NDArray[np.float64]:
    """A matrix with these singular values, in no obvious axes."""
    generator = np.random.default_rng(1)
    n = len(values)
    left, right = (np.linalg.qr(generator.normal(size=(k, k)))[0] for k in (n, 2 * n))
    return left @ np.diag(values) @ right[:n]


def words(made: Figure) -> str:
    return " ".join(text.get_text() for axes in made.axes for text in axes.texts)


def test_singular_values_are_those_of_the_matrices(tmp_path: Path) -> None:
    own = {W.format("P3"): wide(4, 2, 1), Z.format("P4"): wide(3, 3).T, Z.format("P3"): np.ones(6)}
    frame = load_spectra(rows(tmp_path, own))
    found = frame.groupby(["tensor", "level"])["singular_value"].agg(list)
    assert sorted(found.index) == [("W", "P3"), ("Z", "P4")]  # a prior that is a vector has none
    assert found[("W", "P3")] == pytest.approx([4, 2, 1], rel=1e-5)
    assert found[("Z", "P4")] == pytest.approx([3, 3], rel=1e-5)
    shapes = frame.drop_duplicates("tensor").set_index("tensor")[["rows", "columns"]]
    assert shapes.loc["W"].tolist() == [3, 6] and shapes.loc["Z"].tolist() == [4, 2]


def test_names_tell_anchors_layers_and_branches_apart(tmp_path: Path) -> None:
    own = {
        "implicit.sites.fa-cluster.P3.forms.2.z": wide(1, 1),
        "branches.embedding.implicit.sites.fa.P5.forms.0.layers.1.weight": wide(2, 1),
        "branches.embedding.implicit.sites.fa.P5.forms.0.layers.1.bias": np.ones(2),
    }
    frame = load_spectra(rows(tmp_path, own))
    found = set(frame[["site", "level", "part", "tensor", "layer"]].itertuples(index=False, name=None))
    assert found == {("fa-cluster", "P3", 2, "Z", 0), ("embedding", "P5", 0, "W", 1)}


@pytest.mark.parametrize("task", [None, "classification"])
def test_nonnegative_atoms_are_seen_as_they_enter_the_product(tmp_path: Path, task: str | None) -> None:
    atoms = np.array([[1.0, 2.0], [0.5, 3.0], [2.0, 2.0]])
    stored = np.log(np.expm1(atoms))
    form = {"site": "fa", "form": "factorisation", "nonnegative": True}
    model = {"implicit": [] if task else [form], "branches": [{"task": task, "implicit": form}]}
    name = f"branches.{task}.{Z}" if task else Z
    frame = load_spectra(rows(tmp_path, {name.format("P5"): stored}, model=model))
    expected = np.linalg.svd(atoms, compute_uv=False)
    assert frame["singular_value"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    data = spectra_data(frame)
    assert data[["expected", "expected_rank"]].isna().all(axis=None)
    assert "random" not in words(spectra(data))


def test_runs_without_the_file_or_without_matrices_add_nothing(tmp_path: Path) -> None:
    runs = rows(tmp_path, {Z.format("P3"): np.ones(4)}, {})
    (tmp_path / "csp-1" / "implicit_priors.safetensors").unlink()
    frame = load_spectra(runs)
    assert frame.empty and "singular_value" in frame
    with pytest.raises(NothingToShow, match="Table 6"):
        spectra_data(frame)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    runs = rows(tmp_path, {W.format("P3"): wide(1)})
    file = tmp_path / "csp-0" / "implicit_priors.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(RunError, match=r"implicit_priors\.safetensors cannot be read"):
        load_spectra(runs)


@pytest.mark.parametrize(("values", "rank"), [([2, 2, 2], 3), ([5, 0, 0], 1), ([1e-9, 1e-9], 2), ([0, 0], 1)])
def test_effective_rank_counts_equal_values(values: list[float], rank: float) -> None:
    assert effective_rank(np.array(values)) == pytest.approx(rank)


@pytest.mark.parametrize("shape", [(200, 400), (400, 200), (300, 300)])
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_reference_is_the_spectrum_of_random_matrices(shape: tuple[int, int], kind: str) -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(0, 0.02, shape) if kind == "normal" else generator.uniform(-0.1, 0.1, shape)
    edge = matrix.std() * (np.sqrt(shape[0]) + np.sqrt(shape[1]))
    found = np.linalg.svd(matrix, compute_uv=False) / edge
    assert random_spectrum(*shape) == pytest.approx(found, abs=0.02)
    assert effective_rank(random_spectrum(*shape)) == pytest.approx(effective_rank(found), rel=0.01)


def test_values_are_relative_to_their_run_and_banded_over_seeds(tmp_path: Path) -> None:
    tensors = [{W.format("P3"): wide(8, 4)}, {W.format("P3"): wide(1, 0.1)}]
    data = spectra_data(load_spectra(rows(tmp_path, *tensors))).set_index("index")
    assert data.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert data.loc[1, ["mean", "low", "high"]].tolist() == pytest.approx([0.3, 0.1, 0.5], rel=1e-4)
    assert (data["runs"] == 2).all() and (data["count"] == 2).all()
    ranks = [effective_rank(np.array(each)) for each in ([2, 1], [10, 1])]
    assert data["effective_rank"].tolist() == pytest.approx([np.mean(ranks)] * 2, rel=1e-4)


def test_figure_has_a_panel_for_each_matrix_and_a_line_for_each_level(tmp_path: Path) -> None:
    own = {W.format("P3"): wide(4, 2, 1), W.format("P4"): wide(1, 1), Z.format("P3"): wide(1, 1)}
    made = spectra(spectra_data(load_spectra(rows(tmp_path, own))))
    assert [axes.get_title() for axes in made.axes] == ["csp, site fa: W", "csp, site fa: Z"]
    lines = {str(line.get_label()): line for line in made.axes[0].get_lines()}
    assert lines["P3"].get_ydata() == pytest.approx([1, 0.5, 0.25], rel=1e-5)
    assert lines["P3"].get_xdata() == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    assert "random matrix" in lines and made.axes[0].get_yscale() == "log"
    assert lines["P3"].get_marker() != lines["P4"].get_marker()
    assert "P4: 2.0 of 2" in made.axes[0].texts[0].get_text()
