"""Scores of multi-label image classification, by torchmetrics.

torchmetrics is imported when it is needed: that takes seconds, which detection alone need not wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolor_core.errors import InputError

THRESHOLD = 0.5  # a class is said to be there when its score is above it


def score_classes(
    truth: NDArray[np.bool_], scores: NDArray[np.floating], names: Sequence[str]
) -> dict[str, Any]:
    """Score predicted classes of images.

    Args:
        truth: bool (N, C), whether image i shows class c. An image without labels is a row without True.
        scores: float (N, C), probabilities from 0 to 1.
        names: the C class names.

    Returns:
        {"mAP": mean over classes of the average precision, "F1_micro": F1 of all decisions together,
        "F1_macro": mean of the classes' F1, "per_class": {name: average precision or None}, "images": N,
        "absent": names of the classes that no image shows}.

        Average precision is the sum over the scores that occur, falling, of the gain in recall times the
        precision there; images of equal score enter together, so their order does not matter. An absent
        class has neither recall nor a place in the two means; what is falsely found of it counts in the
        micro F1. Without any positive the three numbers are None.

    Raises:
        InputError: for shapes that do not fit, and for scores that are not numbers from 0 to 1.
    """
    truth, scores = np.asarray(truth), np.asarray(scores)
    _check(truth, scores, names)
    per_class: dict[str, float | None] = dict.fromkeys(names)
    shown = np.flatnonzero(truth.any(axis=0)).tolist()
    result: dict[str, Any] = {"mAP": None, "F1_micro": None, "F1_macro": None, "per_class": per_class}
    if shown:
        import torch
        from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

        found, wanted = torch.from_numpy(scores.copy()), torch.from_numpy(truth.astype(np.int64))
        f1 = []
        for index in shown:
            column = found[:, index], wanted[:, index]
            per_class[names[index]] = binary_average_precision(*column, validate_args=False).item()
            f1.append(binary_f1_score(*column, THRESHOLD, validate_args=False).item())
        result["mAP"] = float(np.mean([per_class[names[index]] for index in shown]))
        result["F1_micro"] = binary_f1_score(found, wanted, THRESHOLD, validate_args=False).item()
        result["F1_macro"] = float(np.mean(f1))
    absent = [name for index, name in enumerate(names) if index not in shown]
    return {**result, "images": len(truth), "absent": absent}


def _check(truth: NDArray[Any], scores: NDArray[Any], names: Sequence[str]) -> None:
    if truth.dtype != np.bool_ or truth.ndim != 2:
        raise InputError(f"truth is {truth.dtype} {truth.shape}; bool (images, classes) is needed")
    if scores.shape != truth.shape or scores.dtype not in (np.float32, np.float64):
        raise InputError(
            f"scores are {scores.dtype} {scores.shape}; float32 or float64 {truth.shape} is needed"
        )
    if len(names) != truth.shape[1] or len(set(names)) != len(names):
        raise InputError(
            f"{len(names)} names; {truth.shape[1]} different ones are needed, one for each class"
        )
    wrong = np.argwhere(~((scores >= 0) & (scores <= 1)))  # NaN is neither
    if len(wrong):
        image, index = wrong[0].tolist()
        raise InputError(
            f"scores[{image}, {index}] (class {names[index]!r}) is {scores[image, index]}, one of "
            f"{len(wrong)} that are not probabilities; allowed: numbers from 0 to 1 (pass logits through a "
            "sigmoid)"
        )
