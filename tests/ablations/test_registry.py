"""Every row of Tables 1-8 resolves, and the same training is the same run wherever it appears."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ablations.experiments import CSP_FAST, Experiment
from ablations.profiles import PROFILES
from ablations.registry import (
    experiment_named,
    experiments,
    merge,
    paper,
    resolve,
    select,
    table_named,
    tables,
)
from ablations.table import Row, Table
from yolor_core.config import ImplicitConfig, RunConfig, leaves
from yolor_core.errors import ConfigError, UnknownNameError
from yolor_core.identity import signature

ROWS = [(table, row) for table in paper().tables for row in table.rows]
IDS = [f"{table.name}-{row.label}" for table, row in ROWS]


def test_tables_are_those_of_the_paper() -> None:
    assert {name: len(table.rows) for name, table in tables().items()} == {
        "1": 2, "2": 2, "3": 5, "4": 6, "5": 3, "6": 4, "7": 4, "8": 3,
    }  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("table", "row"), ROWS, ids=IDS)
def test_every_row_resolves_and_survives_json(table: Table, row: Row, profile: str) -> None:
    science = resolve(row.experiment.slug, profile)
    assert science.profile == profile
    config = RunConfig(experiment=row.experiment.slug, seed=3, science=science, data=PROFILES[profile].data)
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("profile", PROFILES)
def test_29_rows_are_19_trainings(profile: str) -> None:
    assert len(ROWS) == 29
    signatures = [signature(resolve(row.experiment, profile)) for _, row in ROWS]
    assert len(set(signatures)) == len(experiments()) == 19


@pytest.mark.parametrize("slug", sorted(set(experiments()) - {"csp-fast", "csp", "p6-light"}))
def test_a_variant_differs_from_its_baseline_by_what_its_name_says(slug: str) -> None:
    base = slug.split(".")[0]
    variant, baseline = (dict(leaves(resolve(name, "mini"))) for name in (slug, base))
    fields = {name for name in variant.keys() | baseline.keys() if variant.get(name) != baseline.get(name)}
    allowed: tuple[str, ...] = ("model.implicit", "model.branches")
    if slug.endswith(".finetuned"):
        allowed = (*allowed, "train.phases.1.", "train.phases.2.")
    assert fields
    assert all(name.startswith(allowed) for name in fields), fields


def test_paper_models_are_the_mish_baselines_at_the_papers_sizes() -> None:
    found = {e.science.model.architecture: e.science.train.size for e in experiments().values()}
    assert found == {"yolov4_csp_fast": 640, "yolov4_csp_mish": 640, "yolov4_p6_light": 1280}


def test_fine_tuning_continues_the_implicit_run() -> None:
    tuned = experiment_named("p6-light.add-fa.mul-pr.finetuned")
    first = experiment_named("p6-light.add-fa.mul-pr")
    assert tuned.continues == first.slug
    phases = tuned.science.train.phases
    assert phases[:1] == first.science.train.phases
    assert [p.epochs for p in phases] == [300, 125, 25]
    assert [p.schedule_epochs for p in phases] == [300, 450, 450]
    assert [p.augment.mosaic_images for p in phases] == [4, 9, 4]
    assert [p.start_from_average for p in phases] == [False, True, True]
    assert (phases[1].augment.scale, phases[1].augment.mixup) == (0.8, 0.2)
    table = table_named("8")
    assert [row.epochs for row in table.rows] == [300, 300, 150]


def test_implicit_rows_compare_with_the_row_they_change_in_the_implicit_part_alone() -> None:
    table = table_named("3")
    against = {row.label: table.baseline(row).label for row in table.rows}
    assert against["+ iJDC"] == "JDC"
    assert against["+ iJDE"] == "JDE"
    assert {against[label] for label in ("baseline", "JDC", "JDE")} == {"baseline"}
    seven = table_named("7")
    assert [seven.baseline(row).label for row in seven.rows] == ["baseline 1"] * 2 + ["baseline 2"] * 2


@pytest.mark.parametrize("name", ["4", "table4", "Table 4", "TABLE-4"])
def test_tables_have_two_names(name: str) -> None:
    assert table_named(name) is tables()["4"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: resolve("csp-fast.add-af", "mini"),
            "unknown experiment 'csp-fast.add-af'; did you mean csp-fast.add-fa",
        ),
        (lambda: resolve("csp", "mnii"), "unknown profile 'mnii'; allowed: mini"),
        (lambda: table_named("10"), "unknown table '10'; allowed: 1"),
        (lambda: select(["tabel4"]), "unknown experiment or table 'tabel4'; did you mean table4"),
        (
            lambda: Table("x", "x", (Row("b", CSP_FAST, ""),), metrics=("AP95",)),
            "unknown metric 'AP95'; did you mean AP",
        ),
        (lambda: Table("x", "x", (Row("b", CSP_FAST, "", against="c"),)), "'c'; allowed: b"),
    ],
)
def test_unknown_names_list_the_nearest(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        call()
    assert message in str(caught.value)


def test_one_slug_cannot_stand_for_two_trainings() -> None:
    strong = CSP_FAST.plus(ImplicitConfig(site="fa", operator="add", std=0.2))
    with pytest.raises(ConfigError, match=r"csp-fast\.add-fa"):
        merge([*experiments().values(), strong])


@pytest.mark.parametrize("slug", ["", "CSP", "csp fast", "csp/fast", "../csp", "csp..fast", "csp_fast", "×"])
def test_slugs_are_safe_in_file_names(slug: str) -> None:
    with pytest.raises(ConfigError, match="slug"):
        Experiment(slug, "title", CSP_FAST.science)


def test_selection_keeps_order_and_repeats_nothing() -> None:
    selection = select(["2", "csp", "table1", "2"])
    assert [table.name for table in selection.tables] == ["2", "1"]
    assert [e.slug for e in selection.experiments] == [
        "csp-fast",
        "csp-fast.add-pr",
        "csp",
        "csp-fast.add-fa",
    ]
    assert selection.named == {"csp"}
