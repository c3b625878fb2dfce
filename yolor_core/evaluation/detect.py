"""Detection on single pictures of any size, and drawing what was found."""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from yolor_core.config import EvaluationConfig
from yolor_core.data.decode import read, reason
from yolor_core.data.images import letterbox, resize
from yolor_core.errors import ConfigError, DataError
from yolor_core.evaluation.postprocess import suppress
from yolor_core.evaluation.predict import input_stride, of_task
from yolor_core.models import Detector, decode

Pixels = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Found(NamedTuple):
    """One detection in a picture."""

    label: int  # class index
    score: float
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the picture


def read_picture(path: Path) -> Pixels:
    """Pixels of an image file as uint8 RGB (height, width, 3), upright (see `yolor_core.data.decode.read`).

    Raises DataError for a file that is missing or cannot be decoded completely.
    """
    try:
        return read(path.read_bytes())[0]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ConfigError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{path}: cannot be read as an image ({reason(error)})") from None


@torch.no_grad()
def detect_picture(
    model: Detector, pixels: Pixels, config: EvaluationConfig, device: torch.device
) -> list[Found]:
    """What a model in evaluation mode finds in one picture, uint8 RGB (height, width, 3), best first.

    The long side becomes `config.size`; both sides are padded with grey to multiples of the evaluation's
    stride. Raises ConfigError for a stride that does not fit the model, and for a model without the detection
    task.
    """
    stride = input_stride(model, config)
    resized = resize(pixels, config.size, "test")
    height, width = (math.ceil(side / stride) * stride for side in resized.shape[:2])
    canvas, left, top = letterbox(resized, width, height)
    images = torch.from_numpy(canvas.transpose(2, 0, 1).copy())[None].to(device).float() / 255
    decoded = decode(of_task(model(images), "detection"), model.strides, model.anchors)
    (best,) = suppress(decoded, config)
    scale = np.array(pixels.shape[1::-1]) / resized.shape[1::-1]
    boxes = (best.boxes.double().cpu().numpy() - np.array([left, top] * 2)) * np.tile(scale, 2)
    boxes = boxes.clip(0, np.tile(pixels.shape[1::-1], 2))
    rows = zip(best.labels.tolist(), best.scores.tolist(), boxes.tolist(), strict=True)
    return [Found(label, score, (box[0], box[1], box[2], box[3])) for label, score, box in rows]


def draw(pixels: Pixels, detections: Sequence[Found], names: Sequence[str]) -> Image.Image:
    """A copy of a picture with boxes, names and scores; the best detection is drawn last, on top."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    line = max(round(max(image.size) / 400), 2)
    size = max(round(max(image.size) / 55), 11)
    for found in reversed(detections):
        colour = class_colour(found.label)
        x1, y1, x2, y2 = found.box
        pen.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=colour, width=line)
        name, font = lettering(names[found.label], found.label, size)
        text = f"{name} {found.score:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        wide, high = right - left + 2 * line, bottom - top + 2 * line
        x = min(max(x1, 0), max(image.width - wide, 0))
        y = y1 - high if y1 >= high else y1  # above the box, inside it where there is no room
        pen.rectangle((x, y, x + wide, y + high), fill=colour)
        light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
        pen.text((x + line - left, y + line - top), text, fill="black" if light else "white", font=font)
    return image


@functools.cache
def lettering(name: str, label: int, size: int) -> tuple[str, Font]:
    """A class name and a font of so many pixels that has its letters; the class's number where none has."""
    for font in fonts(size):
        missing = glyph(font, "\U0010ffff")
        if all(glyph(font, letter) != missing for letter in name if not letter.isspace()):
            return name, font
    return f"class {label}", fonts(size)[0]


@functools.cache
def fonts(size: int) -> tuple[Font, ...]:
    """Pillow's own, of plain Latin letters, and DejaVu Sans, of the scripts of Europe and the Near East."""
    import matplotlib

    dejavu = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.load_default(size), ImageFont.truetype(dejavu, size)


def glyph(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    """What a font draws for a letter: size and pixels."""
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour for a class; neighbouring classes differ (hues step by the golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.381966 % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
