"""Scores of several tasks: read from runs, compared with the right row, a dash with its reason elsewhere."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ablations.registry import table_named
from analysis.runs import load_runs
from analysis.tables.fill import FilledTable, fill_table
from analysis.tables.formats import number, render

Fabricate = Callable[..., str]
CLASSIFICATION = {"mAP": 0.5, "F1_micro": 0.6, "F1_macro": 0.4, "images": 200}
EMBEDDING = {"recall@1": 0.7, "mAP": 0.3, "AUC": 0.8, "queries": 100}


def filled(results: Path, name: str = "3x", **options: object) -> FilledTable:
    return fill_table(table_named(name), "mini", load_runs(results), **options)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path, fabricate: Fabricate) -> Path:
    """Runs of the baseline, of JDC and JDE, of both controls, and of + iJDC."""
    fabricate("csp", ap=0.40)
    fabricate("csp.classification-alone", scores={"classification": CLASSIFICATION})
    fabricate("csp.embedding-alone", scores={"embedding": EMBEDDING})
    joint = CLASSIFICATION | {"mAP": 0.48}
    cosines = ({"conflict/detection-classification": -0.2}, {"conflict/detection-classification": 0.1})
    fabricate("csp.jdc", ap=0.39, scores={"classification": joint}, cosines=cosines)
    cosines = ({"conflict/detection-classification": 0.05}, {})
    better = CLASSIFICATION | {"mAP": 0.53}
    fabricate("csp.jdc.implicit", ap=0.41, scores={"classification": better}, cosines=cosines)
    fabricate("csp.jde", ap=0.38, scores={"embedding": EMBEDDING | {"AUC": 0.75}})
    return tmp_path


def test_scores_of_every_task_are_columns_of_the_run_store(store: Path) -> None:
    runs = load_runs(store).set_index("experiment")
    alone = runs.loc["csp.classification-alone"]
    assert (alone["cls mAP"], alone["cls F1 micro"], alone["cls F1 macro"]) == (0.5, 0.6, 0.4)
    assert alone[["AP", "AR100", "emb mAP", "task cosine"]].isna().all()
    joint = runs.loc["csp.jde"]
    assert (joint["AP"], joint["emb recall@1"], joint["emb mAP"], joint["emb AUC"]) == (0.38, 0.7, 0.3, 0.75)
    assert pd.isna(joint["cls mAP"])


def test_the_cosine_of_a_run_is_the_mean_over_its_epochs(store: Path) -> None:
    cosine = load_runs(store).set_index("experiment")["task cosine"]
    assert cosine["csp.jdc"] == pytest.approx((-0.2 + 0.1) / 2)
    assert cosine["csp.jdc.implicit"] == pytest.approx(0.05)  # epochs without one do not count
    assert cosine.drop(["csp.jdc", "csp.jdc.implicit"]).isna().all()


def test_the_cosine_is_the_mean_over_pairs_of_tasks_too(tmp_path: Path, fabricate: Fabricate) -> None:
    cosines = (
        {"conflict/detection-embedding": 0.1, "conflict/classification-embedding": 0.4, "loss/id": 9.0},
    )
    fabricate("csp.jde", cosines=cosines, scores={"embedding": EMBEDDING})
    assert load_runs(tmp_path)["task cosine"].tolist() == pytest.approx([0.25])


def test_a_damaged_metrics_file_of_a_joint_run_is_told(tmp_path: Path, fabricate: Fabricate) -> None:
    name = fabricate("csp.jde", scores={"embedding": EMBEDDING})
    alone = fabricate("csp")
    for run in (name, alone):
        (tmp_path / "runs" / run / "metrics.jsonl").write_text("{")
    runs = load_runs(tmp_path).set_index("run")
    assert runs.loc[name, "state"] == "unreadable"
    assert "metrics.jsonl" in str(runs.loc[name, "reason"])
    assert runs.loc[alone, "AP"] == 0.4  # a model of one task has no cosine, and the file is not read


def test_a_run_without_detection_counts_as_evaluated(store: Path) -> None:
    status = filled(store).status
    assert status["C alone"] == status["E alone"] == "measured"
    assert status["C alone + i"] == "not run"


def test_each_score_is_compared_with_its_own_control(store: Path) -> None:
    table = filled(store)
    detection, tags = table.cell("JDC", "AP"), table.cell("JDC", "cls mAP")
    assert (detection.value, detection.delta) == (pytest.approx(39.0), pytest.approx(-1.0))
    assert (tags.value, tags.delta) == (pytest.approx(48.0), pytest.approx(-2.0))
    assert table.cell("JDE", "emb AUC").delta == pytest.approx(-5.0)
    healed = table.cell("+ iJDC", "cls mAP"), table.cell("+ iJDC", "AP")
    assert [cell.delta for cell in healed] == [pytest.approx(5.0), pytest.approx(2.0)]
    assert table.cell("C alone", "cls mAP").delta is None
    assert (detection.paper, detection.paper_delta) == (47.7, -0.3)
    assert (tags.paper, tags.paper_delta) == (None, None)


def test_the_cosine_is_no_percentage(store: Path) -> None:
    table = filled(store)
    assert table.cell("JDC", "task cosine").value == pytest.approx(-0.05)
    assert table.cell("+ iJDC", "task cosine").delta == pytest.approx(0.1)
    assert number("task cosine", -0.05) == "-0.050"
    assert number("task cosine", 0.1, "+") == "+0.100"


def test_a_missing_task_is_a_dash_with_its_reason(store: Path) -> None:
    table = filled(store)
    cell = table.cell("C alone", "AP")
    assert (cell.value, cell.lacks) == (None, "detection")
    assert table.cell("JDC", "AP").lacks is None
    assert (
        "– because the model has no embedding: baseline; C alone; C alone + i; JDC; + iJDC; + iJDC Markov."
        in (table.notes)
    )
    assert any(
        note.startswith("– because the model has no second task: baseline; C alone;") for note in table.notes
    )
    frame = pd.read_csv(io.StringIO(render([table], "csv")), keep_default_na=False)
    status = frame.set_index(["row", "metric"])["status"]
    assert status["C alone", "AP"] == "no detection"
    assert status["C alone + i", "cls mAP"] == "not run"
    assert status["C alone + i", "emb mAP"] == "no embedding"
    assert status["JDC", "cls mAP"] == "measured"


def test_tables_of_detection_alone_say_nothing_of_other_tasks(store: Path) -> None:
    assert filled(store, "1").notes == ()


def test_every_format_holds_the_scores(store: Path) -> None:
    tables = [filled(store, name) for name in ("3", "3x")]
    lines = [re.split(r"\s{2,}", line.strip()) for line in render(tables, "text").splitlines()]
    own = [
        "ours",
        "39.0 (-1.0)",
        "40.0 (-1.0)",
        "48.0 (-2.0)",
        "60.0 (+0.0)",
        "40.0 (+0.0)",
        *"–––",
        "-0.050",
    ]
    assert own in lines
    latex = render(tables, "latex")
    assert latex.isascii()
    assert "emb recall@1" in latex
    assert r"C alone & ours & -- & -- & \num{50.0} & \num{60.0} & \num{40.0} & -- & -- & -- & -- " in latex
    assert "| C alone | ours | – | – | 50.0 | 60.0 | 40.0 | – | – | – | – |" in render(tables, "markdown")
    cells = {(r["table"], r["row"], r["metric"]): r["value"] for r in json.loads(render(tables, "json"))}
    assert cells["3", "JDC", "cls mAP"] == cells["3x", "JDC", "cls mAP"] == pytest.approx(48.0)
    assert cells["3x", "C alone", "AP"] is None


def test_lines_of_table_3_fit_the_width_that_text_is_printed_at(tmp_path: Path, fabricate: Fabricate) -> None:
    for seed in (0, 1):
        for slug in ("csp", "csp.jdc", "csp.jdc.implicit", "csp.jde", "csp.jde.implicit"):
            scores = {"classification": CLASSIFICATION} if "jdc" in slug else {"embedding": EMBEDDING}
            fabricate(slug, seed, 0.4 + seed / 10, scores=scores if slug != "csp" else None)
    text = render([filled(tmp_path, "3")], "text")
    (header,) = (line for line in text.splitlines() if line.startswith("row"))
    for metric in table_named("3").metrics:
        assert metric in header
    assert "…" not in text
