"""Every format holds every cell, and can be read by what reads that format."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from ablations.costs import model_cost
from ablations.registry import paper, tables
from analysis.runs import load_runs
from analysis.tables.fill import FilledTable, fill_table, tidy
from analysis.tables.formats import FORMATS, _latex_cell, lines, number, render
from yolor_core.errors import UnknownNameError

Fabricate = Callable[..., str]


@pytest.fixture(scope="module")
def costs() -> dict[str, object]:
    return {e.slug: model_cost(e) for e in paper().experiments if e.slug in
            {row.experiment.slug for row in tables()["7"].rows}}  # fmt: skip


@pytest.fixture
def filled(tmp_path: Path, fabricate: Fabricate, costs: dict[str, object]) -> list[FilledTable]:
    """All tables; the baseline and + iFA have two seeds, P6-light one."""
    for seed in (0, 1):
        fabricate("csp-fast", seed, 0.40 + 0.01 * seed)
        fabricate("csp-fast.add-fa", seed, 0.41 + 0.02 * seed)
    fabricate("p6-light", 0, 0.5)
    runs = load_runs(tmp_path)
    return [fill_table(table, "mini", runs, costs=costs) for table in tables().values()]  # type: ignore[arg-type]


def test_json_has_one_record_per_cell_with_null_for_missing(filled: list[FilledTable]) -> None:
    records = json.loads(render(filled, "json"))
    assert len(records) == 25 * 6 + 4 * 3 + 5 * 6  # Table 3 has six scores of other tasks
    cells = {(r["table"], r["row"], r["metric"]): r for r in records}
    assert len(cells) == len(records)
    one = cells["1", "+ iFA", "AP"]
    assert one["value"] == pytest.approx(42.0)
    assert (one["paper"], one["seeds"], one["profile"], len(one["runs"])) == (47.9, [0, 1], "mini", 2)
    assert cells["2", "+ iPR", "AP"]["value"] is None
    # Table 1 has one variant, Table 4 five and more: Holm's family is the only thing that differs.
    other = cells["4", "+ iFA", "AP"]
    assert other == one | {"table": "4", "p_holm": other["p_holm"]}
    assert one["p_holm"] == one["p"] < other["p_holm"]
    for row in ("baseline 1", "implicit 1", "baseline 2", "implicit 2"):
        for metric in ("parameters", "MFLOPs"):
            assert cells["7", row, metric]["value"] == cells["7", row, metric]["paper"]


def test_csv_reads_back_with_pandas(filled: list[FilledTable]) -> None:
    text = render(filled, "csv")
    read = pd.read_csv(io.StringIO(text), dtype={"table": str})
    frame = tidy(filled)
    assert list(read.columns) == list(frame.columns)
    assert len(read) == len(frame)
    for column in ("paper", "value", "std", "delta", "delta_std"):
        pd.testing.assert_series_equal(read[column], frame[column].astype(float), check_exact=True)
    assert read["row"].tolist() == frame["row"].tolist()
    assert "52908989," in text
    assert "117517.2952" in text


def test_markdown_parses_as_tables_with_every_row(filled: list[FilledTable]) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render(filled, "markdown"))
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 8
    assert "em_open" not in kinds
    texts = [token.content for token in tokens if token.type == "inline"]
    for each in filled:
        for row in each.table.rows:
            assert row.label.replace("*", r"\*") in texts
    widths = re.findall(r"^\|.*\|$", render(filled[:1], "markdown"), flags=re.MULTILINE)
    assert len({line.count("|") for line in widths}) == 1
    assert not any(child.type == "em_open" for token in tokens for child in token.children or [])


def test_latex_is_balanced_escaped_and_rectangular(filled: list[FilledTable]) -> None:
    text = render(filled, "latex")
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 8
    assert not set("×⊕±Δ†–") & set(text)
    assert text.isascii()
    bare = re.sub(r"\\[&%$#_{}]", "", text)
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not set("%#") & set(bare)
    for block, each in zip(text.split(r"\end{table}"), filled, strict=False):
        rows = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert {line.replace(r"\&", "").count("&") for line in rows} == {1 + len(each.table.metrics)}
    assert r"$\times$ iPR" in text
    assert r"$\oplus$ iFA" in text


def test_text_shows_paper_ours_and_the_differences_in_both(filled: list[FilledTable]) -> None:
    text = render(filled[:2], "text")
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    assert ["baseline", "paper", "47.8", "66.3", "52.1", "30.1", "52.5", "62.0"] in lines
    # Half-widths of two values d apart: t of one degree of freedom is 12.706, times d / 2.
    assert ["ours", *(f"{40.5 + place:.2f} ± 6.35" for place in range(6))] in lines
    assert ["ours", *(f"{42 + place:.2f} ± 12.71" for place in range(6))] in lines
    assert ["Δ, 2 pairs", *["+1.50 ± 6.35"] * 6] in lines
    # t = 1.5 / 0.5 = 3 with one degree of freedom: p = 0.205; one variant, so Holm changes nothing.
    assert ["p", "0.20, Holm 0.20", *["0.20"] * 5] in lines
    assert ["verdict", *["undecided"] * 6] in lines
    assert ["+ iFA", "paper", "47.9 (+0.1)", *("66.6 (+0.3)", "52.3 (+0.2)", "30.6 (+0.5)")] == lines[
        [line[0] for line in lines].index("+ iFA")
    ][:6]
    assert ["ours: not run", *["–"] * 6] in lines
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_single_seed_has_no_deviation(filled: list[FilledTable]) -> None:
    text = render([each for each in filled if each.table.name == "8"], "text")
    assert "50.0" in text
    assert "±" not in text


def test_every_format_ends_in_one_newline(filled: list[FilledTable]) -> None:
    for form in FORMATS:
        assert render(filled, form).endswith("\n")
        assert not render(filled, form).endswith("\n\n")


def test_an_unknown_format_lists_the_known(filled: list[FilledTable]) -> None:
    with pytest.raises(UnknownNameError, match="'markdwon'; allowed: markdown"):
        render(filled, "markdwon")


@pytest.mark.parametrize(
    ("metric", "value", "sign", "text"),
    [
        ("AP", 47.84, "", "47.8"),
        ("AP", -0.04, "+", "+0.0"),
        ("AP", -0.06, "+", "-0.1"),
        ("AP", None, "", "–"),
        ("parameters", 52908, "", "52 908"),
        ("MFLOPs", 1234.5, "", "1 234.5000"),
    ],
)
def test_numbers(metric: str, value: float | None, sign: str, text: str) -> None:
    assert number(metric, value, sign) == text


def test_html_is_well_formed_and_has_every_cell_of_the_text(filled: list[FilledTable]) -> None:
    root = ElementTree.fromstring(f"<body>{render(filled, 'html')}</body>")
    tables = root.findall("table")
    assert len(tables) == len(filled)
    for element, each in zip(tables, filled, strict=True):
        rows = [[cell.text or "" for cell in row] for row in element.iter("tr")]
        assert rows[0] == ["row", "", *each.table.metrics]
        expected = [
            [row.label if number == 0 else "", source, *texts]
            for row in each.table.rows
            for number, (source, texts) in enumerate(lines(each, row.label))
        ]
        assert rows[1:] == expected
        assert element.findtext("caption") == each.caption


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("47.9 (+0.1)", r"\num{47.9} (\num{+0.1})"),
        ("42.0 ± 12.7", r"\num{42.0 +- 12.7}"),
        ("326 264.7304 (+8.5680)†", r"\num{326264.7304} (\num{+8.5680})$\dagger$"),
        ("0.034, Holm <0.001", r"\num{0.034}, Holm $<$\num{0.001}"),
        ("-0.3 to +1.2", r"\num{-0.3} to \num{+1.2}"),
        ("–", "--"),
        ("not reproduced", "not reproduced"),
        ("\\&%$#_{}~^", r"\textbackslash{}\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}"),
    ],
)
def test_numbers_of_cells_are_siunitxs(text: str, latex: str) -> None:
    assert _latex_cell(text) == latex


@pytest.mark.slow
def test_latex_compiles_with_booktabs_and_siunitx(filled: list[FilledTable], tmp_path: Path) -> None:
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex: apt-get install --no-install-recommends texlive-latex-base texlive-science")
    document = [
        r"\documentclass{article}",
        r"\usepackage{booktabs,siunitx}",
        r"\begin{document}",
        render(filled, "latex"),
        r"\clearpage",
        r"\end{document}",
    ]
    (tmp_path / "tables.tex").write_text("\n".join(document))
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
    assert "siunitx Warning" not in done.stdout
