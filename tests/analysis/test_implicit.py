"""Numbers about implicit vectors, on matrices and points for which they are known."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.stats import t

from analysis.errors import NothingToShow
from analysis.implicit import (
    agreement,
    anchor_agreement,
    anchor_factors,
    auc,
    effective_dimension,
    effective_rank,
    load_spectra,
    misalignment,
    over_pairs,
    random_spectrum,
)
from analysis.runs import Level, Outputs
from yolor_core.errors import RunError

W, Z = "implicit.sites.fa.{}.forms.0.layers.0.weight", "implicit.sites.fa.{}.forms.0.z"


def run(folder: Path, tensors: dict[str, NDArray[Any]], model: Any = None) -> pd.DataFrame:
    """A run that has left these tensors."""
    stored = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    save_file(stored, folder / "implicit_priors.safetensors")
    if model is not None:
        (folder / "run.json").write_text(json.dumps({"config": {"science": {"model": model}}}))
    return pd.DataFrame([{"run": "csp-0", "experiment": "csp", "profile": "mini", "seed": 0, "path": folder}])


def wide(*values: float) -> NDArray[np.float64]:
    """A matrix with these singular values, in no obvious axes."""
    generator = np.random.default_rng(1)
    n = len(values)
    left, right = (np.linalg.qr(generator.normal(size=(k, k)))[0] for k in (n, 2 * n))
    return left @ np.diag(values) @ right[:n]


def test_singular_values_are_those_of_the_matrices(tmp_path: Path) -> None:
    own = {W.format("P3"): wide(4, 2, 1), Z.format("P4"): wide(3, 3).T, Z.format("P3"): np.ones(6)}
    frame = load_spectra(run(tmp_path, own))
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
    frame = load_spectra(run(tmp_path, own))
    found = set(frame[["site", "level", "part", "tensor", "layer"]].itertuples(index=False, name=None))
    assert found == {("fa-cluster", "P3", 2, "Z", 0), ("embedding", "P5", 0, "W", 1)}


@pytest.mark.parametrize("task", [None, "classification"])
def test_nonnegative_atoms_are_seen_as_they_enter_the_product(tmp_path: Path, task: str | None) -> None:
    atoms = np.array([[1.0, 2.0], [0.5, 3.0], [2.0, 2.0]])
    form = {"site": "fa", "form": "factorisation", "nonnegative": True}
    model = {"implicit": [] if task else [form], "branches": [{"task": task, "implicit": form}]}
    name = (f"branches.{task}.{Z}" if task else Z).format("P5")
    frame = load_spectra(run(tmp_path, {name: np.log(np.expm1(atoms))}, model))
    expected = np.linalg.svd(atoms, compute_uv=False)
    assert frame["singular_value"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert frame["nonnegative"].all()


def test_runs_without_matrices_add_nothing_and_damaged_files_are_named(tmp_path: Path) -> None:
    vector = run(tmp_path, {Z.format("P3"): np.ones(4)})
    file = tmp_path / "implicit_priors.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(RunError, match=r"implicit_priors\.safetensors cannot be read"):
        load_spectra(vector)
    file.unlink()
    frame = load_spectra(vector)
    assert frame.empty and "singular_value" in frame


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


def test_auc_is_the_share_of_pairs_in_order_and_missing_without_pairs() -> None:
    objects, others = np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    pairs = [(a > b) + 0.5 * (a == b) for a in objects[:, 0] for b in others[:, 0]]
    assert auc(objects, others) == pytest.approx([np.mean(pairs), 0.5])
    assert np.isnan(auc(np.empty((0, 2)), np.ones((3, 2)))).tolist() == [True, True]


@pytest.mark.parametrize("dimension", [1, 3])
def test_effective_dimension_counts_equal_directions(dimension: int) -> None:
    axes = np.eye(5)[:dimension]
    points = np.concatenate([axes, -axes]) + 10
    assert effective_dimension(points) == pytest.approx(dimension)
    assert effective_dimension(np.repeat(points, 5, axis=0)) == pytest.approx(dimension)  # more than channels
    assert np.isnan(effective_dimension(points[:1])), "one point has none"


def test_misalignment_is_distance_of_centroids_in_spreads() -> None:
    square = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])  # spread 1
    points = np.concatenate([square, square + np.array([6, 0])])
    levels = np.repeat(np.array(["P3", "P4"], object), 4)
    assert misalignment(points, levels) == pytest.approx(6)
    assert misalignment(points * 10, levels) == pytest.approx(6)
    assert misalignment(np.concatenate([square, square]), levels) == pytest.approx(0)
    assert np.isnan(misalignment(square, levels[:4])), "one level is not apart from another"


def vectors_of(series: str, *runs: NDArray[np.float64]) -> pd.DataFrame:
    """A frame of vectors (levels, dimensions), one for each seed."""
    return pd.DataFrame(
        {
            "run": f"{series}-{seed}",
            "experiment": series,
            "profile": "mini",
            "seed": seed,
            "site": "fa",
            "level": f"P{level + 3}",
            "index": index,
            "value": values[level, index],
        }
        for seed, values in enumerate(runs)
        for level, index in np.ndindex(values.shape)
    )


def test_seeds_agree_where_their_dimensions_do_and_not_because_of_a_common_mean() -> None:
    generator = np.random.default_rng(3)
    common = generator.normal(size=(2, 60))
    noise = [generator.normal(size=(2, 60)) for _ in range(6)]
    frames = {
        "alike": [common + 0.3 * each for each in noise[:3]],
        "about-1": [1 + 0.01 * each for each in noise[3:]],
        "alone": noise[:1],
    }
    found = agreement(
        pd.concat(vectors_of(name, *runs) for name, runs in frames.items()), "value", draws=199
    ).set_index("series")
    assert list(found.index) == ["alike", "about-1"] and set(found["runs"]) == {3}
    for name in found.index:  # against the plain mean over pairs
        rows = [each.ravel() / np.linalg.norm(each) for each in frames[name]]
        pairs = [rows[0] @ rows[1], rows[0] @ rows[2], rows[1] @ rows[2]]
        assert found.loc[name, "cosine"] == pytest.approx(np.mean(pairs))
    alike, about_1 = found.loc["alike"], found.loc["about-1"]
    assert alike["cosine"] > 0.8 > 0.2 > alike["null_high"] > alike["null"]
    assert alike["p"] == pytest.approx(1 / 200)
    assert about_1["cosine"] > 0.99 and about_1["null"] > 0.99 and about_1["p"] > 0.05
    with pytest.raises(NothingToShow, match="two or more"):
        agreement(vectors_of("alone", noise[0]), "value")
    with pytest.raises(NothingToShow, match="two or more"):
        agreement(vectors_of("alone", noise[0]).iloc[:0], "value")
    assert (found["low"] < found["cosine"]).all() and (found["cosine"] < found["high"]).all()


def test_the_interval_over_pairs_is_the_jackknife_of_runs_on_fishers_scale() -> None:
    cosines = np.corrcoef(np.random.default_rng(4).normal(size=(5, 20)) + np.arange(20) / 5)

    def fisher(kept: list[int]) -> float:
        return float(np.mean([np.arctanh(cosines[a, b]) for a, b in itertools.combinations(kept, 2)]))

    every = list(range(5))
    left = np.array([fisher([run for run in every if run != out]) for out in every])
    error = np.sqrt(4 / 5 * ((left - left.mean()) ** 2).sum())
    low, high = over_pairs(cosines)
    wanted = np.tanh(fisher(every) + np.array([-1, 1]) * t.ppf(0.975, 4) * error)
    assert (low, high) == pytest.approx(tuple(wanted))
    assert np.isnan(over_pairs(cosines[:2, :2])).all()


def test_anchors_that_have_become_their_boxes_have_slope_1_and_a_site_that_did_half_of_it_one_half() -> None:
    """Boxes of one size for each anchor: four times as wide and twice as high as the first, and so on."""
    asked = {"P3": ((3.0, 2.0), (1.5, 0.8)), "P4": ((2.5, 1.1), (0.9, 3.2))}  # half the greatest: 4
    edges = 2 ** (np.arange(27) / 2)
    middle = np.sqrt(edges[1:] * edges[:-1])
    counts = np.zeros((26, 26))
    levels, rows = [], []
    places = iter(((2, 3), (9, 8), (14, 16), (22, 20)))
    for name, factors in asked.items():
        anchors = []
        for factor in factors:
            box = next(places)
            counts[box] = 7
            anchors.append(tuple(middle[list(box)] / factor))
        levels.append(Level(name, 8, 16, tuple(anchors)))
        for anchor, factor in enumerate(factors):
            for output, each in zip("wh", factor, strict=True):
                after, before = (np.sqrt(value) / 2 for value in (each, np.sqrt(each)))
                logits = [float(np.log(p / (1 - p))) for p in (before, after)]
                rows.append((name, anchor, output, *logits))
    frame = pd.DataFrame(rows, columns=["level", "anchor", "output", "before", "after"])
    frame = frame.assign(experiment="csp", profile="mini", site="pr", effect=frame["after"] - frame["before"])
    effects = pd.concat([frame.assign(run=f"csp-{seed}", seed=seed) for seed in range(3)])
    outputs = {f"csp-{seed}": Outputs(("cat",), tuple(levels)) for seed in range(3)}
    found_levels = [
        Level(each.name, 8, 16, tuple((2 * w, 3 * h) for w, h in each.anchors)) for each in levels
    ]
    outputs["csp.kmeans-anchors-mini-s0"] = Outputs(("cat",), tuple(found_levels))
    boxes = {run: {"size_edges": edges, "sizes": counts} for run in outputs}
    data = anchor_factors(effects, outputs, boxes)
    assert len(data) == 3 * 8
    first = data[(data["run"] == "csp-0") & (data["side"] == "w")]
    assert first["matched"].tolist() == pytest.approx([each[0] for own in asked.values() for each in own])
    assert first["kmeans"].tolist() == pytest.approx([2.0] * 4)
    found = anchor_agreement(data, draws=99).set_index(["learnt", "wanted"])
    assert found.loc[("predicted", "matched"), "slope"] == pytest.approx(1)
    assert found.loc[("factor", "matched"), ["slope", "low", "high"]].tolist() == pytest.approx([0.5] * 3)
    assert found.loc[("factor", "matched"), "correlation"] == pytest.approx(1)
    assert found["p"].loc[:, "matched"].max() < 0.2
