"""COCO scores of boxes, exact and fast, and their bootstrap over images. Imported without torch.

    matches = match(annotations, detections)      # once per model
    score(matches)                                # what coco.evaluate_boxes gives, bit for bit
    paired_bootstrap(a, b, resamples=10_000, seed=0, threads=2)

In order of use: `matching` assigns detections to true boxes, `scores` gives the twelve numbers, of all images
or of weighted ones, and `bootstrap` draws the weights.
"""

from yolor_core.evaluation.engine.bootstrap import (
    PairedBootstrap,
    bootstrap,
    bootstrap_weights,
    check_detections,
    check_pair,
    paired_bootstrap,
)
from yolor_core.evaluation.engine.matching import Matches, Truth, match
from yolor_core.evaluation.engine.scores import Events, Resampled, compress, resample, score

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
