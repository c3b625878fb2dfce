"""COCO scores of boxes, exact and fast, and their bootstrap over images. Imported without torch.

    matches = match(annotations, detections)      # once per model
    score(matches)                                # what coco.evaluate_boxes gives, bit for bit
    paired_bootstrap(a, b, resamples=10_000, seed=0, threads=2)

In order of use: `truth`, `overlap` and `matching` assign detections to true boxes, `accumulate` gives the
twelve numbers, `events` compresses matches, `resampling` scores weighted images, `bootstrap` draws them.
"""

from yolor_core.evaluation.engine.accumulate import score
from yolor_core.evaluation.engine.bootstrap import (
    PairedBootstrap,
    bootstrap,
    bootstrap_weights,
    paired_bootstrap,
)
from yolor_core.evaluation.engine.checks import check_detections, check_pair
from yolor_core.evaluation.engine.events import Events, compress
from yolor_core.evaluation.engine.matching import Matches, match
from yolor_core.evaluation.engine.resampling import Resampled, resample
from yolor_core.evaluation.engine.truth import Truth

__all__ = [
    "Truth",
    "Matches",
    "match",
    "score",
    "Events",
    "compress",
    "Resampled",
    "resample",
    "bootstrap_weights",
    "bootstrap",
    "PairedBootstrap",
    "paired_bootstrap",
    "check_detections",
    "check_pair",
]
