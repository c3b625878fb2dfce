"""The run store becomes one DataFrame, whatever state its runs are in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from ablations.cli import main
from analysis.runs import COLUMNS, load_runs, seconds_added

Fabricate = Callable[..., str]
PUBLISHED = Path(__file__).parents[2] / "results" / "published" / "mini"


def test_an_absent_store_is_an_empty_frame(tmp_path: Path) -> None:
    frame = load_runs(tmp_path / "nothing")
    assert list(frame.columns) == list(COLUMNS)
    assert frame.empty


def test_a_finished_run_has_identity_progress_and_metrics(tmp_path: Path, fabricate: Fabricate) -> None:
    name = fabricate("csp-fast.add-fa", seed=2, ap=0.25, APL=None)
    (row,) = load_runs(tmp_path).to_dict("records")
    known = (row["run"], row["experiment"], row["seed"], row["profile"])
    assert known == (name, "csp-fast.add-fa", 2, "mini")
    assert (row["state"], row["epoch"], row["epochs"], row["seconds"]) == ("done", 3, 24, 9.5)
    assert (row["AP"], row["AP50"]) == (25, 26)
    assert pd.isna(row["APL"])
    assert row["data"] == "shapes, 640 + 500 images"
    assert Path(row["path"]).name == name


def test_a_folder_of_photographs_is_called_by_its_own_name(tmp_path: Path, fabricate: Fabricate) -> None:
    path = tmp_path / "runs" / fabricate("csp-fast") / "run.json"
    record = json.loads(path.read_text())
    record["config"]["data"] = {"kind": "coco", "root": "/home/me/shapes-8/", "train": "a", "val": "b"}
    path.write_text(json.dumps(record))
    assert load_runs(tmp_path)["data"].tolist() == ["folder shapes-8, a/b"]


def test_size_limits_that_are_not_cocos_are_named(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", ap=0.2, scores={"size_limits": [32, 96]})
    fabricate("csp-fast.add-fa", ap=0.2, scores={"size_limits": [6.4, 19.2]})
    data = load_runs(tmp_path).set_index("experiment")["data"]
    assert data["csp-fast"] == "shapes, 640 + 500 images"
    own = "shapes, 640 + 500 images, small below 6.4², large from 19.2² pixels"
    assert data["csp-fast.add-fa"] == own


def test_scores_of_every_task_are_columns_and_the_cosine_is_a_mean(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    tags, people = {"mAP": 0.5, "F1_micro": 0.6, "F1_macro": 0.4}, {"recall@1": 0.7, "mAP": 0.3, "AUC": 0.8}
    fabricate("csp.classification-alone", scores={"classification": tags})
    one, two = "conflict/detection-classification", "conflict/detection-embedding"
    fabricate("csp.jdc", scores={"classification": tags}, cosines=({one: -0.2}, {one: 0.1}, {}))
    pairs = ({two: 0.1, "conflict/classification-embedding": 0.4, "loss/id": 9.0},)
    fabricate("csp.jde", ap=0.38, scores={"embedding": people}, cosines=pairs)
    runs = load_runs(tmp_path).set_index("experiment")
    alone, joint = runs.loc["csp.classification-alone"], runs.loc["csp.jde"]
    assert (alone["cls mAP"], alone["cls F1 micro"], alone["cls F1 macro"]) == (50, 60, 40)
    assert alone[["AP", "AR100", "emb mAP", "task cosine"]].isna().all()
    assert (joint["AP"], joint["emb recall@1"], joint["emb mAP"], joint["emb AUC"]) == (38, 70, 30, 80)
    assert pd.isna(joint["cls mAP"])
    # Epochs without a cosine do not count, and pairs of tasks count alike.
    assert runs["task cosine"][["csp.jdc", "csp.jde"]].tolist() == pytest.approx([(-0.2 + 0.1) / 2, 0.25])


def test_a_damaged_metrics_file_of_a_joint_run_is_told(tmp_path: Path, fabricate: Fabricate) -> None:
    names = fabricate("csp.jde", scores={"embedding": {"mAP": 0.3}}), fabricate("csp")
    for run in names:
        (tmp_path / "runs" / run / "metrics.jsonl").write_text("{")
    runs = load_runs(tmp_path).set_index("run")
    assert runs.loc[names[0], "state"] == "unreadable"
    assert "metrics.jsonl" in str(runs.loc[names[0], "reason"])
    assert runs.loc[names[1], "AP"] == 40  # a model of one task has no cosine, and the file is not read


def test_queued_unreadable_and_stray_entries_do_not_stop_the_others(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    done = fabricate("csp-fast")
    runs = tmp_path / "runs"
    (runs / "queued").mkdir()
    (runs / "queued" / "state.json").write_text('{"state": "queued"}')
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text('{"run": ')
    (runs / "listed").mkdir()
    (runs / "listed" / "run.json").write_text("[]")
    (runs / "empty").mkdir()
    (runs / "note.txt").write_text("not a run")
    frame = load_runs(tmp_path).set_index("run")
    assert set(frame.index) == {done, "queued", "broken", "listed", "empty"}
    assert frame.loc[done, "AP"] == 40
    assert frame.loc["queued", "state"] == "queued"
    assert frame.loc["broken", "state"] == "unreadable"
    assert "Expecting value" in str(frame.loc["broken", "reason"])
    assert pd.isna(frame.loc["empty", "state"])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("evaluation.json", '{"detection": {"AP": "x"}}', "AP is 'x'"),
        ("evaluation.json", '{"detection": [1]}', "list"),
        ("evaluation.json", "{", "evaluation.json cannot be read: not JSON"),
        ("state.json", "[1]", "state.json cannot be read: holds a list"),
        ("run.json", '{"signature": "s", "config": {"seed": "x"}}', "seed is 'x'"),
        ("run.json", '{"run": "a", "signature": "s"}', "run.json lacks config"),
        ("run.json", '{"signature": "s", "config": 5}', "config is 5; an object is needed"),
        ("run.json", None, "run.json is missing"),
    ],
)
def test_a_damaged_result_is_told_and_does_not_stop_the_others(
    tmp_path: Path, fabricate: Fabricate, name: str, content: str | None, reason: str
) -> None:
    damaged, sound = fabricate("csp-fast"), fabricate("csp-fast", seed=1)
    path = tmp_path / "runs" / damaged / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    frame = load_runs(tmp_path).set_index("run")
    assert frame.loc[damaged, "state"] == "unreadable"
    assert reason in str(frame.loc[damaged, "reason"])
    assert frame.loc[sound, "AP"] == 40
    shown = CliRunner().invoke(main, ["tables", "1", "--results", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert shown.stderr.startswith("1 run folder cannot be read: ")
    assert str(path.parent) in shown.stderr
    assert reason in shown.stderr


def test_a_copy_of_a_run_is_not_counted_twice(tmp_path: Path, fabricate: Fabricate) -> None:
    name = fabricate("csp-fast")
    runs = tmp_path / "runs"
    for copy in ("a-copy", f"{name}.bak"):
        shutil.copytree(runs / name, runs / copy)
    assert [Path(path).name for path in load_runs(tmp_path)["path"]] == [name]
    shutil.rmtree(runs / name)
    assert [Path(path).name for path in load_runs(tmp_path)["path"]] == ["a-copy"]


def test_tables_tell_of_runs_with_other_settings(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate("csp-fast", overrides=("train.epochs=3",))

    def stderr(*arguments: str) -> str:
        return CliRunner().invoke(main, ["tables", "1", "--results", str(tmp_path), *arguments]).stderr

    assert "runs with other settings exist of csp-fast: repeat the --set" in stderr()
    assert stderr("--set", "train.epochs=3") == ""
    assert stderr("--set", "train.epochs=3", "--seeds", "1,") == ""


def test_tables_of_a_folder_without_runs_name_it(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["tables", "1", "--results", str(tmp_path)])
    assert shown.exit_code == 0 and "47.9 (+0.1)" in shown.stdout
    assert shown.stderr == f"note: no runs in {tmp_path / 'runs'}; another folder is named by --results\n"


def test_what_a_run_continues_is_counted_once_and_only_if_it_is_there() -> None:
    runs = load_runs(PUBLISHED).query("seed == 0").set_index("experiment", drop=False)
    both = seconds_added(runs.loc[["p6-light", "p6-light.finetuned"]])
    whole = runs["seconds"]
    assert both["p6-light"] == whole["p6-light"]
    assert both["p6-light.finetuned"] == whole["p6-light.finetuned"] - whole["p6-light"] > 60
    alone = seconds_added(runs.loc[["p6-light.finetuned"]])
    assert alone["p6-light.finetuned"] == whole["p6-light.finetuned"]
    queued = runs.loc[["p6-light", "p6-light.finetuned"]].assign(seconds=[whole["p6-light"], None])
    assert seconds_added(queued).tolist() == [whole["p6-light"], 0.0]
