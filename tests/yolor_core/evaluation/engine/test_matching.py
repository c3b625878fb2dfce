"""Sorts against numpy's stable ones, and the sharing out of work."""

from __future__ import annotations

import numpy as np
import pytest

from yolor_core.evaluation.engine.matching import group, sort_pairs, spread, write_keys


def by_score(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    pairs = np.empty((len(rows), 2), np.uint64)
    write_keys(scores, rows, pairs)
    pairs[:, 1] = rows
    return sort_pairs(pairs, np.empty_like(pairs))[:, 1].astype(np.int64)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_stand_by_falling_score_and_equal_ones_as_given(kind: type) -> None:
    rng = np.random.default_rng(0)
    odd = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-40, -1e-40, 1e30, -1, 1])
    some = (
        odd[:0],
        odd[:1],
        np.full(9, 0.25),
        rng.random(5000),
        rng.choice(odd, 500),
        rng.normal(0, 1e3, 3000).round(1),
    )
    for values in some:
        scores = values.astype(kind)
        rows = rng.permutation(len(scores)).astype(np.int32)
        expected = rows[np.argsort(-scores[rows].astype(np.float64), kind="stable")]
        assert np.array_equal(by_score(scores, rows), expected)


def test_rows_are_grouped_in_the_order_given() -> None:
    rng = np.random.default_rng(0)
    key = rng.integers(0, 7, 200).astype(np.int32)
    key[key == 3] = 2  # an empty one
    order = rng.permutation(200).astype(np.int32)
    for given, base in ((None, np.arange(200)), (order, order)):
        rows, start = group(key, 7, given)
        assert np.array_equal(rows, base[np.argsort(key[base], kind="stable")])
        assert np.array_equal(start, np.searchsorted(np.sort(key), np.arange(8)))
    assert group(key[:0], 2)[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_work_is_shared_out_by_size(threads: int) -> None:
    shares: list[np.ndarray] = []
    sizes = np.array([10, 1, 1, 8, 0, 2])
    spread(shares.append, sizes, threads)
    assert sorted(np.concatenate(shares).tolist()) == list(range(6))
    assert sorted(int(sizes[share].sum()) for share in shares)[-1] == {1: 22, 2: 11}.get(threads, 10)


def test_what_goes_wrong_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        spread(lambda some: 1 // 0, np.ones(3, int), 2)
