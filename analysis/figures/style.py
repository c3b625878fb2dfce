"""One look for all figures: made for a paper's column, readable in print, without colour and on a phone.

Functions that draw are decorated with `@styled()`, so that all they add has the same sizes.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Literal, TypeVar

import matplotlib as mpl
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from analysis.series import BANDS

Width = Literal["column", "page"]

WIDTHS: dict[str, float] = {"column": 3.3, "page": 7.0}  # inches
PANEL = 2.1  # inches, height of a row of panels
# Okabe and Ito's colours for all kinds of colour vision, without yellow, which is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
PHOTOGRAPH = "photograph"  # how the gid of an image begins that may lose detail to be small
QUALITY = 75  # of JPEG
GREY = "#5F5F5F"  # for what is no series; 6 : 1 on white

RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.titlesize": 9,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "axes.formatter.useoffset": False,
    "image.cmap": "viridis",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # names of rows may hold $
    "svg.fonttype": "none",
    "svg.hashsalt": "yolor",
}

# Beside RC, matplotlib's own values, whatever a person or seaborn has set.
DEFAULTS: Any = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}

MARKUP = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)  # would style the whole HTML page
ROOT = re.compile(r"<svg\b([^>]*)>")
SIZE = re.compile(r'\s(?:width|height)="[^"]*"')
PLACES = re.compile(r'(?<=\s)(d|x|y)="([^"]*)"')
EMBEDDED = re.compile(rf'image/png;base64,\s*([^"]*)(" id="{PHOTOGRAPH}[^>]*) style="image-rendering:[^"]*"')
LONG = re.compile(r"-?\d+\.\d{3,}")


@contextmanager
def styled() -> Iterator[None]:
    """The project's style, as a context or as a decorator of a function that draws."""
    with mpl.rc_context():
        mpl.rcParams.update(DEFAULTS | RC)
        yield


@styled()
def figure(
    width: Width = "column", height: float | None = None, rows: int = 1, columns: int = 1, **subplots: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure of its own, outside pyplot, and its axes, always a (rows, columns) array.

    Args:
        width: of a paper's column (3.3 inches) or of its page (7 inches).
        height: inches; by default `PANEL` for each row.
        rows, columns: of panels.
        subplots: for `Figure.subplots`, as sharex, sharey or width_ratios.
    """
    made = Figure(figsize=(WIDTHS[width], height or PANEL * rows), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **subplots)


def look(index: int) -> dict[str, Any]:
    """Colour, line style and marker of series `index`; 280 series go by before one looks like another."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def signed(value: float, places: int) -> str:
    """A difference as text, with a sign unless it rounds to 0, and a minus as long as a plus."""
    rounded = round(value, places) + 0.0
    return f"{rounded:{'+' if rounded else ''}.{places}f}".replace("-", "−")


@styled()
def legend(made: Figure, axes: Iterable[Axes], columns: int = 2, title: str | None = None) -> None:
    """One legend of these axes below the figure, each label once, under an explaining `title`."""
    found: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        made.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=columns,
            title=title,
            title_fontsize=7,
            alignment="left",
        )


@styled()
def svg(made: Figure, title: str, description: str, prefix: str) -> str:
    """A figure as SVG text that can stand in an HTML page or, as it is, in a file of its own.

    The same figure always gives the same text: its layout is settled here, once. The text has no size (only
    a view box), so that a page can scale it; name and description are read out by screen readers.

    Args:
        made: the figure.
        title: its name.
        description: what is to be seen in it.
        prefix: of all its ids, different for every figure of a page: letters, digits, `-` and `_`.

    Raises:
        ValueError: a prefix that cannot be the start of an id.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", prefix, re.ASCII):
        raise ValueError(f"prefix is {prefix!r}; a letter, then letters, digits, - and _ are needed")
    for label in made.findobj(Text):
        label.set_text(_printable(label.get_text()))
    file = io.StringIO()
    with warnings.catch_warnings():  # a browser has fonts for letters that matplotlib's does not know
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        made.draw_without_rendering()
        made.set_layout_engine("none")
        made.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = SHEET.sub("", MARKUP.sub("", file.getvalue())).strip()
    text = EMBEDDED.sub(lambda found: _jpeg(found[1]) + found[2], text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = PLACES.sub(lambda found: f'{found[1]}="{LONG.sub(_shorter, found[2])}"', text)
    words = _printable(title), _printable(description)
    return ROOT.sub(lambda found: _root(found[1], *words, prefix), text, count=1) + "\n"


def _printable(text: str) -> str:
    """A text without the signs that XML cannot have, which would spoil the file."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in text)


def _jpeg(png: str) -> str:
    file = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    image.convert("RGB").save(file, "JPEG", quality=QUALITY, optimize=True)
    return f"image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _root(attributes: str, title: str, description: str, prefix: str) -> str:
    named = f'role="img" aria-labelledby="{prefix}-title {prefix}-desc"'
    joins = 'style="stroke-linejoin: round; stroke-linecap: butt"'
    return (
        f"<svg{SIZE.sub('', attributes)} {named} {joins}>\n"
        f'<title id="{prefix}-title">{escape(title)}</title>\n'
        f'<desc id="{prefix}-desc">{escape(description)}</desc>'
    )


def _shorter(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


Panel = TypeVar("Panel")


def spread(data: pd.DataFrame, mark: str = "Line", band: str = "band") -> str:
    """A sentence for a legend: of a frame with the columns `runs` and `band` of `analysis.series.banded`.

    mark, band: what the figure draws for the mean, and for low and high.
    """
    least, most = data["runs"].min(), data["runs"].max()
    if most == 1:
        return "One run each"
    number = f"{most}" if least == most else f"{least} to {most}"
    named = " or ".join(name for name in BANDS if (data["band"] == name).any())
    return f"{mark}: mean of {number} runs; {band}: {named}"


def cut(panels: Iterable[Panel], most: int) -> tuple[list[Panel], str]:
    """The panels that a figure has room for, and what its legend says of the others, "" without any."""
    found = list(panels)
    rest = len(found) - most
    return found[:most], f"\n{rest} more {'is' if rest == 1 else 'are'} in the data only" if rest > 0 else ""
