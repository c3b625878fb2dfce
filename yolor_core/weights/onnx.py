"""Export to ONNX, checked against torch before the file is left behind."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from yolor_core.errors import InputError, WeightsError
from yolor_core.models import Detector, decode
from yolor_core.weights.layout import check_detection_only

INPUT, OUTPUT = "images", "predictions"
TOLERANCE = 1e-3  # of max(1, |value|): pixels and scores in float32, summed in another order
CHECKED_BATCHES = (1, 3)


class Decoding(nn.Module):
    """A detector followed by its decoding, which is what the exported graph computes."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, N, 5 + classes): x, y, w, h in pixels, objectness, class scores."""
        return decode(self.model(images), self.model.strides, self.model.anchors)


def export_onnx(model: Detector, path: Path, size: int | tuple[int, int]) -> float:
    """Write an ONNX file for images of `size` pixels (a square, or height and width) and any batch size.

    Its output is decoded, (B, N, 5 + classes) as `models.decode` gives it, because raw logits would leave
    anchors and strides to every reader; suppression of overlapping boxes stays outside, where its thresholds
    can be chosen. The file is checked by onnxruntime on random images in two batch sizes.

    Returns the largest difference from torch, relative to max(1, |value|).
    Raises InputError for a size the model cannot take, WeightsError when the check fails and for a model
    with other tasks than detection.
    """
    check_detection_only(model, "our ONNX graph")
    height, width = (size, size) if isinstance(size, int) else size
    stride = model.strides[-1]
    if height % stride or width % stride or height <= 0 or width <= 0:
        near = " x ".join(str(max(-(-side // stride), 1) * stride) for side in (height, width))
        raise InputError(
            f"size {height} x {width}: both sides have to be multiples of {stride}; next: {near}"
        )
    network = Decoding(model.cpu().float()).eval()
    example = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        with _quiet():
            torch.onnx.export(
                network,
                (example,),
                draft,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        difference = compare(draft, network, (height, width))
        if not difference <= TOLERANCE:
            raise WeightsError(
                f"{path} was not written: onnxruntime differs from torch by {difference:.1e} "
                f"(allowed: {TOLERANCE})"
            )
        draft.replace(path)
    return difference


@torch.no_grad()
def compare(file: Path, network: nn.Module, size: tuple[int, int]) -> float:
    """Largest difference between onnxruntime and torch, relative to max(1, |value|), on random images."""
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for batch in CHECKED_BATCHES:
        images = torch.rand(batch, 3, *size, generator=generator)
        expected = network(images).numpy()
        (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
        if found.shape != expected.shape:
            return float("inf")
        worst = max(worst, float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max()))
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress on every channel; none of it is about the user's model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
