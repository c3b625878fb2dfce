"""The style of the figures, and their SVG text."""

from __future__ import annotations

import base64
import re
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.figures.style import (
    PHOTOGRAPH,
    Width,
    curves,
    drawn,
    facets,
    figure,
    legend,
    looks,
    signed,
    styled,
    svg,
)

SVG = "{http://www.w3.org/2000/svg}"


@drawn
def example(series: int = 2, width: Width = "page") -> Figure:
    made, axes = figure(width, columns=2)
    for index in range(series):
        axes[0, 0].plot([0, 1, 2], np.arange(3) ** index, label=f"series {index}")
    axes[0, 1].imshow(np.arange(16).reshape(4, 4))
    legend(made, axes.flat)
    return made


def text(made: Figure, prefix: str = "one") -> str:
    return svg(made, "A title", "What is to be seen", prefix)


@pytest.fixture(scope="module")
def written() -> str:
    return text(example())


def test_axes_are_always_a_grid_and_widths_are_those_of_a_paper() -> None:
    for width, inches in (("column", 3.3), ("page", 7.0)):
        made, axes = figure(width, 2.5, rows=2, columns=1)  # type: ignore[arg-type]
        assert axes.shape == (2, 1)
        assert made.get_size_inches().tolist() == [inches, 2.5]


def test_style_ends_with_its_context_and_ignores_what_was_set_before() -> None:
    with mpl.rc_context({"font.size": 20, "lines.linestyle": ":"}):
        with styled():
            assert mpl.rcParams["font.size"] == 8
            assert mpl.rcParams["lines.linestyle"] == "-"
        assert mpl.rcParams["font.size"] == 20


def test_a_figure_saves_itself_in_the_style_for_one_or_two_columns(tmp_path: Path) -> None:
    for width, inches in (("column", 3.3), ("page", 7.0)):
        with mpl.rc_context({"pdf.fonttype": 3, "text.parse_math": True}):
            example(width=width).savefig(tmp_path / f"{width}.pdf")  # type: ignore[arg-type]
        written = (tmp_path / f"{width}.pdf").read_bytes()
        assert b"/FontFile2" in written and b"/Type3" not in written, "fonts are TrueType (type 42)"
        (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", written)
        assert float(box) == pytest.approx(72 * inches, abs=0.1)


def test_seaborn_draws_known_means_and_intervals_and_keeps_no_figure() -> None:
    rows = [(level, x, x + 1.0, x - 1.0, x + 3.0) for level in ("P3", "P4") for x in range(3)]
    data = pd.DataFrame(rows, columns=["level", "x", "mean", "low", "high"]).assign(panel="one")
    made, axes = facets(data, "panel", "column", 2, 1.5)
    curves(axes["one"], data, "x", "level", looks(data["level"]))
    lines = [line for line in axes["one"].get_lines() if len(line.get_xdata())]
    assert [line.get_ydata().tolist() for line in lines] == [[1, 2, 3]] * 2
    edges = axes["one"].collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (-1, 5)
    handles, labels = axes["one"].get_legend_handles_labels()
    assert labels == ["P3", "P4"]
    told: list[Any] = handles
    assert len({(each.get_linestyle(), each.get_marker()) for each in told}) == 2, "without colour too"
    assert made.get_size_inches().tolist() == pytest.approx([3.3, 1.5]) and plt.get_fignums() == []


def test_same_figure_gives_same_text_however_often_it_is_written(written: str) -> None:
    made = example()
    assert text(made) == text(made) == written


def test_letters_that_the_font_lacks_are_left_to_the_reader_without_a_warning() -> None:
    made, axes = figure()
    axes[0, 0].set_title("细胞 เซลล์")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "细胞 เซลล์" in svg(made, "A title", "What is to be seen", "x")


def test_text_is_well_formed_has_no_size_no_date_and_a_description(written: str) -> None:
    root = ElementTree.fromstring(written)
    assert root.tag == f"{SVG}svg"
    assert "width" not in root.attrib and "height" not in root.attrib
    assert root.attrib["viewBox"].startswith("0 0 504 ")
    assert root.attrib["role"] == "img"
    names = [root.find(f"{SVG}{tag}") for tag in ("title", "desc")]
    assert [name.text for name in names if name is not None] == ["A title", "What is to be seen"]
    assert root.attrib["aria-labelledby"].split() == [name.attrib["id"] for name in names if name is not None]
    assert "metadata" not in written and "<style" not in written
    assert "series 1" in {each.text for each in root.iter(f"{SVG}text")}, "words stay words"


def test_title_and_description_are_escaped() -> None:
    root = ElementTree.fromstring(svg(figure()[0], "a < b & c", "<script>", "x"))
    assert [root.findtext(f"{SVG}{tag}") for tag in ("title", "desc")] == ["a < b & c", "<script>"]


def test_ids_of_two_figures_never_clash_and_every_reference_has_its_id(written: str) -> None:
    texts = [written, text(example(), "two")]
    found = [set(re.findall(r'\bid="([^"]+)"', each)) for each in texts]
    assert found[0] and not found[0] & found[1]
    for each, ids in zip(texts, found, strict=True):
        referred = re.findall(r'(?:url\(#|href="#)([^")]+)', each)
        assert referred and set(referred) <= ids


@pytest.mark.parametrize("prefix", ["", "1st", "with space", 'quote"'])
def test_prefix_that_starts_no_id_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        text(figure()[0], prefix)


def test_only_photographs_lose_detail() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)

    def embedded(gid: str) -> tuple[str, bytes]:
        made, axes = figure()
        axes[0, 0].imshow(noise, interpolation="none", gid=gid)
        found = re.search(r"data:image/(\w+);base64,\s*([^\"]*)", text(made))
        assert found
        return found[1], base64.b64decode(found[2])

    assert embedded("heat")[0] == "png"
    kind, content = embedded(f"{PHOTOGRAPH}0")
    assert kind == "jpeg" and content.startswith(b"\xff\xd8")
    assert len(content) < len(embedded("heat")[1])


def test_legend_names_each_label_once_under_its_title_and_the_figure_grows_for_it() -> None:
    made, axes = figure("page", 2.0, columns=2)
    for each in axes.flat:
        each.plot([0, 1], label="same")
    axes[0, 0].plot([0, 1], label="another, " + 100 * "x")
    legend(made, axes.flat, 3, title="what they are")
    (shown,) = made.legends
    assert [label.get_text()[:7] for label in shown.get_texts()] == ["same", "another"]
    assert shown.get_title().get_text() == "what they are"
    made.draw_without_rendering()
    rows = {round(label.get_window_extent().y0) for label in shown.get_texts()}
    assert len(rows) == 2, "long labels stand below each other"
    assert made.get_size_inches()[1] == pytest.approx(2 + 3 * 0.16)


@pytest.mark.parametrize(("value", "shown"), [(1.25, "+1.2"), (-3.0, "−3.0"), (-0.01, "0.0"), (0.0, "0.0")])
def test_differences_have_a_sign_unless_they_round_to_nothing(value: float, shown: str) -> None:
    assert signed(value, 1) == shown
