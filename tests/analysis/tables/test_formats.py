"""Every format holds every cell, ours and quoted ones, and can be read by what reads that format."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from ablations.costs import Cost, model_cost
from ablations.registry import table_named, tables
from ablations.table import Row, Table
from analysis.runs import load_runs
from analysis.study import open_study
from analysis.tables.fill import FilledTable, fill_table, tidy
from analysis.tables.formats import FORMATS, _latex_cell, lines, number, render
from tests.analysis.conftest import write_run
from yolor_core.errors import UnknownNameError

STUDY = Path(__file__).parents[3] / "results" / "published" / "mini"
GOLDEN = Path(__file__).parent / "golden"
ACCEPT = "COLUMNS={} ablate tables 3 7 8 --results results/published/mini"

COSTS = {
    "yolor-p6": Cost(1000, 326_264.7304, 326_264.8324, 326.4),
    "yolor-w6": Cost(2000, 453_893.0, 453_893.0, 454.0),
    "yolor-d6": Cost(3000, 936_801.0, 936_801.0, 936.8),
    "y4-p6": Cost(4000, 700_000.0, 700_000.0, 700.0, fused=True),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> list[FilledTable]:
    """Tables 1-8; the baseline and + iFA have two seeds, P6-light one, the joint models of Table 3 two."""
    results = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        write_run(results, "csp-fast", seed, 0.40 + 0.01 * seed)
        write_run(results, "csp-fast.add-fa", seed, 0.41 + 0.02 * seed)
        for slug in ("csp", "csp.jdc", "csp.jdc.implicit", "csp.jde", "csp.jde.implicit"):
            classes = {"classification": {"mAP": 0.5, "F1_micro": 0.6, "F1_macro": 0.4}}
            people = {"embedding": {"recall@1": 0.7, "mAP": 0.3, "AUC": 0.8}}
            own = classes if "jdc" in slug else people if "jde" in slug else None
            write_run(results, slug, seed, 0.4 + seed / 10, scores=own)
    write_run(results, "p6-light", 0, 0.5)
    runs = load_runs(results)
    counted = {e.slug: model_cost(e) for e in table_named("7").experiments}
    return [fill_table(table, "mini", runs, costs=counted) for table in tables().values()]


@pytest.fixture(scope="module")
def quoted(tmp_path_factory: pytest.TempPathFactory) -> list[FilledTable]:
    """Tables 9 and A2; YOLOR-D6 has run."""
    results = tmp_path_factory.mktemp("quoted")
    write_run(results, "yolor-d6", 0, 0.5)
    runs = load_runs(results)
    return [fill_table(table_named(name), "mini", runs, costs=COSTS) for name in ("9", "A2")]


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> list[FilledTable]:
    """Tables 3 and 3x with one seed."""
    results = tmp_path_factory.mktemp("joint")
    classes = {"mAP": 0.5, "F1_micro": 0.6, "F1_macro": 0.4}
    write_run(results, "csp")
    write_run(results, "csp.classification-alone", scores={"classification": classes})
    cosines = ({"conflict/detection-classification": -0.05},)
    write_run(
        results, "csp.jdc", 0, 0.39, scores={"classification": classes | {"mAP": 0.48}}, cosines=cosines
    )
    return [fill_table(table_named(name), "mini", load_runs(results)) for name in ("3", "3x")]


def columns(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def records(filled: list[FilledTable]) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = json.loads(render(filled, "json"))
    assert len(found) == sum(len(each.cells) for each in filled)
    return {(r["table"], r["row"], r["metric"]): r for r in found}


def test_json_has_one_record_per_cell_with_null_for_missing(filled: list[FilledTable]) -> None:
    cells = records(filled)
    assert len(cells) == 25 * 6 + 4 * 3 + 5 * 6  # Table 3 has six scores of other tasks
    one = cells["1", "+ iFA", "AP"]
    assert one["value"] == pytest.approx(42.0)
    assert (one["paper"], one["seeds"], one["profile"], len(one["runs"])) == (47.9, [0, 1], "mini", 2)
    assert cells["2", "+ iPR", "AP"]["value"] is None
    # Table 1 has one variant, Table 4 five and more: what holds for all at once is all that differs.
    other = cells["4", "+ iFA", "AP"]
    assert other == one | {"table": "4"} | {name: other[name] for name in ("p_holm", "p_small_holm")}
    assert one["p_holm"] == one["p"] < other["p_holm"]
    for row in ("baseline 1", "implicit 1", "baseline 2", "implicit 2"):
        for metric in ("parameters", "MFLOPs"):
            assert cells["7", row, metric]["value"] == cells["7", row, metric]["paper"]


def test_csv_reads_back_with_pandas(filled: list[FilledTable]) -> None:
    text = render(filled, "csv")
    read, frame = pd.read_csv(io.StringIO(text), dtype={"table": str}), tidy(filled)
    assert list(read.columns) == list(frame.columns)
    assert read["row"].tolist() == frame["row"].tolist()
    for column in ("paper", "value", "std", "delta", "delta_std"):
        pd.testing.assert_series_equal(read[column], frame[column].astype(float), check_exact=True)
    assert "52908989," in text
    assert "117517.2952" in text


def test_markdown_parses_as_tables_with_every_row(filled: list[FilledTable]) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render(filled, "markdown"))
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 8
    texts = [token.content for token in tokens if token.type == "inline"]
    for each in filled:
        for row in each.table.rows:
            assert row.label.replace("*", r"\*") in texts
    widths = re.findall(r"^\|.*\|$", render(filled[:1], "markdown"), flags=re.MULTILINE)
    assert len({line.count("|") for line in widths}) == 1
    assert not any(child.type == "em_open" for token in tokens for child in token.children or [])


def test_a_note_that_begins_with_a_row_is_no_list(filled: list[FilledTable]) -> None:
    said = "+ iFA: of the runs that finished, 3 of 5; diverged (2 of 5)."
    tokens = MarkdownIt("commonmark").parse(render([replace(filled[0], notes=(said,))], "markdown"))
    assert tokens[-2].children is not None and tokens[-2].children[0].content == said
    assert not any("list" in token.type for token in tokens)


def test_counts_alone_are_no_pairs(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "csp-fast.add-fa.mul-pr", seed)
    costs = {e.slug: model_cost(e) for e in table_named("7").experiments}
    seven = fill_table(table_named("7"), "mini", load_runs(tmp_path), costs=costs)
    (line,) = (texts for what, texts in lines(seven, "implicit 1") if what.startswith("Δ"))
    assert [what for what, _ in lines(seven, "implicit 1")] == ["paper", "ours", "Δ"] and "+2 557" in line


def test_html_is_well_formed_and_has_every_cell_of_the_text(filled: list[FilledTable]) -> None:
    root = ElementTree.fromstring(f"<body>{render(filled, 'html')}</body>")
    found = root.findall("table")
    assert len(found) == len(filled)
    for element, each in zip(found, filled, strict=True):
        rows = [[cell.text or "" for cell in row] for row in element.iter("tr")]
        assert rows[0] == ["row", "", *each.table.metrics]
        assert rows[1:] == [
            [row.label if number == 0 else "", source, *texts]
            for row in each.table.rows
            for number, (source, texts) in enumerate(lines(each, row.label))
        ]
        assert element.findtext("caption") == each.caption


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
    found = columns(text)
    assert ["baseline", "paper", "47.8", "66.3", "52.1", "30.1", "52.5", "62.0"] in found
    # Half-widths of two values d apart: t of one degree of freedom is 12.706, times d / 2.
    assert ["ours", *(f"{40.5 + place:.2f} ± 6.35" for place in range(6))] in found
    assert ["ours", *(f"{42 + place:.2f} ± 12.71" for place in range(6))] in found
    assert ["row by itself", *["-4.85 to +7.85"] * 6] in found
    # Five other arms gain ten points from seed to seed, these one and two.
    assert ["Δ, 2 pairs", *["+1.50 ± 21.82"] * 6] in found
    assert ["p", "0.79, Holm 0.79", *["0.79"] * 5] in found  # one variant, so Holm changes nothing
    assert ["verdict", *["inconclusive"] * 6] in found
    assert ["interval by", *["own spreads"] * 6] in found and ["leaves up to", *["23.32"] * 6] in found
    (variant,) = (line for line in found if line[:2] == ["+ iFA", "paper"])
    assert variant[2:6] == ["47.9 (+0.1)", "66.6 (+0.3)", "52.3 (+0.2)", "30.6 (+0.5)"]
    assert ["ours: not run", *["–"] * 6] in found
    assert not any(line.endswith(" ") for line in text.splitlines())
    single = render([each for each in filled if each.table.name == "8"], "text")
    assert "50.0" in single and "±" not in single


@pytest.fixture(scope="module")
def published() -> list[FilledTable]:
    """Tables 3, 7 and 8 of the published study: many scores, counted ones, and a long label."""
    study = open_study(
        STUDY, tables=tuple("378"), costs=lambda table: {e.slug: model_cost(e) for e in table.experiments}
    )
    return list(study.filled.values())


@pytest.mark.parametrize("width", [80, 120, 200])
def test_tables_fit_the_terminal(published: list[FilledTable], width: int) -> None:
    text = render(published, "text", width)
    assert max(map(len, text.splitlines())) <= width
    golden = GOLDEN / f"terminal-{width}.txt"
    assert text == golden.read_text(encoding="utf-8"), f"{ACCEPT.format(width)} > {golden}"


def test_a_file_has_every_score_and_no_broken_line(published: list[FilledTable]) -> None:
    text = render(published, "text")
    heads = [line for line in text.splitlines() if line.startswith("row")]
    assert [line.split(maxsplit=1)[1].split() for line in heads] == [
        " ".join(each.table.metrics).split() for each in published
    ]
    assert "…" not in text and "99.16 ± 0.08" in text
    assert sum(line.startswith("In all of these tables: profile mini") for line in text.splitlines()) == 1
    (alone,) = (line for line in render(published[:1], "text").splitlines() if line.startswith("Ours: "))
    assert "profile mini" in alone and "* holds for the 7 comparisons of the tables printed here" in alone


def test_a_narrow_terminal_loses_no_score_that_was_asked_for(published: list[FilledTable]) -> None:
    text = render(published[:1], "text", 56, every=True)
    heads = [line.split()[1:3] for line in text.splitlines() if line.startswith("row")]
    assert [head[0] for head in heads[:6]] == ["AP", "AP50", "AP75", "APS", "APM", "APL"]
    assert "Verdict in AP: " in text
    assert len(heads) == 12 and max(map(len, text.splitlines())) <= 56
    assert "Not shown for want of room: paper, p, could show, leaves up to. --metrics" in " ".join(
        text.split()
    )


def test_every_format_ends_in_one_newline_and_an_unknown_one_lists_the_known(
    filled: list[FilledTable],
) -> None:
    for form in FORMATS:
        assert render(filled, form).endswith("\n") and not render(filled, form).endswith("\n\n")
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
        ("task cosine", -0.05, "", "-0.050"),
        ("task cosine", 0.1, "+", "+0.100"),
        ("FPS", 30, "", "30"),  # as quoted
        ("FPS", 6.5, "", "6.5"),
        ("FPS", -8, "+", "-8"),
        ("FPS", None, "", "–"),
    ],
)
def test_numbers(metric: str, value: float | None, sign: str, text: str) -> None:
    assert number(metric, value, sign) == text


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("47.9 (+0.1)", r"\num{47.9} (\num{+0.1})"),
        ("42.0 ± 12.7", r"\num{42.0 +- 12.7}"),
        ("+1.00 ± 1 273.24 (2 pairs)", r"\num{+1.00 +- 1273.24} (\num{2} pairs)"),
        ("small below 6.4²", r"small below \num{6.4}$^2$"),
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
    head = "\\documentclass{article}\n\\usepackage{booktabs,siunitx}\n\\begin{document}\n"
    document = f"{head}{render(filled, 'latex')}\n\\clearpage\n\\end{{document}}"
    (tmp_path / "tables.tex").write_text(document)
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
    assert "siunitx Warning" not in done.stdout


def test_quoted_cells_have_the_papers_number_and_no_value(quoted: list[FilledTable]) -> None:
    nine, large = quoted
    assert nine.status["EfficientDet"] == large.status["U5R5-X6"] == "quoted"
    cell = nine.cell("EfficientDet", "AP")
    assert (cell.paper, cell.value, cell.experiment, cell.runs) == (55.1, None, None, ())
    counted, fps = large.cell("U5R5-X6", "parameters"), nine.cell("YOLOR (ours)", "FPS")
    assert (counted.paper, counted.value, fps.paper, fps.value) == (141755500, None, 30, None)
    assert nine.cell("YOLOR (ours)", "AP").value == pytest.approx(50.0)
    assert large.cell("YOLOR-D6", "GFLOPs").value == pytest.approx(936.801)


def test_text_markdown_and_latex_hold_the_quoted_rows(quoted: list[FilledTable]) -> None:
    found = columns(render(quoted, "text"))
    assert ["EfficientDet", "paper, quoted", "55.1", "74.3", "59.9", "6.5"] in found
    assert ["SwinTransformer", "paper, quoted", "57.7", "–", "–", "–"] in found
    assert ["YOLOR (ours)", "paper", "55.4", "73.3", "60.6", "30"] in found
    assert ["ours", "50.0", "51.0", "52.0", "–"] in found
    assert sum(line[1:2] == ["paper, quoted"] for line in found) == 8
    markdown = render(quoted, "markdown")
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    assert [token.content for token in tokens if token.type == "inline"].count("paper, quoted") == 8
    assert [token.type for token in tokens].count("table_open") == 2
    assert markdown.startswith("Table 9: Comparison with the state of the art")
    latex = render(quoted, "latex")
    assert latex.isascii()
    assert r"CopyPaste & paper, quoted & \num{57.3} & -- & -- & -- \\" in latex
    assert r"$\ddagger$" in latex
    # LaTeX numbers tables itself, so captions start with the title.
    captions = re.findall(r"\\caption\{(.*)\}", latex)
    assert [caption.partition(" (")[0] for caption in captions] == [each.table.title for each in quoted]
    assert re.findall(r"\\label\{(.*)\}", latex) == ["tab:ablation-9", "tab:ablation-A2"]


def test_csv_and_json_tell_quoted_from_counted_from_missing(quoted: list[FilledTable]) -> None:
    frame = pd.read_csv(io.StringIO(render(quoted, "csv")), dtype={"table": str}, keep_default_na=False)
    status = frame.set_index(["table", "row", "metric"])["status"]
    assert status["9", "EfficientDet", "AP"] == "quoted"
    assert status["A2", "U5R5-S6", "parameters"] == "quoted"
    assert status["A2", "YOLOR-P6", "parameters"] == "counted"
    assert status["A2", "YOLOR-P6", "FPS"] == "quoted"
    assert status["A2", "YOLOR-P6", "AP"] == "not run"
    assert status["A2", "YOLOR-D6", "AP"] == "measured"
    assert records(quoted)["9", "CenterNet2", "FPS"]["paper"] is None
    missing = (
        "value", "half_width", "delta", "delta_low", "delta_high", "method", "freedom", "row_low",
        "row_high", "all_low", "all_high", "verdict", "marked", "margin", "bound", "p", "p_holm", "p_small",
        "p_small_holm", "shows", "leaves", "agrees", "std", "delta_std", "variance_left", "images_low",
        "images_high", "images_p", "paper_delta", "against",
    )  # fmt: skip
    assert records(quoted)["9", "CenterNet2", "AP"] == dict.fromkeys(missing) | {
        "table": "9", "row": "CenterNet2", "metric": "AP", "paper": 56.4, "seeds": [], "profile": "mini",
        "runs": [], "pairs": 0,
    }  # fmt: skip


def test_notes_explain_peculiar_gflops_and_leave_equal_ones_alone(quoted: list[FilledTable]) -> None:
    nine, large = quoted
    assert large.marks == {("YOLOR-P6", "GFLOPs"): "‡", ("YOLOR-W6", "GFLOPs"): "‡"}
    notes = "\n".join(large.notes)
    assert "‡ YOLOR-P6: the printed 326.2 is 326.2647 cut after one decimal." in notes
    assert "‡ YOLOR-W6: the printed 454.0 is 4 x 113.5, the rounded figure at 640 px." in notes
    assert "Parameters and GFLOPs are those of the full-size models" in notes
    assert "not fused, except Y4-P6" in notes
    assert "FPS are quoted" in notes
    assert "test-dev" in nine.notes[-1]
    assert "test-dev" in render([nine], "latex")


def test_a_table_of_quoted_rows_alone_can_be_printed(tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    cells.write_text("row,AP\nother,50.5\n")
    table = Table("theirs", "Other models", (Row("other", None, "somebody's"),), metrics=("AP",), cells=cells)
    filled = fill_table(table, "mini", load_runs(tmp_path))
    assert filled.caption == "Table theirs: Other models. All rows are quoted."
    assert "50.5" in render([filled], "text")


def test_scores_of_other_tasks_are_in_every_format(joint: list[FilledTable]) -> None:
    own = ["39.0 (-1.0)", "40.0 (-1.0)", "48.0 (-2.0)", "60.0 (+0.0)", "40.0 (+0.0)", *"–––", "-0.050"]
    assert ["ours", *own] in columns(render(joint, "text"))
    latex = render(joint, "latex")
    assert latex.isascii()
    assert "emb recall@1" in latex
    assert r"C alone & ours & -- & -- & \num{50.0} & \num{60.0} & \num{40.0} & -- & -- & -- & -- " in latex
    assert "| C alone | ours | – | – | 50.0 | 60.0 | 40.0 | – | – | – | – |" in render(joint, "markdown")
    cells = records(joint)
    assert cells["3", "JDC", "cls mAP"]["value"] == cells["3x", "JDC", "cls mAP"]["value"]
    assert cells["3x", "JDC", "cls mAP"]["value"] == pytest.approx(48.0)
    assert cells["3x", "C alone", "AP"]["value"] is None
