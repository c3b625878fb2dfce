"""What a report says of complete, incomplete, mixed and damaged studies, read from its files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from analysis.errors import NothingToShow
from analysis.figures.catalogue import SECTIONS, Drawing, drawings
from analysis.report import Written, write_report
from analysis.report import files as files_module
from analysis.study import Study, open_study
from tests.analysis.report.conftest import DATE
from tests.analysis.report.pages import Page, broken, pages

Make = Callable[..., Path]


def written(results: Path, *tables: str, **further: object) -> tuple[Written, Page]:
    """A report of these tables at mini, and its first page with the words and links of tables and figures."""
    study = open_study(results, "mini", tables or ("1",), **further)  # type: ignore[arg-type]
    found = write_report(study, results / "report", date=DATE)
    assert broken(found.folder) == []
    return found, first_pages(found.folder)


def first_pages(report: Path) -> Page:
    """The first page, with what the pages of tables and figures and the list of runs have besides."""
    found = Page(report / "index.html")
    for path in (*sorted(report.glob("[tf]*/*.html")), report / "runs" / "index.html"):
        page = Page(path)
        found.text += page.text
        found.links += [link.removeprefix("../") for link in page.links]
    return found


def test_every_link_leads_to_a_part_of_the_report_that_is_there(report: Path) -> None:
    # The index and the list of runs, runs of the profile and the damaged one, experiments, tables, sections.
    assert len(pages(report)) == 2 + 9 + 6 + 2 + len(SECTIONS)
    assert broken(report) == []


def test_pages_are_well_formed_and_can_be_read_without_eyes_and_mouse(report: Path) -> None:
    for page in pages(report).values():
        assert page.open == [], page.path
        assert page.headings[0] == 1 and page.headings.count(1) == 1, page.path
        steps = zip(page.headings, page.headings[1:], strict=False)
        assert all(after <= before + 1 for before, after in steps), page.path
        assert len(page.ids) == len(set(page.ids)), page.path
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("main")) == 1 and page.all("header") and page.all("nav") and page.all("footer")
        assert len(page.all("caption")) == len(page.all("table")), page.path
        assert all(known.get("scope") for known in page.all("th")), page.path
        assert all(known.get("alt") for known in page.all("img"))
        assert all(known.get("aria-label") or known.get("aria-labelledby") for known in page.all("svg"))
        assert not any("title" in known for _, known in page.tags), "said to those with a mouse only"


def test_a_cell_links_to_the_runs_behind_it_and_a_difference_to_their_pairs(report: Path) -> None:
    known = pages(report)
    table = known[(report / "tables" / "table-4.html").resolve()]
    assert "../experiments/csp-fast.add-fa.html#runs" in table.links
    assert "../experiments/csp-fast.add-fa.html#against-csp-fast" in table.links
    (single,) = (report / "runs").glob("csp-fast.mul-fa-mini-s0-*.html")
    assert f"../runs/{single.name}" in table.links  # one seed: the run itself
    experiment = known[(report / "experiments" / "csp-fast.add-fa.html").resolve()]
    for seed in (0, 1, 2):
        (run,) = (report / "runs").glob(f"csp-fast.add-fa-mini-s{seed}-*.html")
        (other,) = (report / "runs").glob(f"csp-fast-mini-s{seed}-*.html")
        assert experiment.links.count(f"../runs/{run.name}") == 2  # among the runs, and as one of a pair
        assert f"../runs/{other.name}" in experiment.links
        assert "../tables/table-1.html" in known[run.resolve()].links
        assert "../tables/table-4.html" in known[run.resolve()].links


def test_the_first_page_has_cells_intervals_verdicts_and_what_to_know_first(report: Path) -> None:
    text = first_pages(report).text
    assert "41.00 ± 2.48" in text and "43.30 ± 2.93" in text
    assert "+2.30 ± 0.75" in text and "higher" in text and " comparisons in AP: " in text
    assert "1 run is not finished (1 running)" in text
    assert "1 run folder cannot be read: <b>broken & co" in text
    assert "Runs of other profiles are left out: 1 of smoke." in text
    assert "profile mini, reduced profile: not comparable with the paper's numbers" in text


def test_the_first_page_counts_comparisons_as_the_published_summary_does(report: Path) -> None:
    first = (report / "index.html").read_text()
    assert "A word counts if it holds for all" in first
    assert re.search(
        r"An asterisk marks what holds\nfor (all comparisons|the \d+ comparisons? of) ?[^;]* at once;", first
    )


def test_the_page_of_a_run_says_what_it_was(report: Path) -> None:
    (path,) = (report / "runs").glob("csp-fast.add-fa-mini-s1-*.html")
    text = Page(path).text
    for part in ("c" * 40, "a" * 64, "f" * 64, "3.11.7", "2.11.0", "cpu", '"lr0"', "epoch 2", "1 min 35 s"):
        assert part in text, part
    assert "80 images, 250 boxes" in text and "disc" in text and "shapes" in text
    values = [f"{44.3 + place:.2f}" for place in range(12)]
    assert " ".join(values) in " ".join(text.split())
    rows = pd.read_csv(path.with_suffix(".csv"))
    assert list(rows["epoch"]) == [1, 2, 3] and list(rows["loss/obj"].round(3)) == [2.0, 1.0, 0.667]


def test_a_figure_has_its_data_beside_it_and_one_without_says_why(report: Path) -> None:
    study = open_study(report.parent, "mini", ["1", "4"])
    text = first_pages(report).text
    drawn = 0
    for drawing in drawings(study):
        file = report / drawing.csv
        reason = None
        try:
            data = drawing.data(study)
        except NothingToShow as answer:
            reason = str(answer)
        if reason is not None:
            assert reason.replace("`", "") in text and not file.exists()
            continue
        assert drawing.title in text and drawing.caption.replace("`", "") in text
        assert list(pd.read_csv(file).columns) == list(data.columns) and len(pd.read_csv(file)) == len(data)
        assert (report / "figures" / f"{drawing.name}.svg").read_text().startswith("<svg")
        drawn += 1
    assert drawn >= 6


def test_the_same_runs_give_the_same_report_apart_from_the_date(report: Path, tmp_path: Path) -> None:
    study = open_study(report.parent, "mini", ["1", "4"])
    write_report(study, tmp_path / "again", date=DATE)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (report, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert [name for name, content in first.items() if content != second[name]] == []


def test_without_runs_there_is_no_report_but_a_sentence(tmp_path: Path, make: Make) -> None:
    with pytest.raises(
        NothingToShow, match=f"there are no runs in {tmp_path / 'runs'}; `ablate launch --all"
    ):
        written(tmp_path)
    make(tmp_path, "csp-fast", profile="smoke")
    with pytest.raises(NothingToShow, match=r"none of the runs in .* is of these tables at profile mini"):
        written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.usefixtures("few_figures")
def test_figures_of_numbers_that_mean_nothing_say_so(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast", profile="smoke")
    found = write_report(open_study(tmp_path, "smoke", "1"), tmp_path / "report", date=DATE)
    figures = list((found.folder / "figures").glob("*.svg"))
    assert len(figures) == found.figures == 2
    for path in figures:
        last = list(ElementTree.parse(path).getroot())[-1]
        assert last.text == "smoke: the numbers mean nothing"
    assert "its numbers, verdicts and figures mean nothing" in Page(found.index).text


@pytest.mark.usefixtures("few_figures")
def test_who_watches_is_told_every_figure(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast")
    told = []

    def watch(figures: Sequence[Drawing]) -> Iterator[Drawing]:
        for place, each in enumerate(figures):
            told.append((place, len(figures), each.name))
            yield each

    write_report(open_study(tmp_path, "mini", "1"), tmp_path / "report", date=DATE, watch=watch)
    assert [place for place, of, _ in told] == list(range(told[0][1])) == [0, 1, 2]


@pytest.mark.usefixtures("few_figures")
def test_the_page_of_a_run_lists_its_files_which_the_report_has_not(tmp_path: Path, make: Make) -> None:
    folder = make(tmp_path, "csp-fast")
    (folder / "weights.safetensors").write_bytes(b"0" * 1234)
    found, page = written(tmp_path)
    text = " ".join(Page(found.folder / "runs" / f"{folder.name}.html").text.split())
    assert "weights.safetensors1.2 kB" in text and f"In {folder}, not in this report" in text
    assert "ablate publish --out DIR" in page.text
    assert not list(found.folder.rglob("weights*"))


@pytest.mark.usefixtures("few_figures")
def test_one_run_gives_no_interval_and_links_to_its_page(tmp_path: Path, make: Make) -> None:
    folder = make(tmp_path, "csp-fast", ap=0.25)
    found, page = written(tmp_path)
    assert f"runs/{folder.name}.html" in page.links and "25.0" in page.text and "±" not in _rows(page)
    assert "Every experiment has a single seed: no interval and no verdict" in page.text
    assert found.figures == 2


def _rows(page: Page) -> str:
    """The text of Table 1 after its caption."""
    return page.text.split("Table 1 as CSV")[0].split("what the line is")[-1]


@pytest.mark.usefixtures("few_figures")
def test_the_first_page_says_once_that_all_is_done_and_which_rows_its_figure_lacks(
    tmp_path: Path, make: Make
) -> None:
    for slug in ("csp-fast", "csp-fast.add-fa"):
        make(tmp_path, slug, 0), make(tmp_path, slug, 1, ap=0.41)
    page = Page(written(tmp_path, "1", "2")[0].index)
    assert "runs of these tables4 done" in page.text
    assert "Not drawn, for want of runs: 1 of 2 rows (2: + iPR)." in page.text
    caption = drawings(open_study(tmp_path, tables=["1"]))[0].caption
    assert "Not drawn" not in caption and "Not filled" not in caption
    make(tmp_path, "csp-fast.add-fa", 2, source_hash="b" * 64)
    caption = drawings(open_study(tmp_path, tables=["1"]))[0].caption
    assert caption.endswith("Not filled, so not drawn: Table 1.")


@pytest.mark.usefixtures("few_figures")
def test_runs_that_have_only_begun_are_listed_and_counted_nowhere(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast", state="running", epochs=0)
    make(tmp_path, "csp-fast.add-fa", state="failed", epochs=1, reason="x")
    queued = tmp_path / "runs" / "csp-mini-s0-0123456789"
    queued.mkdir()
    (queued / "state.json").write_text('{"state": "queued"}')
    found, page = written(tmp_path)
    assert found.runs == 3
    assert "2 runs are not finished (1 running, 1 queued)" in page.text
    assert "No run is finished" in page.text
    assert "1 run has failed: csp-fast.add-fa-mini-s0" in page.text
    assert "has not started" in Page(found.folder / "runs" / f"{queued.name}.html").text


@pytest.mark.usefixtures("few_figures")
def test_runs_of_different_sources_are_not_mixed_unless_asked(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast")
    make(tmp_path, "csp-fast.add-fa", source_hash="b" * 64)
    found, page = written(tmp_path)
    assert "table 1 would mix runs of different yolor_core sources" in page.text
    assert any("2 different yolor_core sources" in text for text in found.warnings)
    assert found.figures == 2  # the rest is there
    _, mixed = written(tmp_path, mixed=True)
    assert "would mix" not in mixed.text and "2 different yolor_core sources" in mixed.text


@pytest.mark.usefixtures("few_figures")
def test_a_damaged_file_costs_its_run_only(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast", 0)
    folder = make(tmp_path, "csp-fast", 1)
    (folder / "metrics.jsonl").write_text("{nonsense")
    found, page = written(tmp_path)
    assert f"{folder.name} is shown in part" in page.text and "metrics.jsonl cannot be read" in page.text
    assert "metrics.jsonl cannot be read" in Page(found.folder / "runs" / f"{folder.name}.html").text
    losses = pd.read_csv(found.folder / "figures" / "losses-table-1.csv")
    assert set(losses["of"]) == {1}


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("missing", ["evaluation.json", "metrics.jsonl", "state.json", "run.json", "logs"])
def test_a_run_without_a_file_has_a_page_still(tmp_path: Path, make: Make, missing: str) -> None:
    make(tmp_path, "csp-fast")
    folder = make(tmp_path, "csp-fast.add-fa")
    target = folder / missing
    target.rename(tmp_path / "elsewhere")
    found, _ = written(tmp_path)
    assert (found.folder / "runs" / f"{folder.name}.html").is_file()


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.mark.usefixtures("few_figures")
def test_nothing_that_a_run_wrote_becomes_markup(tmp_path: Path, make: Make) -> None:
    folder = make(
        tmp_path,
        "csp-fast",
        log=f"\x1b[31mred\x1b[0m {EVIL} \x00\x07\n50 %\r100 %\n\xff\xfe</pre>".encode("latin-1"),
        commit=EVIL,
        device=EVIL,
        python=EVIL,
        packages={EVIL: EVIL},
        jobs=[EVIL],
        source_hash=EVIL,
        fingerprint=EVIL,
    )
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["per_class"] = {EVIL: 0.5}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    damaged = tmp_path / "runs" / 'a"b<i>c%41#d'
    damaged.mkdir()
    (damaged / "state.json").write_text(json.dumps({"state": EVIL}))
    found, _ = written(tmp_path)
    for page in pages(found.folder).values():
        assert page.open == [], page.path
        assert [known for known in page.all("script") if not known.get("src")] == []
        assert not any("onerror" in known for _, known in page.tags), page.path
    text = Page(found.folder / "runs" / f"{folder.name}.html").text
    assert EVIL in text and "red " in text and "100 %" in text and "</pre>" in text
    assert not any(sign in text for sign in "\x00\x07\x1b\r")


@pytest.mark.usefixtures("few_figures")
def test_runs_of_other_settings_have_pages_and_are_in_no_table(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast", ap=0.25)
    folder = make(tmp_path, "csp-fast", ap=0.9, overrides=("train.epochs=3",))
    found, page = written(tmp_path)
    assert (found.folder / "runs" / f"{folder.name}.html").is_file()
    assert "90.0" not in _rows(page) and "in no table here" in page.text
    _, same = written(tmp_path, overrides=("train.epochs=3",))
    assert "90.0" in _rows(same) and "train.epochs changed" in same.text


@pytest.mark.usefixtures("few_figures")
def test_seeds_choose_the_runs_of_tables_and_figures(tmp_path: Path, make: Make) -> None:
    for seed in range(3):
        make(tmp_path, "csp-fast", seed)
    found, page = written(tmp_path, seeds=[0, 2])
    assert set(pd.read_csv(found.folder / "figures" / "ap-by-run.csv")["seed"]) == {0, 2}
    assert "seeds 0, 2;" in page.text


@pytest.mark.usefixtures("few_figures")
def test_an_error_while_drawing_leaves_the_old_report(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "csp-fast")
    found, _ = written(tmp_path)
    before = found.index.read_bytes()

    def fail(study: Study) -> None:
        raise RuntimeError("a defect, not an answer")

    monkeypatch.setattr(files_module, "drawings", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        written(tmp_path)
    assert found.index.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "runs"]


@pytest.mark.usefixtures("few_figures")
def test_metrics_are_read_once_a_run(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolor_core.runs.directory import RunDirectory

    for seed in range(3):
        make(tmp_path, "csp-fast", seed)
    reads: list[Path] = []
    original = RunDirectory.read_metrics
    monkeypatch.setattr(
        RunDirectory, "read_metrics", lambda self: (reads.append(self.path), original(self))[1]
    )
    written(tmp_path)
    assert len(reads) == len(set(reads)) == 3


@pytest.mark.parametrize("name", ["detections.parquet", "dataset.json", "evaluation.json", "effects.parquet"])
def test_files_of_an_unexpected_kind_cost_what_is_in_them(
    tmp_path: Path, make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "svg", lambda figure, *words: "<svg></svg>")  # which takes longest
    for experiment in ("csp-fast", "csp-fast.add-fa"):
        folder = make(tmp_path, experiment)
        (folder / "dataset.json").write_text("{}")
        if name.endswith("parquet"):
            pd.DataFrame({"other": [1]}).to_parquet(folder / name)
        elif name == "evaluation.json":
            content = json.loads((folder / name).read_text()) | {"per_class": [1, 2]}
            (folder / name).write_text(json.dumps(content))
    found, page = written(tmp_path)
    assert "AP of every run" in page.text and "could not be drawn" not in page.text
    if name != "detections.parquet":  # that is a figure's own sentence
        assert f"{name} cannot be read" in page.text or "per_class is [1, 2]" in page.text
    assert (found.folder / "figures" / "figure-9.svg").exists() is False


def test_a_figure_that_fails_costs_no_other(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "csp-fast")

    def fail(study: Study) -> pd.DataFrame:
        raise KeyError("a defect")

    def some(study: Study) -> list[Drawing]:
        kept = [each for each in drawings(study) if each.name in ("ap-by-run", "losses-table-1")]
        return [replace(kept[0], data=fail), kept[1]]

    monkeypatch.setattr(files_module, "drawings", some)
    found, page = written(tmp_path)
    assert "It could not be drawn: KeyError: 'a defect'" in page.text
    assert any("could not be drawn: AP of every run" in said for said in found.warnings)
    assert (found.folder / "figures" / "losses-table-1.svg").exists()


@pytest.mark.usefixtures("few_figures")
def test_tables_whose_names_differ_in_signs_only_do_not_meet(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast")
    for file, sign in (("a.py", "+"), ("b.py", "×")):
        (tmp_path / file).write_text(OWN_TABLE.replace("NAME", f"mine {sign}"), encoding="utf-8")
    study = open_study(tmp_path, "mini", [str(tmp_path / name) for name in ("a.py", "b.py")])
    found = write_report(study, tmp_path / "report", date=DATE)
    files = sorted(path.name for path in (found.folder / "tables").glob("*.csv"))
    assert len(files) == 2 and all(name.startswith("table-mine-") for name in files)
    assert broken(found.folder) == []
    names = {path.name for path in (found.folder / "tables").glob("*.html")}
    assert len(names) == 2 and all(re.fullmatch(r"table-mine-[0-9a-f]{6}\.html", name) for name in names)
    links = Page(found.index).links
    # In the contents, beside its verdict, and among the tables.
    assert all(links.count(f"tables/{name}") == 3 for name in names)


OWN_TABLE = """
from ablations.experiments import ADD_FA, CSP_FAST
from ablations.table import Row, Table
ROWS = (Row("base$\\frac{1$", CSP_FAST, "no\\x07thing"), Row("variant", CSP_FAST.plus(ADD_FA), "a vector"))
TABLE = Table("NAME", "Title", ROWS)
"""


def test_dollars_and_control_characters_in_names_are_drawn_as_they_are(tmp_path: Path, make: Make) -> None:
    make(tmp_path, "csp-fast", 0)
    make(tmp_path, "csp-fast", 1)
    (tmp_path / "own.py").write_text(OWN_TABLE.replace("NAME", "a$x_{$ <b>\\x07"), encoding="utf-8")
    found = write_report(
        open_study(tmp_path, "mini", [str(tmp_path / "own.py")]), tmp_path / "report", date=DATE
    )
    assert not any("could not be drawn" in said for said in found.warnings)
    for path in (found.folder / "figures").glob("*.svg"):
        ElementTree.parse(path)
