"""Published detections give back every score, and how far the numbers of the images reach into AP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.comparison import stored
from analysis.published.detections import pack, read_detections
from yolor_core.evaluation.detections import Detections
from yolor_core.evaluation.engine import Truth, match, score

STUDY = Path(__file__).parents[3] / "results" / "published" / "mini"
EXACT = 1e-4  # percentage points of AP, the bound of docs/statistics.md


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, Any], Detections]:
    return stored(next((STUDY / "runs").glob("csp.jde-mini-s0-*")))


def moved_by_renumbering(content: dict[str, Any], detections: Detections) -> float:
    """The most that 20 renumberings of the images move AP, in percentage points."""
    ids, rng = np.array(sorted(image["id"] for image in content["images"])), np.random.default_rng(0)
    found = []
    for times in range(21):
        new = rng.permutation(ids) if times else ids
        of = dict(zip(ids.tolist(), new.tolist(), strict=True))
        renumbered = {
            **content,
            "images": [{**each, "id": of[each["id"]]} for each in content["images"]],
            "annotations": [{**each, "image_id": of[each["image_id"]]} for each in content["annotations"]],
        }
        rows = replace(detections, image_id=new[np.searchsorted(ids, detections.image_id)])
        found.append(score(match(renumbered, rows))["detection"]["AP"])
    return 100 * float(np.abs(np.array(found) - found[0]).max())


def test_renumbering_the_images_moves_no_score(published) -> None:
    """Two decimals move it by a tenth of a point."""
    content, detections = published
    two = replace(detections, scores=detections.scores.round(2))
    assert moved_by_renumbering(content, detections) <= EXACT < moved_by_renumbering(content, two)


def test_published_scores_are_exact(published, tmp_path: Path) -> None:
    content, detections = published
    some = detections.image_id < np.sort(np.unique(detections.image_id))[40]
    few = Detections(**{name: column[some] for name, column in vars(detections).items()})
    pack(few, Truth.read(content), tmp_path / "few.parquet")
    again = read_detections(tmp_path / "few.parquet")
    assert np.array_equal(again.scores, few.scores) and again.scores.dtype == np.float32
    assert np.array_equal(again.image_id, few.image_id)
    odd = replace(few, scores=np.resize(np.array([0, 1, 1e-45, 0.5, 1e-3], np.float32), len(few)))
    pack(odd, Truth.read(content), tmp_path / "odd.parquet", grid=0)
    assert np.array_equal(read_detections(tmp_path / "odd.parquet").scores, odd.scores)
