"""`ablate publish` and `ablate verify` on a study that is trained here: two experiments, two seeds, smoke."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result

from analysis.comparison import stored
from analysis.figures.catalogue import drawings
from analysis.published import check_run as of_a_run
from analysis.published import publish as publishing
from analysis.published.check_run import check_run, of_photographs
from analysis.published.detections import read_detections
from analysis.published.manifest import PublishError, read_manifest, write_manifest
from analysis.published.publish import scrub
from analysis.published.summary import summary
from analysis.published.verify import run_tasks
from analysis.study import Study, open_study
from tests.ablations.trained import ablate
from yolor_core.evaluation.engine import match, score
from yolor_core.runs.directory import RunDirectory

FIGURES = ("effects-by-row", "losses-table-1", "effects-table-1", "evolution-by-seed", "distance-left")


@pytest.fixture(scope="module", autouse=True)
def few_figures() -> Iterator[None]:
    """Five figures instead of all."""

    def few(study: Study) -> list[object]:
        return [each for each in drawings(study) if each.name in FIGURES]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "drawings", few)
        yield


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that publish and are about something else."""
    monkeypatch.setattr(publishing, "drawings", lambda study: [])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs, as training leaves them, but of a clean commit."""
    folder = tmp_path_factory.mktemp("study")
    for experiment in ("csp-fast", "csp-fast.add-fa"):
        for seed in ("0", "1"):
            done = ablate("train", experiment, "--profile", "smoke", "--seed", seed, "--results", folder)
            assert done.exit_code == 0, done.output
    for run in (folder / "runs").iterdir():
        edit(run / "run.json", lambda record: record | {"commit": "c" * 40, "dirty": False, "jobs": ["77"]})
    return folder


def publish_to(out: Path, results: Path, *words: str) -> Result:
    return ablate("publish", "1", "--profile", "smoke", "--results", results, "--out", out, *words)


@pytest.fixture(scope="module")
def published(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "smoke"
    done = publish_to(out, results)
    assert done.exit_code == 0, done.output
    assert "4 runs, 1 table, 5 figures" in done.output
    return out


@pytest.fixture
def mine(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(published, tmp_path / "mine")


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Path:
    """Runs that a test may change."""
    return shutil.copytree(results, tmp_path / "results", ignore=shutil.ignore_patterns("weights*", "logs"))


def edit(path: Path, change: Callable[[dict], dict]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def some_run(folder: Path) -> Path:
    return min((folder / "runs").glob("csp-fast.add-fa-*"))


def test_a_published_study_is_verified(published: Path) -> None:
    done = ablate("verify", published)
    assert done.exit_code == 0, done.output
    assert "COCO's twelve numbers, by pycocotools from the detections: 48 compared, all equal" in done.output
    assert "tables in every format, made again from the runs: 6 compared" in done.output
    assert "data of the figures, and their captions: 10 compared, all equal" in done.output
    assert "DIFFERS" not in done.output and done.output.endswith(f"{published}: verified\n")


def test_the_folder_holds_what_the_page_says_and_no_weights(published: Path) -> None:
    there = {path.name for path in published.iterdir()}
    assert there == publishing.FOLDER.entries - {publishing.PICTURES, publishing.PLANS}  # of some studies
    assert sorted(path.suffix for path in (published / "tables").iterdir()) == sorted(
        (".csv", ".html", ".json", ".md", ".tex", ".txt")
    )
    for run in (published / "runs").iterdir():
        assert {path.name for path in run.iterdir()} == {
            "run.json", "state.json", "metrics.jsonl", "evaluation.json", "detections.parquet",
            "implicit.parquet", "effects.parquet", "dataset.json", "implicit_priors.safetensors",
        }  # fmt: skip
    assert {path.name for path in (published / "figures").iterdir()} == {
        f"{name}.{ending}" for name in FIGURES for ending in ("csv", "svg")
    }


def test_tables_are_those_of_the_runs_that_were_published(published: Path, results: Path) -> None:
    for form, ending in (("csv", "csv"), ("markdown", "md"), ("text", "txt")):
        printed = ablate("tables", "1", "--profile", "smoke", "--results", results, "--format", form)
        assert printed.output == (published / "tables" / f"table-1.{ending}").read_text()


def test_the_summary_says_what_was_measured_and_what_cannot_be_concluded(published: Path) -> None:
    text = (published / "summary.md").read_text()
    assert "| runs | 4 finished, of 2 experiments |" in text and "| seeds | 0, 1 |" in text
    assert (
        f"| commit that trained | {'c' * 40} |" in text and f"torch={torch.__version__.split('+')[0]}" in text
    )
    number = r"\d+\.\d\d ± \d+\.\d\d"
    (row,) = re.findall(
        rf"^\| 1 \| \+ iFA \| {number} \| baseline \| {number} \| 2 \|.*$", text, re.MULTILINE
    )
    assert re.search(
        r"[+-]?\d+\.\d\d \[-?\+?\d+\.\d\d, [+-]?\d+\.\d\d\] \| row \|.*\| (higher|lower|no|inconcl)", row
    )
    assert "What cannot be concluded" in text and "rest on as few as 2 pairs" in text


def test_the_summary_reads_the_controls(results: Path) -> None:
    text = summary(open_study(results, "smoke", ["1", "controls"]))
    assert "\n\n7 comparisons in AP: " in text and "6 without an interval yet" in text
    assert "W (x + a) + b = W x + (b + W a)" in text and "receive the same gradient" in text
    (line,) = re.findall(r"^- \\\+ iFA against baseline: Δ AP .* \(2 pairs\), (.*)$", text, re.MULTILINE)
    assert line.startswith(("inconclusive; differences up to", "higher", "lower", "no effect"))
    assert "- faster bias against + iPR: not measured (without a finished run: faster bias; + iPR)." in text


def test_provenance_names_runs_code_and_packages_of_every_cell(published: Path) -> None:
    lines = pd.read_csv(published / "provenance.csv", dtype=str, keep_default_na=False)
    table = pd.read_csv(published / "tables" / "table-1.csv")
    assert list(zip(lines["row"], lines["metric"], strict=True)) == list(
        zip(table["row"], table["metric"], strict=True)
    )
    cell = lines[(lines["row"] == "+ iFA") & (lines["metric"] == "AP")].iloc[0]
    assert len(cell["runs"].split()) == len(cell["baseline_runs"].split()) == 2
    assert cell["commit"] == "c" * 40 and len(cell["source_hash"]) == len(cell["fingerprint"]) == 64
    assert "torch=" in cell["packages"] and re.match(r"\d\.\d+", cell["python"])


def test_nothing_tells_the_machine(published: Path, results: Path) -> None:
    for path in published.rglob("*.json"):
        text = path.read_text()
        assert str(results) not in text and f'"{socket.gethostname()}"' not in text
        assert not re.search(r'"(host|pid|jobs)":', text), path
    assert '"pid"' in (some_run(results) / "state.json").read_text()


def test_paths_and_names_of_the_machine_are_taken_out_of_texts() -> None:
    value = {
        "config": {"data": {"root": "/home/ada/coco"}, "kind": "coco"},
        "reason": "on node17 as ada: /scratch/ada/runs/x.pt and ~/y are gone; 3/4 of COCO, box [1, 2]",
        "host": "node17",
        "jobs": ["1"],
    }
    assert scrub(value, ["node17", "ada"]) == {
        "config": {"data": {"root": "coco"}, "kind": "coco"},
        "reason": "on - as -: x.pt and y are gone; 3/4 of COCO, box [1, 2]",
    }
    root = "/media/Ada L/My Disk, new/coco"
    said = scrub({"root": root, "source": f"{root}/annotations: 3 of 4"}, [], [root])
    assert said == {"root": "coco", "source": "coco/annotations: 3 of 4"}


def test_coarse_detections_meet_the_same_fate(published: Path, results: Path) -> None:
    annotations, trained = stored(some_run(results))
    path = some_run(published) / "detections.parquet"
    small = read_detections(path)
    assert path.stat().st_size < 0.8 * (some_run(results) / "detections.parquet").stat().st_size
    assert np.array_equal(trained.scores, small.scores)
    assert not np.array_equal(trained.boxes, small.boxes)
    a, b = match(annotations, trained), match(annotations, small)
    assert np.array_equal(a.true, b.true) and np.array_equal(a.false, b.false)
    assert score(a) == score(b)


def test_publishing_again_gives_the_same_bytes_in_the_same_place(
    mine: Path, published: Path, results: Path
) -> None:
    (mine / "summary.md").write_text("older")
    assert publish_to(mine, results).exit_code == 0
    assert read_manifest(mine) == read_manifest(published)
    (mine / "thesis.tex").write_text("years of work")
    done = publish_to(mine, results)
    assert done.exit_code == 2 and "holds thesis.tex, which is no part of a published folder" in done.stderr


# A changed number is found, whichever file it is in.


def change_json(name: str, *keys: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        content = json.loads((run / name).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        value = inner[keys[-1]]
        inner[keys[-1]] = value + 1e-9 if isinstance(value, float) else value + 1
        (run / name).write_text(json.dumps(content))

    return change


def change_metrics(run: Path) -> None:
    lines = RunDirectory(run).read_metrics()
    lines[-1]["AP50"] += 1e-9
    RunDirectory(run).write_metrics(lines)


def change_losses(run: Path) -> None:
    lines = RunDirectory(run).read_metrics()
    lines[0]["loss/box"] *= 1.1
    RunDirectory(run).write_metrics(lines)


def change_implicit(run: Path) -> None:
    table = pd.read_parquet(run / "implicit.parquet")
    table.loc[table.index[-1], "value"] += np.float32(1)
    table.to_parquet(run / "implicit.parquet")


def change_detections(run: Path) -> None:
    table = pq.read_table(run / "detections.parquet")
    place = table.column_names.index("x")
    moved = table["x"].to_numpy() + 20  # pixels
    pq.write_table(table.set_column(place, "x", [moved]), run / "detections.parquet")


def drop_detections(run: Path) -> None:
    (run / "detections.parquet").unlink()


def change_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A digit, or what `old` matches, is another one in a text of the folder that the run is in."""

    def change(run: Path) -> None:
        path = run.parents[1] / name
        text, count = re.subn(old, new, path.read_text(), count=1, flags=re.MULTILINE)
        assert count == 1
        path.write_text(text)

    return change


change_table = change_text("tables/table-1.csv", r"(?<=,)(\d+\.\d)", r"1\1")
change_verdict = change_text("summary.md", r"^(\| 1 \| \+ iFA \| )", r"\g<1>1")
change_provenance = change_text("provenance.csv", "c" * 40, "d" * 40)
change_figure = change_text("figures/effects-by-row.csv", r"\Z", "1,2,3\n")

OF_A_RUN = {
    "AP": (change_json("evaluation.json", "detection", "AP"), "COCO's twelve numbers"),
    "AR": (change_json("evaluation.json", "detection", "AR100"), "COCO's twelve numbers"),
    "AP of a class": (change_json("evaluation.json", "per_class", "disc"), "AP of each class"),
    "number of detections": (change_json("evaluation.json", "detections"), "images and detections"),
    "epochs": (change_json("state.json", "epoch"), "scores of the last epoch"),
    "metrics": (change_metrics, "scores of the last epoch"),
    "detections": (change_detections, "COCO's twelve numbers"),
    "no detections": (drop_detections, "COCO's twelve numbers"),
    "configuration": (
        change_json("run.json", "config", "science", "train", "batch"),
        "signatures and run ids",
    ),
    "seed": (change_json("run.json", "seed"), "signatures and run ids"),
    "data": (change_json("run.json", "config", "data", "seed"), "data fingerprints"),
    "boxes of the data": (change_json("dataset.json", "val", "images"), "images and boxes of the data"),
}
OF_THE_TEXTS = {
    "a loss": (change_losses, "data of the figures"),
    "an implicit value": (change_implicit, "data of the figures"),
    "table": (change_table, "tables in every format"),
    "table in JSON": (
        change_text("tables/table-1.json", r'("value": )', r"\g<1>1"),
        "tables in every format",
    ),
    "summary": (change_verdict, "verdicts"),
    "provenance": (change_provenance, "where each cell comes from"),
    "figure": (change_figure, "data of the figures"),
    "caption of a figure": (
        change_text("figures/effects-by-row.svg", r"the 95 % interval", "the 99.5 % interval"),
        "data of the figures",
    ),
    "no figure": (
        lambda run: (run.parents[1] / "figures" / "effects-by-row.svg").unlink(),
        "data of the figures",
    ),
}


@pytest.mark.parametrize("what", OF_A_RUN)
def test_a_number_that_changed_in_a_run_is_found(mine: Path, what: str) -> None:
    change, named = OF_A_RUN[what]
    assert not any(check.differences for check in check_run(some_run(mine)))
    change(some_run(mine))
    lines = [check.line for check in check_run(some_run(mine))]
    assert any(line.startswith(f"DIFFERS {named}") for line in lines), lines


@pytest.mark.parametrize("what", OF_THE_TEXTS)
def test_a_tampered_number_is_found_even_with_a_new_manifest(mine: Path, what: str) -> None:
    change, named = OF_THE_TEXTS[what]
    change(some_run(mine))
    write_manifest(mine, read_manifest(mine)[0])
    done = ablate("verify", mine)
    assert done.exit_code == 1
    assert f"DIFFERS {named}" in done.output
    assert "ok      files" in done.output and re.search(r"mine: \d+ differences?$", done.output.strip())


@pytest.mark.parametrize("change", [change_table, change_verdict, change_provenance, change_figure])
def test_another_version_of_the_code_excuses_no_number(mine: Path, change: Callable[[Path], None]) -> None:
    reword(mine)
    change(some_run(mine))
    other_version(mine)
    done = ablate("verify", mine)
    assert done.exit_code == 1 and "DIFFERS" in done.output


def other_version(folder: Path) -> None:
    """As if another version of the code had published it."""
    edit(folder / "manifest.json", lambda m: m | {"made from": m["made from"] | {"sources": "0" * 64}})
    write_manifest(folder, read_manifest(folder)[0])


def reword(folder: Path) -> None:
    path = folder / "tables" / "table-1.md"
    path.write_text(path.read_text().replace("Feature alignment", "Aligning the features"))


def test_other_words_are_a_difference_only_from_the_same_code(mine: Path) -> None:
    reword(mine)
    write_manifest(mine, read_manifest(mine)[0])
    same = ablate("verify", mine)
    assert same.exit_code == 1 and "DIFFERS tables in every format" in same.output
    other_version(mine)
    done = ablate("verify", mine)
    assert done.exit_code == 0 and "WORDING tables in every format" in done.output
    assert re.search(r"Aligning the features.* is published, .Feature alignment.* was found", done.output)
    last = done.output.strip().splitlines()[-1]
    assert "mine: verified; 1 place is worded or laid out otherwise by this version of the code" in last


def test_a_last_digit_that_another_processor_sums_otherwise_is_no_difference(mine: Path) -> None:
    for run in (mine / "runs").iterdir():
        evaluation = json.loads((run / "evaluation.json").read_text())
        scores = {k: float(np.nextafter(v, 1)) for k, v in evaluation["detection"].items() if v is not None}
        edit(run / "evaluation.json", lambda e, s=scores: e | {"detection": e["detection"] | s})
        edit(run / "state.json", lambda e, s=scores: e | {"ap": s["AP"]})
        lines = RunDirectory(run).read_metrics()
        lines[-1] |= {key: value for key, value in scores.items() if key in lines[-1]}
        RunDirectory(run).write_metrics(lines)
    write_manifest(mine, read_manifest(mine)[0])
    done = ablate("verify", mine)
    assert done.exit_code == 0, done.output


def test_the_last_line_says_that_scores_were_not_made_again_without_the_dataset(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_a_run, "_images", lambda data: None)
    done = ablate("verify", mine, "--processes", "1")
    assert done.exit_code == 0
    assert "COCO's twelve numbers, by pycocotools from the detections: none compared; 48 not" in done.output
    last = done.output.strip().splitlines()[-1]
    assert re.search(r"mine: verified but for \d+ values not re-derived \(.*the dataset is not here", last)


@pytest.mark.usefixtures("no_figures")
def test_photographs_are_read_where_data_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("--train-images", "16", "--val-images", "8", "--size", "64")
    for seed in ("0", "1"):
        assert ablate("data", "make", tmp_path / f"here/p{seed}", "--seed", seed, *few).exit_code == 0
    photographs, results, out = tmp_path / "here" / "p0", tmp_path / "r", tmp_path / "out"
    words = ("--profile", "smoke", "--results", results)
    done = ablate("train", "csp-fast", *words, "--data", photographs)
    assert done.exit_code == 0, done.output
    done = ablate("publish", "1", *words, "--out", out, "--dirty")
    assert done.exit_code == 0, done.output
    shown = pd.read_csv(out / "validation-images.csv").set_index("image_id")["file_name"]
    said = json.loads((photographs / "annotations" / "instances_val.json").read_text())["images"]
    assert shown.to_dict() == {image["id"]: image["file_name"] for image in said} and len(shown) == 8
    done = ablate("publish", "1", "--profile", "smoke", "--results", out, "--out", tmp_path / "on", "--dirty")
    assert done.exit_code == 0, done.output
    assert all((folder / "validation-images.csv").is_file() for folder in (out, tmp_path / "on"))
    monkeypatch.chdir(tmp_path)  # where no folder is called p0
    for data, code, said in (
        ((), 0, "COCO's twelve numbers, by pycocotools from the detections: none compared; 12 not"),
        ((), 0, "the dataset is not here; --data PATH names it"),
        (("--data", photographs), 0, "by pycocotools from the detections: 12 compared, all equal"),
        (("--data", photographs), 0, "out: verified\n"),
        (("--data", tmp_path / "here" / "p1"), 1, "DIFFERS data fingerprints"),
        (("--data", tmp_path / "none"), 2, "none: no such folder"),
    ):
        done = ablate("verify", out, "--processes", "1", *data)
        assert (done.exit_code, said in done.output + done.stderr) == (code, True), done.output
    shown = (out / "validation-images.csv").read_text().splitlines()
    (out / "validation-images.csv").write_text("\n".join([shown[0], *reversed(shown[1:])]) + "\n")
    write_manifest(out, read_manifest(out)[0])
    done = ablate("verify", out, "--processes", "1", "--data", photographs)
    assert done.exit_code == 1 and "validation-images.csv: image_id" in done.output


def test_photographs_are_found_in_the_splits_that_were_trained_on(tmp_path: Path) -> None:
    photographs, run = tmp_path / "photographs", tmp_path / "runs" / "a"
    (photographs / "annotations").mkdir(parents=True), run.mkdir(parents=True)
    for split in ("train", "val", "traina", "valb"):
        (photographs / "annotations" / f"instances_{split}.json").write_text("{}")

    def found(train: str, val: str) -> list[tuple[str, str]]:
        data = {"kind": "coco", "train": train, "val": val}
        (run / "run.json").write_text(json.dumps({"config": {"data": data}}))
        return [(each.train, each.val) for each in of_photographs([run], photographs)]

    assert found("traina", "valb") == [("traina", "valb")]
    assert found("train2017", "val2017") == [("train", "val")]
    (run / "run.json").write_text("{")
    assert [(each.train, each.val) for each in of_photographs([run], photographs)] == [("train", "val")]


def test_settings_that_the_tables_have_no_more_are_said_with_the_commit(mine: Path) -> None:
    for run in (mine / "runs").iterdir():
        edit(run / "run.json", lambda record: record | {"signature": "0" * 64})
    done = ablate("verify", mine)
    commit = read_manifest(mine)[0].commit or "of provenance.csv"
    assert done.exit_code == 1 and f"check out commit {commit}" in done.output


def test_any_other_change_of_a_file_is_found_by_its_hash(mine: Path) -> None:
    (some_run(mine) / "dataset.json").write_text("{}")
    (mine / "runs" / "more.txt").write_text("more")
    next((mine / "figures").glob("*.svg")).unlink()
    done = ablate("verify", mine)
    assert done.exit_code == 1
    for said in ("dataset.json:", "runs/more.txt is not in manifest.json", ".svg is missing"):
        assert said in done.output


def test_damaged_files_are_differences_and_not_the_end_of_the_check(mine: Path) -> None:
    some_run(mine).joinpath("detections.parquet").write_bytes(b"PAR1")
    max((mine / "runs").glob("csp-fast-*")).joinpath("run.json").write_text("{")
    done = ablate("verify", mine)
    assert done.exit_code == 1, done.output
    assert re.search(r"csp-fast-smoke-s\w+-\w+/run\.json cannot be read: not JSON", done.output)
    assert f"{some_run(mine).name}/detections.parquet cannot be read: " in done.output
    assert "DIFFERS tables in every format" in done.output and "Remove the file" not in done.output


def test_a_manifest_chooses_no_python_file_that_is_run(mine: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edit(mine / "manifest.json", lambda m: m | {"made from": m["made from"] | {"tables": [str(file)]}})
    done = ablate("verify", mine)
    assert done.exit_code == 2 and "is a file; only tables with a name" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_damaged_or_missing_manifest_is_named(published: Path, tmp_path: Path) -> None:
    manifest = json.loads((published / "manifest.json").read_text())
    for change, said in (
        ({"files": []}, "lacks or misnames a field"),
        ({"files": {"a": 3}}, "lacks or misnames a field"),
        ({"made from": 3}, "lacks or misnames a field"),
        ({"made from": {"profile": "mini", "tables": ["99"]}}, "names what this version of the code has not"),
        ({"made from": {"profile": "huge", "tables": ["1"]}}, "names what this version of the code has not"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | change))
        done = ablate("verify", tmp_path)
        assert done.exit_code == 2 and f"manifest.json {said}" in done.stderr.replace("\n", " ")
    (tmp_path / "manifest.json").unlink()
    done = ablate("verify", tmp_path)
    assert done.exit_code == 2 and "was not made by `ablate publish`" in done.stderr
    done = ablate("verify", tmp_path / "nowhere")
    assert done.exit_code == 2 and "there is no folder" in done.stderr


def test_runs_are_checked_the_same_by_several_processes(mine: Path) -> None:
    change_metrics(some_run(mine))
    tasks = [(check_run, path) for path in sorted((mine / "runs").glob("*-s0-*"))]
    found = [[check.line for run in run_tasks(tasks, processes) for check in run] for processes in (1, 2)]
    assert found[0] == found[1] and sum("DIFFERS" in line for line in found[0]) == 1


# What is published, and what is done with it.


def test_photographs_are_not_published(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic = open_study(results, "smoke", ["1"])
    everything = synthetic.everything.assign(data="folder coco, train2017/val2017")
    photographs = open_study(results, "smoke", ["1"], everything=everything)
    monkeypatch.setattr(publishing, "drawings", drawings)
    names = [{d.name for d in publishing.published_drawings(s)} for s in (synthetic, photographs)]
    assert names[0] - names[1] == {"differences", "changed-images", "detections"}


@pytest.mark.usefixtures("no_figures")
def test_seeds_that_have_not_finished_are_refused_unless_allowed(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = publish_to(out, results, "--seeds", "3")
    said = done.stderr.replace("\n", " ")
    assert done.exit_code == 2 and "2 runs have not finished: csp-fast seed 2, csp-fast.add-fa seed 2" in said
    assert publish_to(out, results, "--seeds", "3", "--incomplete").exit_code == 0
    assert "Runs that have not finished (2): csp-fast seed 2" in (out / "summary.md").read_text()
    assert ablate("verify", out).exit_code == 0


def test_a_published_study_gets_more_seeds_from_another_folder(
    results: Path, published: Path, tmp_path: Path
) -> None:
    """In several sittings the folder becomes, to the byte, what one sitting publishes."""
    for name, seed in (("first", "0"), ("second", "1")):
        (tmp_path / name / "runs").mkdir(parents=True)
        for run in (results / "runs").glob(f"*-s{seed}-*"):
            shutil.copytree(run, tmp_path / name / "runs" / run.name)
    out = tmp_path / "smoke"
    assert publish_to(out, tmp_path / "first").exit_code == 0
    done = publish_to(out, tmp_path / "second", "--with", str(out), "--seeds", "2")
    assert done.exit_code == 0, done.output
    assert "4 runs" in done.output

    def bytes_of(folder: Path) -> dict[str, bytes]:
        files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
        return {name: p.read_bytes() for name, p in files.items() if name != "manifest.json"}

    assert bytes_of(out) == bytes_of(published)


@pytest.mark.usefixtures("no_figures")
def test_a_worse_copy_of_a_published_run_does_not_take_its_place(
    copied: Path, published: Path, tmp_path: Path
) -> None:
    for number, run in enumerate(sorted((copied / "runs").glob("*-s0-*"))):
        (run / "run.json").unlink() if number else edit(run / "state.json", lambda v: v | {"state": "failed"})
    done = publish_to(tmp_path / "out", copied, "--with", str(published), "--seeds", "2")
    assert done.exit_code == 0, done.output
    assert "4 runs of " in done.output and ", 0 runs of " in done.output
    assert "1 run folder cannot be read" in done.stderr
    there = {p.name for p in (tmp_path / "out" / "runs").iterdir()}
    assert there == {p.name for p in (published / "runs").iterdir()}


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_was_lost_when_it_was_published_is_taken_from_where_it_has_finished(
    copied: Path, results: Path, published: Path, tmp_path: Path
) -> None:
    lost = some_run(copied)
    edit(lost / "state.json", lambda v: v | {"state": "failed"})
    earlier = tmp_path / "earlier"
    assert publish_to(earlier, copied, "--incomplete").exit_code == 0
    assert sorted(p.name for p in (earlier / "runs" / lost.name).iterdir()) == ["run.json", "state.json"]
    done = publish_to(tmp_path / "out", results, "--with", str(earlier))
    assert done.exit_code == 0, done.output
    again, whole = (folder / "runs" / lost.name for folder in (tmp_path / "out", published))
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }


def with_other_scores(study: Path, earlier: Path) -> None:
    for run in (study / "runs").glob("csp-fast-*"):
        edit(run / "evaluation.json", lambda v: v | {"detection": v["detection"] | {"AP": 0.5}})


def with_an_edited_file(study: Path, earlier: Path) -> None:
    edit(next((earlier / "runs").glob("csp-fast-*")) / "state.json", lambda v: v | {"ap": 0.9})


def with_a_plan(study: Path, earlier: Path) -> None:
    (earlier / "stopping").mkdir()
    (earlier / "stopping" / "a.json").write_text("{}")
    write_manifest(earlier, read_manifest(earlier)[0])


def without_a_manifest(study: Path, earlier: Path) -> None:
    (earlier / "manifest.json").unlink()


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (with_other_scores, (), "has other scores in"),
        (with_an_edited_file, (), "is not as it was published: runs/csp-fast-"),
        (with_a_plan, (), "seeds were added by a rule"),
        (without_a_manifest, (), "its manifest.json is missing"),
        (lambda *_: None, ("--grid", "0"), "was published with --every 4 --grid 4"),
    ],
)
def test_what_cannot_join_is_refused(
    copied: Path,
    published: Path,
    tmp_path: Path,
    change: Callable[[Path, Path], None],
    words: tuple[str, ...],
    said: str,
) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(published, earlier)
    change(copied, earlier)
    refused = publish_to(tmp_path / "out", copied, "--with", str(earlier), *words)
    assert refused.exit_code == 2
    assert said in refused.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_adds_nothing_is_named(results: Path, published: Path, tmp_path: Path) -> None:
    other = Path("results/published/mini")
    refused = publish_to(tmp_path / "out", results, "--with", str(other))
    assert refused.exit_code == 2
    assert "none of its runs is behind these tables at smoke" in refused.stderr.replace("\n", " ")


@pytest.mark.usefixtures("no_figures")
def test_a_run_of_another_commit_does_not_join_a_published_study(
    copied: Path, published: Path, tmp_path: Path
) -> None:
    for run in (copied / "runs").iterdir():
        edit(run / "run.json", lambda record: record | {"commit": "d" * 40})
    for run in (copied / "runs").glob("*-s0-*"):
        shutil.rmtree(run)
    shutil.copytree(published, tmp_path / "other")
    for run in (tmp_path / "other" / "runs").glob("*-s1-*"):
        shutil.rmtree(run)
    write_manifest(tmp_path / "other", read_manifest(tmp_path / "other")[0])
    refused = publish_to(tmp_path / "out", copied, "--with", str(tmp_path / "other"))
    assert refused.exit_code == 2
    assert "the runs are of different commits" in refused.output


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("change", "words", "said", "allowed"),
    [
        ({"dirty": True}, (), "1 of 4 runs are of code that is in no commit", "--dirty"),
        ({"dirty": None, "commit": None}, ("--mixed",), "1 of 4 runs do not say which commit", "--dirty"),
        ({"commit": "d" * 40}, (), "different commits: cccccccccc (3 runs", "--mixed"),
        ({"source_hash": "d" * 64}, (), "different yolor_core sources", "--mixed"),
    ],
)
def test_runs_of_unclear_code_are_refused_unless_allowed(
    copied: Path, tmp_path: Path, change: dict, words: tuple[str, ...], said: str, allowed: str
) -> None:
    edit(some_run(copied) / "run.json", lambda record: record | change)
    out = tmp_path / "out"
    done = publish_to(out, copied, *words)
    assert done.exit_code == 2 and said in done.stderr.replace("\n", " ")
    assert not out.exists()
    assert publish_to(out, copied, *words, allowed).exit_code == 0
    named = [(out / name).read_text() for name in ("summary.md", "provenance.csv")]
    assert all(("c" * 40 + "-dirty" in text) == (change.get("dirty") is True) for text in named)
    assert ablate("verify", out).exit_code == 0


def test_a_damaged_run_is_not_published(copied: Path, tmp_path: Path) -> None:
    (some_run(copied) / "implicit.parquet").write_bytes(b"PAR1")
    done = publish_to(tmp_path / "out", copied)
    assert done.exit_code == 2 and "implicit.parquet cannot be read" in done.stderr
    assert os.listdir(tmp_path) == ["results"]


def test_what_cannot_be_published_is_named(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = publish_to(out, results, "--seeds", "7,")
    assert done.exit_code == 2 and "no finished runs of tables 1 at profile smoke with seeds 7" in done.stderr
    done = ablate("publish", "mine.py", "--out", out)
    assert done.exit_code == 2 and "mine.py is a file" in done.stderr
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    done = publish_to(out, results)
    assert done.exit_code == 2 and "was not made by `ablate publish`" in done.stderr
    assert os.listdir(out) == ["thesis.tex"] and os.listdir(tmp_path) == ["out"]


@pytest.mark.usefixtures("no_figures")
def test_too_much_is_refused_and_the_largest_files_are_named(
    results: Path, published: Path, tmp_path: Path
) -> None:
    made = read_manifest(published)[0]
    with pytest.raises(PublishError, match=r"more than 0\.01 MB; largest: \S+\.json \(0\.01 MB\)"):
        publishing.publish(open_study(results, "smoke", ["1"]), made, tmp_path / "out", most=10_000)
    assert os.listdir(tmp_path) == []


def test_nothing_is_trained_or_written_into_a_published_study(mine: Path) -> None:
    before = publishing.contents(mine)
    for command in (
        ("launch", "1", "--profile", "smoke", "--seeds", "2"),
        ("launch", "1", "--profile", "smoke", "--dry-run"),
        ("launch", "1", "--profile", "smoke", "--dry-run", "--cluster", "testbed"),
        ("train", "csp-fast", "--profile", "smoke"),
    ):
        done = ablate(*command, "--results", mine)
        assert done.exit_code == 2 and "is a published study, which nothing is trained into" in done.stderr
    report = ablate("report", "1", "--profile", "smoke", "--results", mine)
    assert report.exit_code == 2 and "name another --out" in report.stderr
    assert publishing.contents(mine) == before


def test_the_status_of_published_runs_is_done_unless_more_than_weights_is_lost(mine: Path) -> None:
    assert "4 runs: 4 done" in ablate("status", "--results", mine).stdout
    (some_run(mine) / "evaluation.json").unlink()
    assert "4 runs: 3 done, 1 incomplete" in ablate("status", "--results", mine).stdout


def test_published_runs_and_files_are_compared_as_their_originals(
    results: Path, published: Path, tmp_path: Path
) -> None:
    found = (next((published / "runs").glob(f"csp-fast{form}-smoke-s0-*")) for form in ("", ".add-fa"))
    pair = [run.name for run in found]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(stored(published / "runs" / pair[0])[0]))
    files = [published / "runs" / name / "detections.parquet" for name in pair]
    words = ("--resamples", "100", "--json")
    made = [
        ablate("compare", *pair, "--results", results, *words),
        ablate("compare", *pair, "--results", published, *words),
        ablate("compare", *files, "--truth", truth, *words),
    ]
    assert [done.exit_code for done in made] == [0, 0, 0], [done.output for done in made]
    original, *others = (json.loads(done.stdout)["metrics"] for done in made)
    assert others == [original, original]
