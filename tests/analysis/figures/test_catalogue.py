"""Every figure of the catalogue, drawn from the published runs: all that is written can be read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.errors import NothingToShow
from analysis.figures.catalogue import Drawing, drawings
from analysis.figures.style import POINTS, WIDTHS, styled, svg
from analysis.runs import BACKGROUND, KEYS
from analysis.study import Study, open_study

PUBLISHED = Path(__file__).parents[3] / "results" / "published" / "mini"
TABLES = ("1", "2", "3", "4", "5", "6", "7", "8", "controls")
SERIES = 8  # in a panel
POINT = 6  # the smallest letters in a paper's column
PIXELS, PHONE = 9, 358  # the smallest letters on a phone 390 pixels wide, less the page's margins
COMPARED = ("ap-differences-table", "effects-table", "distance-left", "components", "figure-9", "figure-10")


@pytest.fixture(scope="module")
def study() -> Study:
    """The runs of all tables, with features, which are not published, made up for three of them."""
    found = open_study(PUBLISHED, tables=TABLES)
    found.__dict__["features"] = features(found)
    return found


def features(study: Study) -> pd.DataFrame:
    """Of 60 anchors on each level of the runs of + iFA."""
    generator = np.random.default_rng(0)
    rows = []
    for run in study.runs[study.runs["experiment"] == "csp-fast.add-fa"].itertuples():
        own = study.implicit[study.implicit["run"] == run.run]
        for level, vector in own.groupby("level"):
            channels = len(vector)
            for place in range(60):
                feature = generator.normal(size=channels).astype(np.float32)
                before = generator.normal(size=10).astype(np.float32)
                known = {"image": place // 4, "row": place, "column": 0, "anchor": place % 3}
                known["class"] = BACKGROUND if place % 2 else place % 5
                arrays = {"feature": feature, "aligned": feature + 1, "before": before, "after": before + 1}
                rows.append({key: getattr(run, key) for key in KEYS} | {"level": level, **known, **arrays})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def drawn(study: Study) -> dict[str, tuple[Drawing, Figure, str]]:
    """Every figure as it is written; of those for each table the longest and the one with phases."""
    found = {}
    for each in drawings(study):
        if "-table-" in each.name and not each.name.endswith(("-4", "-8")):
            continue
        made = each.draw(each.data(study))
        found[each.name] = each, made, svg(made, each.title, each.caption, each.name)
    return found


def words(made: Figure) -> list[str]:
    return [text.get_text() for text in shown(made)]


def shown(made: Figure) -> list[Text]:
    """Every text that is to be seen."""
    hidden = {text for axes in made.axes for text in unseen(axes)}
    texts = made.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in hidden]


def unseen(axes: Axes) -> Iterator[Text]:
    """Labels of ticks outside their axes, and of axes that are switched off, which are not drawn."""
    for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
        if not axes.axison:
            yield axis.label
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not (axes.axison and low - 1e-9 <= tick.get_loc() <= high + 1e-9):
                yield from (tick.label1, tick.label2)


def faults(name: str, made: Figure, written: str) -> Iterator[str]:
    """What a figure does not keep of the rules of this file."""
    with styled():
        made.set_dpi(POINTS)
        made.draw_without_rendering()
        texts = shown(made)
        extents = {text: text.get_window_extent() for text in texts}
    for source in (*(text.get_text() for text in texts), written):
        if "$" in source or "mathdefault" in source:
            yield f"raw TeX: {source[:60]}"
    width, height = made.get_size_inches() * POINTS
    for text, box in extents.items():
        if min(box.x0, box.y0, width - box.x1, height - box.y1) < -0.5:
            yield f"cut: {text.get_text()!r}"
        size = text.get_fontsize()
        if size * min(WIDTHS["column"] * POINTS / width, 1) < POINT or size * PHONE / width < PIXELS:
            yield f"too small: {text.get_text()!r}"
    for (one, box), (other, another) in itertools.combinations(extents.items(), 2):
        across = min(box.x1, another.x1) - max(box.x0, another.x0)
        down = min(box.y1, another.y1) - max(box.y0, another.y0)
        if across > 1 and down > 0.25 * min(one.get_fontsize(), other.get_fontsize()):
            yield f"over each other: {one.get_text()!r} and {other.get_text()!r}"
    panels = [each for each in made.axes if each.axison or each.images]
    plot = sum(each.get_window_extent().height for each in column(panels))
    for legend in made.legends:
        if legend.get_window_extent().height > plot:
            yield "legend taller than the plot"
        colours = {str(handle.get_label()): look(handle) for handle in legend.legend_handles if handle}
        if len(set(colours.values())) < len(colours):
            yield f"two series look the same: {sorted(colours)}"
    for panel in panels:
        if (number := len(set(panel.get_legend_handles_labels()[1]))) > SERIES:
            yield f"{number} series in a panel"
        if panel.get_xlabel() == "epoch" and not is_heat_map(panel):
            low, high = sorted(panel.get_xlim())
            if any(tick != round(tick) for tick in panel.get_xticks() if low <= tick <= high):
                yield "parts of epochs"
    if name.startswith(COMPARED) and len({each.get_ylim() for each in panels}) > 1:
        yield "panels on several scales"


def column(panels: list[Axes]) -> list[Axes]:
    """The panels of the first column."""
    left = min(each.get_window_extent().x0 for each in panels)
    return [each for each in panels if each.get_window_extent().x0 < left + 1]


def is_heat_map(panel: Axes) -> bool:
    return any(type(each).__name__ == "QuadMesh" for each in panel.collections)


def look(handle: Any) -> tuple[object, ...]:
    """Colour, dashes and mark of a line or of a patch in a legend."""
    if hasattr(handle, "get_marker"):
        return (
            str(handle.get_color()),
            str(handle.get_linestyle()),
            str(handle.get_marker()),
            str(handle.get_markerfacecolor()),
        )
    return (str(handle.get_facecolor()), str(handle.get_linestyle()))


def test_everything_in_a_figure_can_be_read(drawn: dict[str, tuple[Drawing, Figure, str]]) -> None:
    assert len(drawn) == 32
    found = {name: list(dict.fromkeys(faults(name, made, text))) for name, (_, made, text) in drawn.items()}
    assert {name: said[:4] for name, said in found.items() if said} == {}
    assert plt.get_fignums() == [], "nothing keeps a figure"


def test_rows_have_labels_and_no_ids(drawn: dict[str, tuple[Drawing, Figure, str]], study: Study) -> None:
    ids = {each.slug for each in study.experiments} | set(study.runs["run"])
    for name, (_, made, _) in drawn.items():
        said = {word.strip("(),:") for text in words(made) for word in text.split()}
        assert not ids & said, f"{name} has ids"
    assert {"1: baseline", "1: + iFA", "7: implicit 2"} <= set(words(drawn["ap-by-run"][1]))
    assert any(text.startswith("× iPR\n+0.4 [") for text in words(drawn["ap-differences-table-4"][1]))
    assert any("1: + iFA, seed 0" in text for text in words(drawn["evolution-by-seed"][1]))


def test_a_figure_of_certain_experiments_says_which_are_missing() -> None:
    figures = {each.name: each for each in drawings(open_study(PUBLISHED, tables=["8"]))}
    for name, missing in (
        ("figure-9", "csp-fast.add-pr"),
        ("figure-10", "csp-fast.cat-fa"),
        ("figure-11", "csp-fast"),
    ):
        with pytest.raises(NothingToShow, match=rf"of .*{missing}.* there is nothing yet: launch Table"):
            figures[name].data(open_study(PUBLISHED, tables=["8"]))
    alone = open_study(PUBLISHED, tables=["1"])
    (losses,) = [each for each in drawings(alone) if each.name == "figure-11"]
    with pytest.raises(
        NothingToShow, match=r"of csp-fast\.add-fa\.mul-pr there is nothing yet: launch Table 7"
    ):
        losses.data(alone)
