"""One look for all figures: made for a paper's column, readable in print, without colour and on a phone.

Functions that draw are decorated with `@styled()`, so that all they add has the same sizes.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, Literal, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from PIL import Image

from analysis.series import BANDS

Width = Literal["column", "page"]
Look = dict[str, Any]  # colour, line style and marker of a series

WIDTHS: dict[str, float] = {"column": 3.3, "page": 7.0}  # inches
PANEL = 2.1  # inches, height of a row of panels
# Okabe and Ito's colours for all kinds of colour vision, without yellow, which is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
PHOTOGRAPH = "photograph"  # how the gid of an image begins that may lose detail to be small
QUALITY = 75  # of JPEG
POINTS = 72  # of an SVG, in an inch
LINE = 0.16  # inches, height of a line of a legend
LETTERS, HANDLE = 16, 9  # letters of a legend in an inch; what the line before a label takes, in letters
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
    "text.hinting": "none",  # as wide as browsers draw it
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


def grid(panels: int, columns: int, height: float, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page and its axes, `columns` in a row and each row `height` inches high.

    subplots: for `Figure.subplots`.
    """
    rows = -(-panels // columns)
    made, axes = figure("page", height * rows, rows=rows, columns=min(panels, columns), **subplots)
    for spare in axes.flat[panels:]:
        spare.remove()
    return made, list(axes.flat[:panels])


def look(index: int) -> Look:
    """Colour, line style and marker of series `index`; 280 series go by before one looks like another."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def looks(names: Iterable[Any]) -> dict[Any, Look]:
    """How each series is drawn, the same in all panels of a figure."""
    return {name: look(place) for place, name in enumerate(dict.fromkeys(names))}


def band(axes: Axes, x: pd.Series, rows: pd.DataFrame, label: str | None = None, **style: Any) -> None:
    """A line through the means and a band from low to high: of the columns `mean`, `low` and `high`."""
    axes.plot(x, rows["mean"], label=label, **style)
    axes.fill_between(x, rows["low"], rows["high"], color=style["color"], alpha=0.2, lw=0)


def bars(axes: Axes, x: pd.Series, rows: pd.DataFrame, label: str | None = None, **style: Any) -> None:
    """Marks at the means and bars from low to high, of the same columns.

    Not seaborn's: it computes the intervals it draws from raw values, and these are known.
    """
    reach = np.clip([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0, None)
    axes.errorbar(x, rows["mean"], reach, label=label, lw=0.8, **style | {"linestyle": ""})


def scatter(
    axes: Axes,
    data: pd.DataFrame,
    x: str,
    y: str,
    series: str,
    styles: Mapping[Any, Look],
    **more: Any,
) -> None:
    """Marks of several series, each in the colour and shape of `styles`, labelled for `legend`."""
    sns.scatterplot(
        data,
        x=x,
        y=y,
        hue=series,
        style=series,
        palette={name: style["color"] for name, style in styles.items()},
        markers={name: style["marker"] for name, style in styles.items()},
        ax=axes,
        **more,
    )


def whole(axis: Axis, most: int = 5) -> None:
    """Ticks of epochs: whole numbers."""
    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def plain(axis: Axis, parts: Sequence[float] | None = None) -> None:
    """Numbers as they are (0.02, 300) on a logarithmic axis; its own would be TeX, which stays unread.

    parts: of a decade that have a tick; by default matplotlib's choice.
    """
    if parts is not None:
        axis.set_major_locator(LogLocator(subs=parts))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def signed(value: float, places: int) -> str:
    """A difference as text, with a sign unless it rounds to 0, and a minus as long as a plus."""
    rounded = round(value, places) + 0.0
    return f"{rounded:{'+' if rounded else ''}.{places}f}".replace("-", "−")


@styled()
def legend(made: Figure, axes: Iterable[Axes], columns: int = 2, title: str | None = None) -> None:
    """One legend of these axes below the figure, which grows for it; each label once.

    columns: at most; fewer where labels are long.
    title: says more, in lines that are broken where the figure ends.
    """
    found: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
        if (own := each.get_legend()) is not None:  # seaborn's
            own.remove()
    if not found:
        return
    width, height = made.get_size_inches()
    letters = int(LETTERS * width)
    columns = min(columns, max(letters // (max(map(len, found)) + HANDLE), 1))
    words = [textwrap.fill(line, letters) for line in (title or "").split("\n") if line]
    lines = -(-len(found) // columns) + sum(text.count("\n") + 1 for text in words)
    made.set_size_inches(width, height + LINE * lines)
    made.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=columns,
        title="\n".join(words) or None,
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
    file = io.StringIO()
    with warnings.catch_warnings():  # a browser has fonts for letters that matplotlib's does not know
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        dpi = made.dpi
        made.set_dpi(POINTS)  # so that the layout has the ticks of the SVG
        for _ in range(3):
            made.draw_without_rendering()
            if _inside(made):  # else its new ticks are wider than the layout has left room for
                break
        made.set_layout_engine("none")
        made.set_dpi(dpi)  # of images in it
        # Once; savefig would draw it all another time to settle the layout.
        FigureCanvasSVG(made).print_svg(file, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        made.set_dpi(dpi)
    text = SHEET.sub("", MARKUP.sub("", _printable(file.getvalue()))).strip()
    text = EMBEDDED.sub(lambda found: _jpeg(found[1]) + found[2], text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = PLACES.sub(lambda found: f'{found[1]}="{LONG.sub(_shorter, found[2])}"', text)
    words = _printable(title), _printable(description)
    return ROOT.sub(lambda found: _root(found[1], *words, prefix), text, count=1) + "\n"


def _inside(made: Figure) -> bool:
    box, (width, height) = made.get_tightbbox(), made.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


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
