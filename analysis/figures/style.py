"""One look for all figures: made for a paper's column, readable in print, without colour and on a phone.

Functions that draw are decorated with `@drawn`. They take `width`: "column", 3.3 inches, or "page", the 7
inches of both columns. Their figure is saved in the same style, fonts as text that can be searched:
`curves.losses(data, width="page").savefig("figure.pdf")`.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
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
Look = dict[str, Any]  # arguments for seaborn
Parameters = ParamSpec("Parameters")

WIDTHS: dict[str, float] = {"column": 3.3, "page": 7.0}  # inches
PANEL = 2.1  # inches, height of a row of panels
# Okabe and Ito's colours for all kinds of colour vision, without yellow, which is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#949494")
SERIES = len(PALETTE)  # in a panel, at most
MARKS = 8  # on a line
SMALL = 6  # points, the smallest text
SPAN = ["mean", "low", "high"]
KNOWN: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100)}  # of `spans`, for seaborn
RING: dict[str, Any] = {"facecolor": "none", "linewidth": 0.9, "jitter": False}  # for a stripplot
DIVERGING = "PuOr"  # of heat maps around 0
PHOTOGRAPH = "photograph"  # how the gid of an image begins that may lose detail to be small
QUALITY = 75  # of JPEG
POINTS = 72  # of an SVG, in an inch
LINE, REST = 0.16, 0.7  # inches: a line of a legend or row of a figure, and what is around rows
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
    "pdf.fonttype": 42,  # TrueType, as conferences ask for
    "ps.fonttype": 42,
}

# Beside RC, matplotlib's own values, whatever a person or seaborn has set.
DEFAULTS: Any = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}

MARKUP = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)  # would style the whole HTML page
ROOT = re.compile(r"<svg\b([^>]*)>")
WORDS = re.compile(r"<title .*?</desc>", re.DOTALL)
SIZE = re.compile(r'\s(?:width|height)="[^"]*"')
PLACES = re.compile(r'(?<=\s)(d|x|y)="([^"]*)"')
EMBEDDED = re.compile(rf'image/png;base64,\s*([^"]*)(" id="{PHOTOGRAPH}[^>]*) style="image-rendering:[^"]*"')
LONG = re.compile(r"-?\d+\.\d{3,}")


@contextmanager
def styled() -> Iterator[None]:
    """The project's style, as a context."""
    with mpl.rc_context():
        mpl.rcParams.update(DEFAULTS | RC)
        yield


def drawn(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """A function that draws in the project's style, and whose figure is also saved in it by `savefig`."""

    @functools.wraps(draw)
    def made_by(*args: Parameters.args, **options: Parameters.kwargs) -> Figure:
        with styled():
            made = draw(*args, **options)
            made.set_layout_engine("constrained")
        made.savefig = styled()(made.savefig)  # type: ignore[method-assign]
        return made

    return made_by


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


def facets(
    data: pd.DataFrame, panel: str, width: Width, columns: int, height: float, **shared: Any
) -> tuple[Figure, dict[Any, Axes]]:
    """seaborn's grid of panels, one for each value of a column, named after it; and its axes by value.

    Args:
        data: the frame behind the figure.
        panel: the column.
        width: of the figure.
        columns: panels in a row, at most.
        height: of a panel, inches.
        shared: for `seaborn.FacetGrid`, as sharex and sharey.
    """
    across = min(columns, data[panel].nunique())
    size = {"height": height, "aspect": WIDTHS[width] / across / height}
    with plt.ioff():
        grid = sns.FacetGrid(data, col=panel, col_wrap=across, **size, **shared)
    plt.close(grid.figure)  # pyplot would keep it
    grid.set_titles("{col_name}")
    return grid.figure, grid.axes_dict


def looks(names: Iterable[Any]) -> Look:
    """How the series of a figure are told apart, as arguments for seaborn: the same in all panels.

    Colours come back after `SERIES`, dashes and marks are seaborn's.
    """
    found = list(dict.fromkeys(names))
    palette = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(found)}
    return {"hue_order": found, "style_order": found, "palette": palette}


def spans(data: pd.DataFrame) -> pd.DataFrame:
    """Every row three times, with its mean, low and high as `value`, for seaborn's functions and `KNOWN`.

    They compute what they draw from values. The median of these three is the mean, their range the interval.
    """
    kept = [name for name in data if name not in SPAN]
    return data.melt(kept, SPAN, var_name="end", value_name="value")


def curves(axes: Axes, data: pd.DataFrame, x: str, series: str, styles: Look, **more: Any) -> None:
    """seaborn's lines through the means with bands from low to high; at most `MARKS` marks on each line."""
    every = max(data[x].nunique() // MARKS, 1)
    sns.lineplot(
        spans(data),
        x=x,
        y="value",
        hue=series,
        style=series,
        **{"markers": True, "markevery": every, "markeredgewidth": 0.3, **KNOWN, **styles, **more},
        ax=axes,
    )
    axes.set(xlabel="", ylabel="")


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
    if not found and not title:
        return
    width, height = made.get_size_inches()
    letters = int(LETTERS * width)
    columns = min(columns, max(letters // (max(map(len, found), default=0) + HANDLE), 1))
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
    head = words(title, description, prefix)
    return ROOT.sub(lambda found: _root(found[1], prefix) + head, text, count=1) + "\n"


def words(title: str, description: str, prefix: str) -> str:
    """The elements of `svg` that are read out."""
    return (
        f'<title id="{prefix}-title">{escape(_printable(title))}</title>\n'
        f'<desc id="{prefix}-desc">{escape(_printable(description))}</desc>'
    )


def words_in(text: str) -> str:
    """Those of an SVG file; empty where it has none."""
    found = WORDS.search(text)
    return found[0] if found else ""


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


def _root(attributes: str, prefix: str) -> str:
    named = f'role="img" aria-labelledby="{prefix}-title {prefix}-desc"'
    joins = 'style="stroke-linejoin: round; stroke-linecap: butt"'
    return f"<svg{SIZE.sub('', attributes)} {named} {joins}>\n"


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
