"""Tables 3, 3x and 6x: joint training, its controls, and the Markov chain, as experiments that can run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ablations.cli import main
from ablations.experiments import ADD_FA, CLASSIFICATION, CSP, EMBEDDING, MUL_PR
from ablations.plan import plan_runs
from ablations.profiles import PROFILES
from ablations.registry import experiments, paper, resolve, select, table_named
from ablations.table import CLASSIFICATION as CLASSIFICATION_SCORES
from ablations.table import DETECTION, SCORES, Row, Table
from ablations.table import EMBEDDING as EMBEDDING_SCORES
from yolor_core.config import RunConfig, Science
from yolor_core.errors import UnknownNameError
from yolor_core.models import create_model
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.models.detector import Detector

JOINT = [table_named(name) for name in ("3", "3x", "6x")]
ROWS = [(table, row) for table in JOINT for row in table.rows]
IDS = [f"{table.name}-{row.label}" for table, row in ROWS]
TASKS = {
    "baseline": ("detection",),
    "C alone": ("classification",),
    "C alone + i": ("classification",),
    "E alone": ("embedding",),
    "E alone + i": ("embedding",),
    "JDC": ("detection", "classification"),
    "+ iJDC": ("detection", "classification"),
    "+ iJDC Markov": ("detection", "classification"),
    "JDE": ("detection", "embedding"),
    "+ iJDE": ("detection", "embedding"),
    "+ iJDE Markov": ("detection", "embedding"),
}


def science(label: str, name: str = "3x") -> Science:
    (row,) = (row for row in table_named(name).rows if row.label == label)
    assert row.experiment is not None
    return row.experiment.science


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("table", "row"), ROWS, ids=IDS)
def test_every_row_resolves_survives_json_and_has_a_model(table: Table, row: Row, profile: str) -> None:
    assert row.slug is not None
    resolved = resolve(row.slug, profile)
    config = RunConfig(experiment=row.slug, science=resolved, data=PROFILES[profile].data)
    assert RunConfig.from_json(config.to_json()) == config
    architecture = ARCHITECTURES[resolved.model.architecture]
    with torch.device("meta"):
        model = Detector(architecture, resolved.model, 5, identities=7)
    assert row.experiment is not None
    assert model.tasks == row.experiment.tasks
    if table.name != "6x":
        assert model.tasks == TASKS[row.label]


def test_all_of_table_3_is_planned_and_the_extended_tables_only_when_named() -> None:
    three = plan_runs(["3"], "smoke", fingerprint="f")
    assert [run.config.experiment for run in three] == [row.slug for row in table_named("3").rows]
    for name, runs, new in (("3x", 11, 6), ("6x", 5, 1)):
        planned = {run.config.experiment for run in plan_runs([name], "smoke", fingerprint="f")}
        assert (len(planned), len(planned - set(experiments()))) == (runs, new)
    assert not {"3x", "6x"} & {table.name for table in paper().tables}


@pytest.mark.parametrize("name", ["3x", "3X", "table3x", "Table 3x"])
def test_an_extended_table_has_several_names(name: str) -> None:
    assert table_named(name) is JOINT[1]
    assert select([name]).tables == (JOINT[1],)


def test_extended_tables_hold_the_rows_and_the_cells_of_the_papers() -> None:
    for short, long in (("3", "3x"), ("6", "6x")):
        own, extended = table_named(short), table_named(long)
        labels = [row.label for row in own.rows]
        assert [row.label for row in extended.rows if row.label in labels] == labels
        assert {r.label: r.slug for r in own.rows}.items() <= {r.label: r.slug for r in extended.rows}.items()
        assert extended.paper() == own.paper()
        assert (extended.cells, extended.extends) == (own.cells, short)


def test_a_row_is_listed_in_the_papers_table_and_not_again_in_its_extension() -> None:
    def places(*arguments: str) -> dict[str, list[str]]:
        records = json.loads(CliRunner().invoke(main, ["list", "--json", *arguments]).output)
        return {r["experiment"]: [row["table"] for row in r["rows"]] for r in records}

    assert places()["csp.jdc"] == ["3"]
    assert places("3x")["csp.jdc"] == ["3", "3x"]
    assert places("3x")["csp.embedding-alone"] == ["3x"]
    assert (
        CliRunner().invoke(main, ["list", "3x"]).output.splitlines()[-1].startswith("11 experiments, 11 rows")
    )


def test_controls_are_the_same_trunk_with_one_task_alone() -> None:
    for label, branch in (("C alone", CLASSIFICATION), ("E alone", EMBEDDING)):
        model = CSP.science.model.model_copy(update={"detection": False, "branches": (branch,)})
        assert science(label) == CSP.science.model_copy(update={"model": model})
        with_vector = branch.model_copy(update={"implicit": ADD_FA})
        expected = model.model_copy(update={"branches": (with_vector,)})
        assert science(f"{label} + i").model == expected


@pytest.mark.parametrize("task", ["C", "E"])
def test_implicit_rows_have_a_vector_per_task_and_markov_rows_chain_the_branch_to_it(task: str) -> None:
    joint, implicit, chained = (science(f"{start}{task}{end}").model for start, end in
                                (("JD", ""), ("+ iJD", ""), ("+ iJD", " Markov")))  # fmt: skip
    assert joint.implicit == () and joint.branches[0].implicit is None
    assert implicit.implicit == chained.implicit == (ADD_FA,)
    assert implicit.branches[0].implicit == ADD_FA
    assert chained.branches[0].implicit == ADD_FA.model_copy(update={"form": "markov"})
    both = (
        CSP.plus(MUL_PR).joint(EMBEDDING, "jde").joint_implicit(CLASSIFICATION, ADD_FA, "jdc").science.model
    )
    assert both.implicit == (MUL_PR, ADD_FA) and [each.implicit for each in both.branches] == [ADD_FA] * 2
    assert {model.branches[0].task for model in (joint, implicit, chained)} == {
        {"C": "classification", "E": "embedding"}[task]
    }


@pytest.mark.parametrize(
    ("label", "metric", "against"),
    [
        ("JDC", "AP", "baseline"),
        ("JDC", "cls mAP", "C alone"),
        ("JDE", "AP50", "baseline"),
        ("JDE", "emb AUC", "E alone"),
        ("+ iJDC", "AP", "JDC"),
        ("+ iJDC", "cls F1 micro", "JDC"),
        ("+ iJDE Markov", "emb mAP", "+ iJDE"),
        ("+ iJDE", "task cosine", "JDE"),
        ("E alone + i", "emb recall@1", "E alone"),
        ("baseline", "AP", "baseline"),
    ],
)
def test_each_score_is_compared_with_the_row_that_has_its_task(label: str, metric: str, against: str) -> None:
    table = table_named("3x")
    (row,) = (row for row in table.rows if row.label == label)
    assert table.baseline(row, metric).label == against


def test_a_row_lacks_the_scores_of_the_tasks_that_it_does_not_train() -> None:
    rows = {row.label: row for row in table_named("3x").rows}
    for label, row in rows.items():
        for metric, score in SCORES.items():
            assert row.lacks(metric) == (None if score.task in TASKS[label] else score.task)
        assert row.lacks("task cosine") == (None if len(TASKS[label]) > 1 else "second task")
        assert row.lacks("parameters") is None
    assert Row("theirs", None, "quoted").lacks("cls mAP") is None


def test_table_3_prints_the_papers_metrics_first() -> None:
    assert table_named("3").metrics == (*DETECTION, *CLASSIFICATION_SCORES, *EMBEDDING_SCORES)


def test_stated_extra_parameters_are_those_of_the_models() -> None:
    stated = [(t, row) for t, row in ROWS if row.extra_parameters is not None]
    assert {"+ iJDC", "+ iJDE", "JDC", "+ miFA"} <= {row.label for _, row in stated}

    def parameters(row: Row) -> int:
        assert row.experiment is not None
        model = row.experiment.science.model
        with torch.device("meta"):
            return sum(p.numel() for p in Detector(ARCHITECTURES[model.architecture], model).parameters())

    for table, row in stated:
        base = next(r for r in table.rows if r.label == table.compared(row)[0])
        assert row.extra_parameters == parameters(row) - parameters(base), (table.name, row.label)


def test_rows_of_a_seed_share_the_initial_values_of_the_trunk() -> None:
    slugs = ("csp", "csp.jdc.implicit", "csp.embedding-alone", "csp.classification-alone")
    states = [create_model(resolve(slug, "smoke").model, 3, identities=5).state_dict() for slug in slugs]
    assert all(any(name.startswith("branches.") for name in state) for state in states[1:])
    for state in states[1:]:
        shared = state.keys() & states[0].keys()
        assert any(name.startswith("backbone.") for name in shared)
        assert all(torch.equal(state[name], states[0][name]) for name in shared)


def test_comparing_with_an_unknown_row_of_several_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="'c'"):
        Table("x", "x", (Row("b", CSP, ""), Row("d", CSP, "", against=("b", "c"))))


def test_show_names_every_row_that_a_row_is_compared_with() -> None:
    shown = CliRunner().invoke(main, ["show", "3x"]).output
    assert "compared with 'baseline' and 'C alone'" in shown
    record = json.loads(CliRunner().invoke(main, ["show", "3x", "--json"]).output)
    against = {row["row"]: row["against"] for row in record["rows"]}
    assert against["JDE"] == ["baseline", "E alone"]
    assert against["+ iJDE"] == ["JDE"]


def test_launching_table_3_leaves_nothing_out(tmp_path: Path) -> None:
    arguments = ["launch", "3", "--profile", "smoke", "--dry-run", "--results", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "5 runs: 0 done, 5 to run" in result.output
