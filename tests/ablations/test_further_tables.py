"""Tables 9, A1 and A2: the paper's cells, our models' rows as experiments, the others quoted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ablations.cli import main
from ablations.costs import Cost, model_cost
from ablations.plan import plan_runs
from ablations.profiles import PROFILES
from ablations.registry import all_experiments, everything, experiments, paper, resolve, select, table_named
from ablations.table import DETECTION, Row, Table
from yolor_core.config import ImplicitConfig, RunConfig
from yolor_core.errors import ConfigError, UnknownNameError
from yolor_core.identity import signature
from yolor_core.models import count
from yolor_core.models.architectures import ARCHITECTURES

FURTHER = [table_named(name) for name in ("9", "A1", "A2")]
OURS = [(table, row) for table in FURTHER for row in table.rows if row.experiment is not None]
IDS = [f"{table.name}-{row.label}" for table, row in OURS]
QUOTED = {
    "9": {"EfficientDet", "SwinTransformer", "CenterNet2", "CopyPaste"},
    "A1": set(),
    "A2": {"U5R5-S6", "U5R5-M6", "U5R5-L6", "U5R5-X6"},
}


def ablate(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def costs(name: str) -> dict[str, tuple[Row, Cost]]:
    rows = [row for row in table_named(name).rows if row.experiment is not None]
    return {row.label: (row, model_cost(row.experiment, row.fused)) for row in rows}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def a1() -> dict[str, tuple[Row, Cost]]:
    return costs("A1")


@pytest.fixture(scope="module")
def a2() -> dict[str, tuple[Row, Cost]]:
    return costs("A2")


def test_they_stand_beside_the_ablation_study_which_stays_what_it_is() -> None:
    assert [table.name for table in paper().tables] == list("12345678")
    assert [table.name for table in everything().tables] == [
        *"12345678",
        "9",
        "A1",
        "A2",
        "3x",
        "6x",
        "controls",
    ]
    assert [len(table.rows) for table in FURTHER] == [6, 6, 9]
    assert len(experiments()) == 19
    assert len(all_experiments()) == 43
    assert len({signature(resolve(slug, "paper")) for slug in all_experiments()}) == 43
    assert select() is paper()


@pytest.mark.parametrize("table", FURTHER, ids=lambda table: table.name)
def test_other_peoples_models_are_quoted_and_ours_are_experiments(table: Table) -> None:
    assert {row.label for row in table.rows if row.experiment is None} == QUOTED[table.name]
    assert all(row.slug is None and row.epochs == 0 for row in table.rows if row.experiment is None)
    assert list(table.paper()) == [row.label for row in table.rows]
    assert all(set(cells) <= set(table.metrics) for cells in table.paper().values())


@pytest.mark.parametrize(
    ("table", "row", "metric", "value"),
    [
        ("9", "YOLOR (ours)", "AP75", 60.6),
        ("9", "ScaledYOLOv4", "AP", 55.5),
        ("9", "EfficientDet", "FPS", 6.5),
        ("9", "CopyPaste", "AP", 57.3),
        ("A1", "Y4-SSS", "FPS", 720),
        ("A1", "Y4-SSSS, YOLOR", "APL", 50.8),
        ("A1", "U5R5-S, YOLOR", "APS", 21.1),
        ("A2", "YOLOR-W6", "GFLOPs", 454.0),
        ("A2", "YOLOR-D6", "AP", 55.4),
        ("A2", "U5R5-X6", "parameters", 141755500),
    ],
)
def test_known_cells(table: str, row: str, metric: str, value: float) -> None:
    assert table_named(table).paper()[row][metric] == value


def test_cells_of_the_appendix_are_complete_and_in_the_order_that_coco_implies() -> None:
    for table in FURTHER[1:]:
        for cells in table.paper().values():
            assert set(cells) == {"FPS", "GFLOPs", "parameters", *DETECTION}
            assert 0 < cells["APS"] < cells["APM"] < cells["APL"] < 100
            assert 0 < cells["AP"] < cells["AP75"] < cells["AP50"] < 100
    assert set(table_named("9").paper()["SwinTransformer"]) == {"AP"}


@pytest.mark.parametrize("table", ["A1", "A2"])
def test_counted_parameters_are_the_printed_ones(table: str, request: pytest.FixtureRequest) -> None:
    printed = table_named(table).paper()
    counted = request.getfixturevalue(table.lower())
    assert len(counted) == {"A1": 6, "A2": 5}[table]
    for label, (_, cost) in counted.items():
        assert cost.parameters == printed[label]["parameters"], label


def test_gflops_of_table_a1_round_to_the_printed_ones_when_fused(a1: dict[str, tuple[Row, Cost]]) -> None:
    printed = table_named("A1").paper()
    for label, (row, cost) in a1.items():
        assert row.fused
        assert f"{cost.mflops / 1e3:.1f}" == f"{printed[label]['GFLOPs']:.1f}"
    assert f"{count('u5r5-s', 640).mflops / 1e3:.1f}" == "17.1"  # not fused it would not


def test_gflops_of_table_a2_are_explained(a2: dict[str, tuple[Row, Cost]]) -> None:
    printed = table_named("A2").paper()
    for label, (_, cost) in a2.items():
        if label != "YOLOR-P6":
            assert cost.gflops_quadrupled == printed[label]["GFLOPs"]
        assert cost.mflops / 1e3 == pytest.approx(printed[label]["GFLOPs"], abs=0.12)
    light = a2["YOLOR-P6"][1]
    assert f"{light.mflops:.4f}" == "326264.7304"
    assert int(light.mflops / 100) / 10 == printed["YOLOR-P6"]["GFLOPs"]
    assert light.gflops_quadrupled == 326.4


def test_only_models_at_1280_have_a_quadrupled_figure(a1: dict[str, tuple[Row, Cost]]) -> None:
    assert {cost.gflops_quadrupled for _, cost in a1.values()} == {None}
    assert model_cost(all_experiments()["y4-p7"]).gflops_quadrupled is None


def test_stated_extra_parameters_are_those_of_the_models(a1: dict[str, tuple[Row, Cost]]) -> None:
    table = table_named("A1")
    for row, cost in a1.values():
        assert row.extra_parameters == cost.parameters - a1[table.baseline(row).label][1].parameters


def test_pairs_of_table_a1_differ_by_the_implicit_knowledge_alone() -> None:
    table = table_named("A1")
    parts = (ImplicitConfig(site="fa", operator="add"), ImplicitConfig(site="pr", operator="multiply"))
    for row in table.rows:
        base = table.baseline(row)
        assert row.experiment is not None
        assert base.experiment is not None
        if base is not row:
            science = row.experiment.science
            bare = science.model.model_copy(update={"implicit": ()})
            assert science.model.implicit == parts
            assert science.model_copy(update={"model": bare}) == base.experiment.science


def test_recipes_are_those_published_for_light_and_for_large_models() -> None:
    light = resolve("y4-sss", "paper").train
    assert [(p.epochs, p.augment.translate, p.augment.scale) for p in light.phases] == [(300, 0.1, 0.5)]
    assert light.size == 640
    large = resolve("yolor-d6", "paper").train
    assert [p.epochs for p in large.phases] == [300, 125, 25]
    assert [p.augment.mosaic_images for p in large.phases] == [4, 9, 4]
    assert large.size == 1280
    scaled = resolve("y4-p7", "paper").train
    assert [p.epochs for p in scaled.phases] == [300, 150]
    assert [p.augment.mosaic_images for p in scaled.phases] == [4, 4]
    assert scaled.size == 1536
    table = table_named("A2")
    assert [row.epochs for row in table.rows] == [450] * 5 + [0] * 4


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("table", "row"), OURS, ids=IDS)
def test_rows_resolve_at_sizes_that_their_model_takes(table: Table, row: Row, profile: str) -> None:
    assert row.slug is not None
    science = resolve(row.slug, profile)
    stride = ARCHITECTURES[science.model.architecture].strides[-1]
    assert science.train.size % stride == science.evaluation.size % stride == 0
    config = RunConfig(experiment=row.slug, science=science, data=PROFILES[profile].data)
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("name", ["A1", "a1", "tableA1", "tablea1", "Table A1", "TABLE-a1"])
def test_a_table_of_the_appendix_has_several_names(name: str) -> None:
    assert table_named(name) is FURTHER[1]
    assert [table.name for table in select([name]).tables] == ["A1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("A3", "unknown table 'A3'; allowed: 3, 1, 2"),
        ("4x", "unknown table '4x'; allowed: 4, 1, 2"),
        ("y4-ssss.add-fa", "unknown experiment or table 'y4-ssss.add-fa'; did you mean y4-ssss"),
    ],
)
def test_unknown_names_list_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        select([name])
    assert message in str(caught.value)


def test_a_table_of_ones_own_cannot_take_their_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from ablations.experiments import CSP_FAST\n"
        "from ablations.table import Row, Table\n"
        "TABLE = Table('a2', 'mine', (Row('b', CSP_FAST, ''), Row('other', None, 'quoted')))\n"
    )
    with pytest.raises(ConfigError, match="two tables are named 'a2'"):
        select([str(file)])


def test_runs_of_these_tables_are_planned_when_they_are_named_and_not_otherwise() -> None:
    named = plan_runs(["9", "A1", "A2"], "smoke", fingerprint="f")
    theirs = {e.slug for table in FURTHER for e in table.experiments}
    assert {run.config.experiment for run in named} == theirs
    assert not theirs & set(experiments())
    assert len(named) == 12
    every = plan_runs(profile="smoke", fingerprint="f")
    assert not {run.run_id for run in named} & {run.run_id for run in every}


def test_launch_all_leaves_them_out_and_launch_a1_takes_six(tmp_path: Path) -> None:
    options = ("--profile", "smoke", "--dry-run", "--json", "--results", str(tmp_path))
    every = json.loads(ablate("launch", "--all", *options).stdout)
    assert len(every) == 19
    six = json.loads(ablate("launch", "a1", *options).stdout)
    assert [run["experiment"] for run in six] == [row.slug for row in FURTHER[1].rows]


def test_list_names_them_when_asked() -> None:
    assert ablate("list").output.splitlines()[-1].startswith("19 experiments, 29 rows")
    records = json.loads(ablate("list", "--everything", "--json").output)
    assert len(records) == 43
    assert (
        sum(len(record["rows"]) for record in records) == 29 + 13 + 7 + 3 + 3
    )  # of 3x, 6x and controls, what 3, 6 and 4 lack
    (d6,) = (record for record in records if record["experiment"] == "yolor-d6")
    assert d6["rows"] == [{"table": "9", "row": "YOLOR (ours)"}, {"table": "A2", "row": "YOLOR-D6"}]
    assert [r["experiment"] for r in json.loads(ablate("list", "9", "--json").output)] == [
        "yolor-d6",
        "y4-p7",
    ]


def test_show_says_what_is_quoted() -> None:
    record = json.loads(ablate("show", "tableA2", "--json").output)
    assert [row["experiment"] for row in record["rows"]][4:6] == ["y4-p6", None]
    output = ablate("show", "A2").output
    assert output.count("quoted, nothing is trained") == 4
    assert "4 times the figure at 640 px" in output
    implicit = ablate("show", "y4-sss.add-fa.mul-pr").output
    assert "Difference to y4-sss" in implicit


def test_tables_without_a_name_are_those_of_the_ablation_study(tmp_path: Path) -> None:
    records = json.loads(ablate("tables", "--format", "json", "--results", str(tmp_path)).stdout)
    assert {record["table"] for record in records} == set("12345678")
    named = ablate("tables", "9", "--results", str(tmp_path), "--format", "json")
    assert {record["table"] for record in json.loads(named.stdout)} == {"9"}


def test_no_source_file_repeats_a_printed_count() -> None:
    import ablations

    root = Path(ablations.__file__).parent.parent
    sources = [p for part in ("ablations", "analysis", "yolor_core") for p in (root / part).rglob("*.py")]
    printed = {str(c["parameters"]) for t in FURTHER[1:] for c in t.paper().values()}
    assert len(printed) == 15
    for source in sources:
        text = source.read_text(encoding="utf-8").replace("_", "").replace(" ", "")
        assert not [number for number in printed if number in text], source
