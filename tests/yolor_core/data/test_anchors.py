"""Anchors by k-means on the boxes of a split."""

from __future__ import annotations

import numpy as np
import pytest

from yolor_core.data.anchors import kmeans_anchors
from yolor_core.errors import DataError


def test_clusters_of_sizes_are_found_by_their_geometric_means() -> None:
    """Nine clusters that ratios tell apart and differences do not: the small ones lie close together."""
    rng = np.random.default_rng(5)
    centres = np.array([[w, h] for w in (3.0, 24.0, 150.0) for h in (5.0, 30.0, 180.0)])
    spread = np.exp(rng.normal(0, 0.1, (9, 40, 2)))
    spread /= np.exp(np.log(spread).mean(1, keepdims=True))  # of geometric mean 1
    sizes = (centres[:, None] * spread).reshape(-1, 2)
    found = kmeans_anchors(rng.permutation(sizes), 3, 3)
    assert found.shape == (3, 3, 2)
    flat = found.reshape(9, 2)
    assert (np.diff(flat.prod(1)) > 0).all()
    order = centres.prod(1).argsort()
    np.testing.assert_allclose(flat, centres[order], rtol=1e-3)


def test_a_size_that_most_boxes_have_takes_no_two_anchors() -> None:
    sizes = np.array([[side, side + 1.0] for side in range(1, 10)])
    found = kmeans_anchors(np.concatenate([sizes, np.repeat(sizes[:1], 1000, axis=0)]), 3, 3)
    np.testing.assert_allclose(found.reshape(9, 2), sizes, rtol=1e-6)


def test_rare_sizes_that_no_sample_has_are_no_error_of_ours() -> None:
    sizes = np.concatenate([np.full((100_000, 2), 9.0), [[side, side + 1.0] for side in range(1, 9)]])
    with pytest.raises(DataError, match=r"9 anchors are needed, and 50000 of the training boxes have [1-8] "):
        kmeans_anchors(sizes, 3, 3)


def test_too_few_different_sizes_are_named() -> None:
    sizes = np.array([[side, side + 1.0] for side in range(1, 9)] * 4)
    with pytest.raises(DataError, match="9 anchors are needed, and the training boxes have 8 different"):
        kmeans_anchors(sizes, 3, 3)
