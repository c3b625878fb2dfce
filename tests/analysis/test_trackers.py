"""Runs sent to MLflow and Weights & Biases are read back from there, and compared with the run's own files.

Nothing here uses a network: MLflow writes a database file, W&B offline files, and what W&B does online it
does with a stand-in for its server on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.utils.validation import _validate_metric_name

from analysis.trackers import mlflow as to
from analysis.trackers import wandb
from analysis.trackers.mlflow import mlflow_name, read_mlflow_name, to_mlflow
from analysis.trackers.record import PROJECT, Record, TrackerError, read
from analysis.trackers.wandb import read_offline, to_wandb
from tests.ablations.trained import ablate
from tests.analysis.fake_wandb import FakeServer, serve
from yolor_core.config import leaves
from yolor_core.errors import RunError
from yolor_core.runs import State

STUDY = Path(__file__).parents[2] / "results" / "published" / "mini" / "runs"
CLASSES = ("× iFA", "a+b", "me@home", "disc (small)", "[0, 1)", "100 % = all", "../up", "a-at-b", "λ")
FILES = ("run.json", "metrics.jsonl", "evaluation.json", "state.json")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is called, and nobody's settings and keys are read."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs, which takes seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty: Path, tmp_path: Path) -> str:
    shutil.copy(empty, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two tasks, whose classes have names that trackers may not like."""
    (source,) = STUDY.glob("csp.jde.implicit-mini-s1-*")
    folder = tmp_path / "results" / "runs" / source.name
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(source / name, folder / name)
    edit(folder / "evaluation.json", per_class={name: i / 7 for i, name in enumerate(CLASSES)})
    return folder


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def write(run: Path, records: list[dict[str, Any]]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def begun(run: Path, epochs: int) -> Record:
    """The run as it was after so many epochs; its files are put back."""
    kept = {name: (run / name).read_text() for name in FILES}
    write(run, lines(run)[:epochs])
    (run / "evaluation.json").unlink()
    edit(run / "run.json", ended=None)
    record = read(run, State.RUNNING)
    for name, content in kept.items():
        (run / name).write_text(content)
    return record


def expected(run: Path) -> dict[str, dict[int, float]]:
    """Every number of metrics.jsonl and evaluation.json by name and step."""
    found: dict[str, dict[int, float]] = {}
    for record in lines(run):
        for name, value in record.items():
            if name != "epoch" and value is not None:
                found.setdefault(name, {})[record["epoch"]] = value
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores.pop("size_limits") == [6.4, 19.2]
    for task, value in scores.items():
        for name, score in value.items() if isinstance(value, dict) else [("", value)]:
            if score is not None:
                found[f"final/{task}/{name}".rstrip("/")] = {lines(run)[-1]["epoch"]: score}
    return found


# MLflow.


def in_mlflow(store: str) -> list[Run]:
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(PROJECT)
    return list(client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL))


def points(store: str, run: Run) -> dict[str, dict[int, float]]:
    """Every number by its own name and step; fails where a step has two."""
    client, found = MlflowClient(tracking_uri=store), {}
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        found[read_mlflow_name(name)] = {point.step: point.value for point in history}
        assert len(history) == len(found[read_mlflow_name(name)]), name
    return found


@given(st.text() | st.text("-/.@×λ u40dshat", max_size=12))
@example("embedding/recall@1")
@example("-at@at-")
@example("u-u40-dash-@")
@example("\ud800\n")
def test_mlflow_takes_every_name_and_none_is_lost(name: str) -> None:
    _validate_metric_name(mlflow_name(name))  # as MLflow's store does; it raises
    assert read_mlflow_name(mlflow_name(name)) == name


@pytest.mark.parametrize(
    ("name", "translated"),
    [
        ("embedding/recall@1", "embedding/recall-at-1"),
        ("conflict/detection-embedding", "conflict/detection-embedding"),
        ("train.optimiser.lr0", "train.optimiser.lr0"),
        ("× iFA", "-times- iFA"),
        ("a-at-b", "a-dash-at-b"),
        ("€", "-u20ac-"),
        ("..", "-dot-."),
        ("", "-empty-"),
    ],
)
def test_names_in_mlflow_can_be_read(name: str, translated: str) -> None:
    assert mlflow_name(name) == translated


def test_a_finished_run_is_in_mlflow_number_by_number(
    run: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = [f"class {i}" for i in range(1000)]
    edit(run / "run.json", classes=classes)
    calls, real = [], MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, **items: Any) -> None:
        calls.append({kind: len(batch) for kind, batch in items.items()})
        real(self, run_id, **items)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    monkeypatch.setattr(MlflowClient, "log_metric", None)
    sent = to_mlflow(read(run, State.DONE), store)
    (there,) = in_mlflow(store)
    wanted = expected(run)
    assert "final/per_class/× iFA" in wanted and "embedding/recall@1" in wanted
    assert points(store, there) == wanted
    assert sent.new == sent.numbers == sum(map(len, wanted.values()))
    assert sent.where == f"{store}, experiment {PROJECT}, run {there.info.run_id}"
    assert {"metrics": sent.new} in calls and all(sum(c.values()) <= 1000 for c in calls)

    content = json.loads((run / "run.json").read_text())
    told, tags = there.data.params, there.data.tags
    for name, value in leaves(content["config"]["science"]):
        assert told[name] == (value if isinstance(value, str) else json.dumps(value)), name
    assert (told["seed"], told["experiment"]) == ("1", "csp.jde.implicit")
    assert json.loads(tags["ablate.execution"]) == content["config"]["execution"]
    assert tags["ablate.commit"] == content["commit"] and tags["ablate.state"] == "done"
    parts = [tags[f"ablate.classes part {i} of 3"] for i in (1, 2, 3)]
    assert json.loads("".join(parts)) == classes and max(map(len, parts)) <= 6000
    info = there.info
    assert (info.run_name, info.status) == (content["run"], "FINISHED")
    assert info.end_time - info.start_time == 244_000  # 16:41:08 to 16:45:04

    assert to_mlflow(read(run, State.DONE), store).new == 0
    (again,) = in_mlflow(store)
    assert again.info.run_id == info.run_id and points(store, again) == wanted and again.data.tags == tags


def test_a_run_that_goes_on_is_brought_up_to_date_in_mlflow(
    run: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = replace(begun(run, 5), reason="waits: Priority")
    to_mlflow(part, store)
    (there,) = in_mlflow(store)
    assert (there.info.status, there.data.tags["ablate.reason"]) == ("RUNNING", "waits: Priority")
    assert there.info.end_time is None
    MlflowClient(tracking_uri=store).set_tag(there.info.run_id, "mine", "kept")

    def cut(items: Any, size: int) -> Iterator[Any]:
        yield from (items[:60], items[60:120])
        if len(items) > 120:
            raise KeyboardInterrupt

    whole = read(run, State.DONE)
    with monkeypatch.context() as patch:
        patch.setattr(to, "_batches", cut)
        with pytest.raises(KeyboardInterrupt):
            to_mlflow(whole, store)
    to_mlflow(whole, store)
    (there,) = in_mlflow(store)
    assert points(store, there) == expected(run)
    assert there.info.status == "FINISHED" and "ablate.reason" not in there.data.tags
    assert there.data.tags["mine"] == "kept"


def test_a_run_that_trained_an_epoch_again_is_sent_anew(run: Path, store: str) -> None:
    to_mlflow(begun(run, 5), store)
    records = lines(run)
    records[4]["seconds"] += 1
    write(run, records)
    to_mlflow(read(run, State.DONE), store)
    old, new = sorted(in_mlflow(store), key=lambda each: each.info.lifecycle_stage, reverse=True)
    assert (old.info.lifecycle_stage, new.info.lifecycle_stage) == ("deleted", "active")
    assert points(store, new) == expected(run)


def diverge(run: Path) -> Record:
    """The run as one that stopped at a loss that is not finite; another writer wrote NaN and Infinity."""
    records = lines(run)[:3]
    records[1]["loss/obj"] = None
    records[2] |= {"loss/box": float("nan"), "loss/cls": float("inf"), "grad_norm": float("-inf")}
    write(run, records)
    (run / "evaluation.json").unlink()
    (run / "nonfinite.json").write_text(json.dumps({"epoch": 4, "terms": {"box": "nan"}}))
    return read(run, State.DIVERGED, "NonFiniteError: box")


BESIDE = {
    "loss/obj": {"2": None},
    "loss/box": {"3": "NaN"},
    "loss/cls": {"3": "Infinity"},
    "grad_norm": {"3": "-Infinity"},
    "nonfinite.json": {"epoch": 4, "terms": {"box": "nan"}},
}


def test_what_is_not_finite_is_text_beside_the_numbers_of_mlflow(run: Path, store: str) -> None:
    to_mlflow(diverge(run), store)
    (there,) = in_mlflow(store)
    found = points(store, there)
    assert (list(found["loss/obj"]), list(found["loss/box"])) == ([1, 3], [1, 2])
    assert max(abs(value) for values in found.values() for value in values.values()) < 1e9
    assert json.loads(there.data.tags["ablate.beside"]) == BESIDE
    assert (there.info.status, there.data.tags["ablate.state"]) == ("FAILED", "diverged")
    assert there.data.tags["ablate.reason"] == "NonFiniteError: box"


def test_a_name_that_is_too_long_for_mlflow_is_beside(run: Path, store: str) -> None:
    edit(run / "evaluation.json", per_class={"×" * 100: 0.5})
    to_mlflow(read(run, State.DONE), store)
    (there,) = in_mlflow(store)
    beside = json.loads(there.data.tags["ablate.beside"])
    assert beside == {f"final/per_class/{'×' * 100}": 0.5, "final/size_limits": [6.4, 19.2]}


# Weights & Biases.


def offline(folder: Path) -> Path:
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    return file


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serve() as server:
        yield server


def login(server: FakeServer) -> dict[str, str]:
    """The environment of somebody who is logged in there."""
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": 40 * "0"}


def test_a_run_is_in_the_offline_file_value_by_value_and_brought_up_to_date(
    run: Path, tmp_path: Path, server: FakeServer
) -> None:
    to_wandb(begun(run, 5), tmp_path, offline=True)
    first = offline(tmp_path)
    found, whole = read_offline(first)
    assert whole and [*found.rows] == [1, 2, 3, 4, 5] and found.ends["state"] == "running"

    record = read(run, State.DONE)
    sent = to_wandb(record, tmp_path, offline=True)
    file = offline(tmp_path)
    assert not first.exists() and sent.new == sent.numbers == sum(map(len, expected(run).values()))
    assert sent.where.endswith(f"wandb sync {file.parent}")
    assert file.stat().st_size > 32768  # more than one block
    found, whole = read_offline(file)
    assert whole and [*found.rows] == [*range(1, 25)]
    rows = {r.pop("epoch"): {k: v for k, v in r.items() if v is not None} for r in lines(run)}
    assert found.rows == rows
    for name, values in expected(run).items():
        assert found.ends[name] == [*values.values()][-1], name  # W&B keeps the last of each there
    content = json.loads((run / "run.json").read_text())
    told = content | content["config"] | content["config"]["science"]
    assert {name: found.config[name] for name in told.keys() - {"config", "science"}} == {
        name: told[name] for name in told.keys() - {"config", "science"}
    }

    assert to_wandb(record, tmp_path, offline=True).new == 0  # the same again: nothing is written
    assert offline(tmp_path) == file
    upload = [sys.executable, "-m", "wandb", "sync", str(file.parent)]
    done = subprocess.run(upload, env=os.environ | login(server), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert server.rows() == [*rows.items()]  # as wandb's own reader finds them
    assert {name: json.loads(server.summary)[name] for name in record.scores} == record.scores
    with pytest.raises(TrackerError, match="was uploaded, and the run has gone on since"):
        to_wandb(begun(run, 5), tmp_path, offline=True)

    data = bytearray(file.read_bytes())
    file.write_bytes(data[:-1])
    assert wandb._lacks(file, wandb._content(record)) == "the last record"
    data[20000] ^= 1
    file.write_bytes(data)
    with pytest.raises(TrackerError, match="is damaged at byte"):
        read_offline(file)


def test_an_offline_file_that_lacks_an_epoch_is_an_error(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.sdk.wandb_run import Run as Logging

    real: Callable[..., None] = Logging.log

    def forgetful(self: Logging, data: dict[str, Any], step: int) -> None:
        if step != 2:
            real(self, data, step=step)

    record = diverge(run)
    monkeypatch.setattr(wandb, "WAIT", 1.0)
    monkeypatch.setattr(Logging, "log", forgetful)
    with pytest.raises(TrackerError, match=r"was not written as it should be: epoch 2; try again"):
        to_wandb(record, tmp_path, offline=True)
    found, whole = read_offline(offline(tmp_path))
    assert whole and [*found.rows] == [1, 3]
    assert found.config["beside"] == BESIDE and found.ends["state"] == "diverged"
    assert "loss/box" not in found.rows[3] and "loss/box" in found.rows[1]


ONLINE = """
import sys
from pathlib import Path

from analysis.trackers.record import TrackerError, read
from analysis.trackers.wandb import to_wandb
from yolor_core.runs import State

for word, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        print(to_wandb(read(Path(folder), State(word)), Path()).new)
    except TrackerError as error:
        print(error)
"""


def test_online_every_epoch_is_sent_once(run: Path, tmp_path: Path, server: FakeServer) -> None:
    """In a process of its own: wandb keeps its settings and its login for as long as one lives."""
    begun, again = (Path(shutil.copytree(run, tmp_path / name)) for name in ("begun", "again"))
    write(begun, lines(run)[:5])
    (begun / "evaluation.json").unlink()
    records = lines(run)
    records[4]["seconds"] += 1
    write(again, records)
    sending = [str(each) for each in ("running", begun, "done", run, "done", run, "done", again)]
    environment = os.environ | login(server) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", ONLINE, *sending], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *sent, refused = done.stdout.splitlines()
    rows = {r.pop("epoch"): {k: v for k, v in r.items() if v is not None} for r in lines(run)}
    first = sum(len(row) for epoch, row in rows.items() if epoch <= 5)
    every = sum(map(len, rows.values())) + len(read(run, State.DONE).scores)
    assert sent == [str(first), str(every - first), "0"]
    assert refused.startswith(f"{server.url}/me/{PROJECT}/runs/")
    assert "epochs that were sent have been trained again since" in refused
    assert server.rows() == [*rows.items()]
    assert json.loads(server.summary)["state"] == "done"
    assert server.exits == [0, 0, 0]  # not of the run in progress


# The command, and bad input.


def test_the_command_says_where_everything_went(run: Path, store: str, tmp_path: Path) -> None:
    done = ablate("export", "mlflow", run.name[:20], "--results", tmp_path / "results")  # the default store
    assert done.exit_code == 0, done.output
    assert f"{run.name}: 419 of 419 numbers are new; sqlite:///{tmp_path}/mlflow.db" in done.output
    assert in_mlflow(store)[0].data.tags["ablate.state"] == "done"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wandb"], "nobody is logged in to W&B: run `wandb login`, set WANDB_API_KEY, or write a file with"),
        (["mlflow", "--store", "./mlruns"], "MLflow keeps runs in a database, as sqlite:///mlflow.db, or a"),
        (["mlflow", "--store", "sqlite:///no/x.db"], "no/x.db cannot be opened: "),
        (["mlflow", "--store", "sqlite:///text"], "text cannot be opened: "),
        (["mlflow", "--store", "mysql://me:secret@h/x"], "MySQLdb is not installed: the store needs it"),
        (["mlflow", "--store", "what://me:secret@h/x"], "what://me:***@h/x cannot be opened: "),
    ],
)
def test_what_cannot_be_sent_is_one_line(arguments: list[str], said: str, run: Path) -> None:
    Path("text").write_text("no database")
    done = ablate("export", *arguments, run)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert said in done.stderr and "secret" not in done.stderr


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named(
    package: str, run: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = ablate("export", package, run)
    assert done.exit_code == 2
    assert f"{package} is not installed: pip install 'yolor-ablations[tracking]'" in done.stderr


def test_damaged_files_are_named(run: Path) -> None:
    records = lines(run)
    write(run, [*records, records[3]])
    with pytest.raises(RunError, match=r"metrics\.jsonl .* line 25: epoch is 4; a whole number above 24"):
        read(run, State.DONE)
    edit(run / "run.json", started="yesterday")
    with pytest.raises(RunError, match=r"run\.json .* started is 'yesterday'; a time is needed"):
        read(run, State.DONE)
    (run / "run.json").unlink()
    with pytest.raises(RunError, match=r"run\.json is missing: the run has not started"):
        read(run, State.DONE)
