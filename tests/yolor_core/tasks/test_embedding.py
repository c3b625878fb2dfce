"""Retrieval and verification scores against the definitions, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest

from yolor_core.errors import InputError
from yolor_core.tasks import embedding
from yolor_core.tasks.embedding import score_embeddings


def brute_force(vectors: np.ndarray, identities: np.ndarray) -> tuple[float, float, float]:
    """recall@1, mAP and AUC, box by box and pair by pair."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = np.round(unit @ unit.T, 6)
    hits, precisions, positive, negative = [], [], [], []
    for q in range(len(vectors)):
        gallery = [g for g in range(len(vectors)) if g != q]
        right = [g for g in gallery if identities[g] == identities[q]]
        positive += [similar[q, g] for g in right]
        negative += [similar[q, g] for g in gallery if g not in right]
        if not right:
            continue
        best = [g for g in gallery if similar[q, g] == max(similar[q, h] for h in gallery)]
        hits.append(np.mean([g in right for g in best]))
        shares = []
        for r in right:
            near = [g for g in gallery if similar[q, g] >= similar[q, r]]
            shares.append(np.mean([g in right for g in near]))
        precisions.append(np.mean(shares))
    orders = [float(p > n) + 0.5 * float(p == n) for p in positive for n in negative]
    return float(np.mean(hits)), float(np.mean(precisions)), float(np.mean(orders))


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("block", [2**22, 100, 1])  # rows at a time: all, a few, one
def test_scores_follow_their_definitions(monkeypatch: pytest.MonkeyPatch, ties: bool, block: int) -> None:
    monkeypatch.setattr(embedding, "BLOCK", block)
    rng = np.random.default_rng(3)
    identities, images = rng.integers(0, 6, 40), rng.integers(0, 12, 40)
    if ties:  # few directions, of different lengths
        vectors = np.eye(4)[(identities + (rng.random(40) < 0.3)) % 4] * rng.uniform(0.1, 9, (40, 1))
    else:
        vectors = rng.normal(size=(6, 8))[identities] + rng.normal(size=(40, 8))
    expected = brute_force(vectors, identities)
    result = score_embeddings(vectors, identities, images)
    found = result["recall@1"], result["mAP"], result["AUC"]
    assert found == pytest.approx(expected, abs=1e-12 if ties else 1e-9)
    assert (result["boxes"], result["identities"], result["unknown"]) == (40, 6, 0)


def test_retrieval_by_hand() -> None:
    angles = np.radians([0, 10, 30, 31])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    result = score_embeddings(vectors, np.array([1, 1, 1, 2]), np.arange(4))
    # 0: right, right (at 30), wrong; 10: right, right, wrong; 30: wrong, then both right
    assert result["recall@1"] == pytest.approx(2 / 3)
    assert result["mAP"] == pytest.approx((1 + 1 + (1 / 2 + 2 / 3) / 2) / 3)
    # angles of one identity 10, 20, 30; of two 31, 21, 1
    assert result["AUC"] == pytest.approx((2 + 2 + 1) / 9)
    assert (result["queries"], result["alone"]) == (3, 1)


def test_separated_identities_score_one_and_lengths_do_not_matter() -> None:
    vectors = np.repeat(np.eye(3), 4, axis=0) * np.logspace(-30, 30, 12)[:, None]
    result = score_embeddings(vectors, np.repeat([7, 9, 12], 4), np.arange(12))
    assert (result["recall@1"], result["mAP"], result["AUC"]) == (1.0, 1.0, 1.0)


def test_equal_embeddings_score_what_chance_does() -> None:
    rng = np.random.default_rng(0)
    identities = np.repeat([0, 1, 2], [2, 3, 5])
    result = score_embeddings(np.tile(rng.normal(size=37), (10, 1)), identities, np.arange(10))
    chance = (2 * 1 + 3 * 2 + 5 * 4) / 10 / 9
    assert (result["recall@1"], result["mAP"]) == pytest.approx((chance, chance))
    assert result["AUC"] == 0.5


def test_float32_and_float64_and_another_order_give_the_same_numbers() -> None:
    rng = np.random.default_rng(5)
    identities, images = rng.integers(0, 9, 200), rng.integers(0, 50, 200)
    vectors = (rng.normal(size=(9, 16))[identities] + rng.normal(size=(200, 16))).astype(np.float32)
    order = rng.permutation(200)
    first = score_embeddings(vectors, identities, images)
    assert score_embeddings(vectors.astype(np.float64), identities, images) == first
    assert score_embeddings(vectors[order], identities[order], images[order]) == pytest.approx(first)


def test_an_identity_seen_once_is_no_query_but_stays_in_the_gallery() -> None:
    angles = np.radians([0, 10, 4])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    result = score_embeddings(vectors, np.array([1, 1, 2]), np.arange(3))
    assert (result["queries"], result["alone"], result["identities"]) == (2, 1, 2)
    assert (result["recall@1"], result["mAP"]) == (0.0, 0.5)


@pytest.mark.parametrize(("identities", "alone"), [([], 0), ([4], 1), ([4, 5, 6], 3)])
def test_without_a_query_there_is_no_score(identities: list[int], alone: int) -> None:
    count = len(identities)
    result = score_embeddings(np.ones((count, 3)), np.array(identities, np.int64), np.arange(count))
    assert result == {
        "recall@1": None,
        "mAP": None,
        "AUC": None,
        "queries": 0,
        "boxes": count,
        "identities": count,
        "alone": alone,
        "unknown": 0,
    }


def test_one_identity_alone_cannot_be_verified() -> None:
    result = score_embeddings(np.eye(3), np.zeros(3, np.int64), np.arange(3))
    assert (result["recall@1"], result["mAP"], result["AUC"]) == (1.0, 1.0, None)


def test_boxes_of_unknown_identity_are_left_out() -> None:
    rng = np.random.default_rng(8)
    vectors, identities = rng.normal(size=(30, 4)), rng.integers(-1, 4, 30)
    known = identities >= 0
    result = score_embeddings(vectors, identities, np.arange(30))
    rest = score_embeddings(vectors[known], identities[known], np.arange(30)[known])
    assert 0 < known.sum() < 30
    assert result == {**rest, "unknown": int((~known).sum())}


def test_a_zero_vector_has_the_cosine_zero_with_all() -> None:
    vectors = np.array([[0.0, 0], [1, 0], [-1, 0], [0, 1]])
    result = score_embeddings(vectors, np.array([0, 0, 1, 1]), np.arange(4))
    # first: three ties, one right. (1, 0): the zero ties with (0, 1). (-1, 0): likewise. (0, 1): three ties
    assert result["recall@1"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 1 / 3) / 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_name(value: float) -> None:
    vectors = np.ones((3, 2))
    vectors[2, 1] = value
    with pytest.raises(InputError, match=r"box 2 \(image 70\) is not finite, one of 1"):
        score_embeddings(vectors, np.arange(3), np.array([50, 60, 70]))


@pytest.mark.parametrize(
    ("vectors", "identities", "images", "message"),
    [
        (np.ones(3), np.arange(3), np.arange(3), "embeddings are"),
        (np.ones((3, 2), int), np.arange(3), np.arange(3), "embeddings are int64"),
        (np.ones((3, 2)), np.arange(2), np.arange(3), "identities are"),
        (np.ones((3, 2)), np.ones(3), np.arange(3), "identities are float64"),
        (np.ones((3, 2)), np.arange(3), np.arange(2), "image_ids are"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    vectors: np.ndarray, identities: np.ndarray, images: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score_embeddings(vectors, identities, images)
