"""Every figure of the catalogue, drawn from the published runs: all that is written can be read."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.errors import NothingToShow
from analysis.figures.catalogue import Drawing, drawings
from analysis.figures.style import POINTS, styled, svg
from analysis.study import Study, open_study

PUBLISHED = Path(__file__).parents[3] / "results" / "published" / "mini"
WITHOUT = {"projection", "alignment"}  # features are not published
SLOW = {"changed-images"}  # its parts are tested in test_pictures


@pytest.fixture(scope="module")
def study() -> Study:
    """The runs of all tables."""
    return open_study(PUBLISHED)


@pytest.fixture(scope="module")
def drawn(study: Study) -> dict[str, tuple[Drawing, Figure]]:
    """Every figure as it is written; of those for each table that of Table 4, which has most rows."""
    found = {}
    for each in drawings(study):
        if each.name not in WITHOUT | SLOW and ("-table-" not in each.name or each.name.endswith("-4")):
            made = each.draw(each.data(study))
            svg(made, each.title, each.caption, each.name)
            found[each.name] = each, made
    return found


def words(made: Figure) -> list[str]:
    return [text.get_text() for text in made.findobj(Text) if text.get_visible()]


def test_everything_in_a_figure_can_be_read(drawn: dict[str, tuple[Drawing, Figure]], study: Study) -> None:
    ids = {each.slug for each in study.experiments} | set(study.runs["run"])
    assert len(drawn) == 22
    for name, (_, made) in drawn.items():
        said = words(made)
        assert not [text for text in said if "$" in text or "mathdefault" in text], name
        assert not ids & {word.strip("(),:") for text in said for word in text.split()}, f"{name} has ids"
        with styled():
            made.set_dpi(POINTS)
            left, bottom, right, top = made.get_tightbbox().extents
        width, height = made.get_size_inches()
        assert min(left, bottom, width - right, height - top) >= 0, f"{name} is cut"
        panels = np.array([panel.get_window_extent().extents for panel in made.axes])
        for legend in made.legends:
            plot = panels[:, 3].max() - panels[:, 1].min()
            assert legend.get_window_extent().height < plot, f"{name} is mostly legend"
        for panel in made.axes:
            if panel.get_xlabel() == "epoch":
                assert all(tick == round(tick) for tick in panel.get_xticks()), f"{name} has parts of epochs"
    assert plt.get_fignums() == [], "nothing keeps a figure"


def test_experiments_are_named_by_their_rows_and_tables(drawn: dict[str, tuple[Drawing, Figure]]) -> None:
    assert {"1: baseline", "1: + iFA", "7: implicit 2"} <= set(words(drawn["ap-by-run"][1]))
    assert {"baseline", "+ iFA", "× iPR"} <= set(words(drawn["ap-table-4"][1]))
    assert "6: + icFA, seed 0" in words(drawn["settling"][1])


def test_figures_without_data_say_what_is_missing(study: Study) -> None:
    for each in drawings(study):
        if each.name in WITHOUT:
            with pytest.raises(NothingToShow, match="ablate features"):
                each.data(study)
