"""docs/run-directory.md against real runs: every file, key and column, and nothing that is not there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from ablations.registry import resolve
from slurm.files import read_json
from tests.ablations.trained import ablate
from tests.slurm.fake_slurm import FakeSlurm
from tests.test_docs import tables
from yolor_core.data.report import KINDS
from yolor_core.models import create_model, implicit_priors
from yolor_core.runs.directory import RunDirectory

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "run-directory.md").read_text(encoding="utf-8")
NAME = re.compile(r"`([^`]+)`")
ALL_TASKS = """
from ablations.experiments import ADD_FA_FACTORISATION, CLASSIFICATION, CSP, EMBEDDING
SPARSE = ADD_FA_FACTORISATION.model_copy(update={"sparse": 0.1})
EXPERIMENTS = CSP.joint(CLASSIFICATION, "jdc").joint(EMBEDDING, "jde").plus(SPARSE)
"""
TYPES = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float": pa.float32(),
    "text": pa.dictionary(pa.int32(), pa.string()),
    "string": pa.string(),
    "list of float": pa.list_(pa.float32()),
}


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listed(heading: str, first: str) -> dict[str, list[str]]:
    """{name: further cells} of the table below a heading whose first column is called so."""
    (rows,) = [rows for header, rows in tables(sections()[heading]) if header[0] == first]
    found: dict[str, list[str]] = {}
    for cell, *others in rows:
        for name in NAME.findall(cell):
            assert name not in found, f"{name} is documented twice"
            found[name] = others
    return found


def files() -> set[str]:
    """The files and folders of the first table of the page."""
    (rows,) = [rows for header, rows in tables(PAGE) if header[:2] == ["file", "written"]]
    return {name for row in rows for name in NAME.findall(row[0])}


def only(path: Path) -> Path:
    (found,) = path.iterdir()
    return found


def present(run: Path) -> set[str]:
    return {f"{path.name}/" if path.is_dir() else path.name for path in run.iterdir()}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def fits(name: str, documented: set[str]) -> bool:
    patterns = []
    for each in documented:
        pattern = re.escape(each).replace(r"TASK\-TASK", "[a-z]+-[a-z]+").replace("TASK", "[a-z]+")
        patterns.append(pattern)
    return any(re.fullmatch(pattern, name) for pattern in patterns)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a checkpoint and features, trained by a launch."""
    results = tmp_path_factory.mktemp("plain")
    options = ("--profile", "smoke", "--results", results, "--set", "execution.keep_checkpoint=true")
    done = ablate("launch", "csp-fast.add-fa.mul-pr", *options)
    assert done.exit_code == 0, done.output
    run = only(results / "runs")
    assert ablate("features", run, "--results", results).exit_code == 0
    return run


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three tasks with learnt weights and a form that has a penalty."""
    results = tmp_path_factory.mktemp("tasks")
    file = results / "all_tasks.py"
    file.write_text(ALL_TASKS)
    options = ("--profile", "smoke", "--results", results, "--set", "train.tasks.weighting=uncertainty")
    done = ablate("launch", file, *options)
    assert done.exit_code == 0, done.output
    return only(results / "runs")


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped because its loss was not finite."""
    results = tmp_path_factory.mktemp("failed")
    overrides = ("--set", "train.optimiser.lr0=1e30", "--set", "train.epochs=4")
    done = ablate("train", "csp-fast", "--profile", "smoke", "--results", results, *overrides)
    assert done.exit_code == 2 and "not finite" in done.output
    return only(results / "runs")


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with one run that a cluster has."""
    fake = FakeSlurm(tmp_path, monkeypatch)
    here = f"NodeName=n1 NodeAddr=n1 NodeHostName={os.uname().nodename} State=IDLE"
    fake.answer("scontrol", here, to="show node")
    fake.answer("scontrol", "ClusterName = tiny\nMaxArraySize = 1001", to="show config")
    fake.accept(7)
    results = tmp_path / "results"
    options = ("--profile", "smoke", "--cluster", "testbed", "--results", results)
    done = ablate("launch", "csp-fast", *options)
    assert done.exit_code == 0, done.output
    return results


@pytest.mark.slow
def test_every_file_of_a_run_is_documented_and_there(plain: Path, failed: Path, submitted: Path) -> None:
    found = present(plain) | present(failed) | present(only(submitted / "runs"))
    known = {path.name for path in vars(RunDirectory(plain)).values() if path != plain}
    assert found <= files()
    assert files() == found | {RunDirectory(plain).previous_checkpoint.name}
    assert known <= files()


@pytest.mark.slow
def test_run_json(plain: Path, tasks: Path) -> None:
    usual, rare = (listed("`run.json`", f"key{more}").keys() for more in ("", ", not in every run"))
    for run in (plain, tasks):
        assert read(run / "run.json").keys() == usual
    assert rare == {"continues"}
    of_split = listed("`run.json`", "key of a split").keys()
    record = read(plain / "run.json")
    assert {*record["data_report"]} == {"train", "val"}
    for split in record["data_report"].values():
        assert split.keys() == of_split | KINDS.keys()
        assert split["identities"].keys() == {"count", "source", "once", "boxes_without"}
    named = NAME.findall(listed("`run.json`", "key")["levels"][1])
    assert {*record["levels"][0]} == {*named}
    assert {*record["config"]} == {*NAME.findall(listed("`run.json`", "key")["config"][1])}


@pytest.mark.slow
def test_state_json(plain: Path, failed: Path) -> None:
    for run in (plain, failed):
        assert read(run / "state.json").keys() == listed("`state.json`", "key").keys()


@pytest.mark.slow
def test_metrics(plain: Path, tasks: Path, failed: Path) -> None:
    heading = "`metrics.jsonl`"
    usual, rare = ({*listed(heading, f"key{more}")} for more in ("", ", not in every line"))
    twelve = {name for name in rare if re.match("A[PR]", name)}
    assert len(twelve) == 12
    (line,) = (plain / "metrics.jsonl").read_text().splitlines()
    losses = {name for name in rare if name.startswith("val/") and name != "val/tag"}
    assert json.loads(line).keys() == usual | twelve | losses
    (line,) = (failed / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == usual, "an epoch that is not evaluated"
    (line,) = (tasks / "metrics.jsonl").read_text().splitlines()
    more = json.loads(line).keys() - usual
    assert all(fits(name, rare) for name in more), more
    for name in rare:
        assert any(fits(key, {name}) for key in more), f"{name} is in no run"


@pytest.mark.slow
def test_evaluation_json(plain: Path, tasks: Path) -> None:
    usual = listed("`evaluation.json`", "key").keys()
    rare = listed("`evaluation.json`", "key, not in every run")
    assert read(plain / "evaluation.json").keys() == usual
    record = read(tasks / "evaluation.json")
    assert record.keys() == usual | rare.keys()
    for task, (_, what) in rare.items():
        assert {*NAME.findall(what)} == record[task].keys()


@pytest.mark.slow
def test_dataset_json(plain: Path) -> None:
    documented = listed("`dataset.json`", "key of a split")
    record = read(plain / "dataset.json")
    assert {*record} == {"train", "val"}
    classes = len(read(plain / "run.json")["classes"])
    for split in record.values():
        assert split.keys() == documented.keys()
        assert documented["size_edges"][0] == f"pixels ({len(split['size_edges'])},)"
        assert documented["sizes"][0] == f"integers ({len(split['sizes'])}, {len(split['sizes'][0])})"
        assert len(split["boxes_per_class"]) == len(split["images_per_class"]) == classes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detections", "implicit", "effects", "features"])
def test_columns_of_the_tables(plain: Path, name: str) -> None:
    schema = pq.read_schema(plain / f"{name}.parquet")
    documented = listed(f"`{name}.parquet`", "column")
    assert schema.names == list(documented)
    for column in schema.names:
        assert schema.field(column).type == TYPES[documented[column][0]], column


@pytest.mark.slow
def test_checkpoint_and_what_stopped_a_run(plain: Path, failed: Path) -> None:
    heading = "`checkpoint.pt`, `checkpoint.previous.pt`, `checkpoint.sha256`"
    saved = torch.load(plain / "checkpoint.pt", weights_only=True)
    assert saved.keys() == listed(heading, "key").keys()
    assert read(failed / "nonfinite.json").keys() == listed("`nonfinite.json`", "key").keys()


@pytest.mark.parametrize(
    ("slug", "forms"),
    [
        ("csp-fast.add-fa.mul-pr", {"vector"}),
        ("csp-fast.add-fa-network", {"network"}),
        ("csp-fast.add-fa-factorisation", {"factorisation"}),
        ("csp-fast.add-fa-markov", {"markov"}),
    ],
)
def test_priors_have_the_tensors_that_the_page_names(slug: str, forms: set[str]) -> None:
    (rows,) = [rows for header, rows in tables(PAGE) if header[0] == "form"]
    tensors = {row[0]: {*NAME.findall(row[1])} - {"depth"} for row in rows}
    names = implicit_priors(create_model(resolve(slug, "smoke").model, classes=5, identities=9))
    ends = {re.sub(r"\d+", "N", re.sub(r"^.*\.forms\.\d+\.", "", name)) for name in names}
    assert ends == set.union(*(tensors[form] for form in forms))
    assert "implicit.sites.fa.P3.forms.0.z" in names


def test_a_submission_and_the_folder_of_results(submitted: Path) -> None:
    run = only(submitted / "runs")
    token = read_json(run / "submits" / "0001.json") or {}
    assert token.keys() == listed("`submits/`, `planned.json`", "key of a submission").keys()
    assert (read_json(run / "planned.json") or {}).keys() == {"config", "after", "cluster"}
    documented = {name.split("/")[0] for name in listed("The folder of results", "place")}
    there = {path.name for path in submitted.iterdir()}
    assert there <= documented
    assert documented - there == {"report", "published"}
    launch = read_json(only(submitted / "launches") / "launch.json") or {}
    assert {"cluster", "code", "jobs"} <= launch.keys()
    assert (only(submitted / "code") / "snapshot.json").is_file()


@pytest.mark.slow
def test_the_python_of_the_page_runs(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```python") == 4
    space: dict[str, Any] = {"RUN": str(plain), "RESULTS": str(plain.parent.parent)}
    for block in blocks:
        exec(compile(block, "docs/run-directory.md", "exec"), space)
    printed = capsys.readouterr().out
    assert "csp-fast.add-fa.mul-pr 0 " in printed
    assert f"{sum(t.size for t in load_file(plain / 'weights.safetensors').values())} numbers" in printed
    results = space["results"]
    assert len(results) == read(plain / "evaluation.json")["detections"]
    assert results[0].keys() == {"image_id", "category_id", "bbox", "score"} and len(results[0]["bbox"]) == 4
