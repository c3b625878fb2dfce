"""Runs in MLflow: a database file or a server, by batches, under names that MLflow allows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.trackers.record import (
    GOING_ON,
    PROJECT,
    Epoch,
    Record,
    Sent,
    TrackerError,
    digest,
    installed,
    plain,
)
from yolor_core.config import leaves
from yolor_core.errors import summary

STORE = "sqlite:///mlflow.db"  # where nothing else is said
AT_ONCE = {"metrics": 1000, "params": 100, "tags": 100}  # that MLflow takes in one call
LONGEST_NAME, LONGEST_VALUE = 250, 6000  # characters
WORDS = {
    "": "empty", "-": "dash", "/": "slash", ".": "dot", "×": "times", "+": "plus", "@": "at", "(": "open",
    ")": "close", "[": "from", "]": "to", "%": "percent", "=": "is", ":": "colon", "#": "number",
    ",": "comma", "&": "and", "*": "star", "'": "quote",
}  # fmt: skip
LETTERS = {word: letter for letter, word in WORDS.items()}
KEPT = re.compile(r"[\w ]")
ESCAPE = re.compile(rf"-({'|'.join(LETTERS)}|u(?:10[0-9a-f]{{4}}|[0-9a-f]{{1,5}}))-")


def mlflow_name(name: str) -> str:
    """A name in the characters that MLflow allows: `embedding/recall@1` becomes `embedding/recall-at-1`.

    Letters, digits, `_`, space, `-`, `.` and `/` stay; every other character becomes its word of `WORDS` or
    its code point between dashes (`-u20ac-`). A dash is written `-dash-` only where it would begin such a
    word, a slash or dot only where MLflow would read a path: `read_mlflow_name` is the exact inverse.
    """
    done = ""
    for place in range(len(name) - 1, -1, -1):  # backwards, so that a dash sees what stands behind it
        letter, before = name[place], name[:place][-1:]
        if letter == "/":
            keep = before not in ("", "/") and place < len(name) - 1
        elif letter == ".":
            keep = before not in ("", "/")
        elif letter == "-":
            keep = ESCAPE.match("-" + done) is None
        else:
            keep = KEPT.fullmatch(letter) is not None
        done = (letter if keep else f"-{WORDS.get(letter) or f'u{ord(letter):x}'}-") + done
    return done or f"-{WORDS['']}-"


def read_mlflow_name(name: str) -> str:
    """The name that `mlflow_name` has translated."""
    return ESCAPE.sub(lambda found: LETTERS[w] if (w := found[1]) in LETTERS else chr(int(w[1:], 16)), name)


def to_mlflow(record: Record, store: str = STORE, experiment: str = PROJECT) -> Sent:
    """Send a run to MLflow, or what is new of it where it is there already.

    A run that lost epochs and trained them again, so that numbers that were sent have changed, is sent anew,
    and its earlier record is marked as deleted: MLflow cannot take numbers back.

    Args:
        record: what to send.
        store: URI of MLflow's database or server.
        experiment: of MLflow, made where there is none of this name.

    Raises TrackerError where MLflow is not installed, or refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default is silent for minutes
    with installed():
        _reach(store)

        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
    points, params, tags = _points(record), _params(record), _tags(record)
    try:
        client = MlflowClient(tracking_uri=store)
        known = client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else client.create_experiment(experiment)
        mine = f"tags.`ablate.key` = '{record.key}'"
        run, done = next(iter(client.search_runs([place], filter_string=mine, max_results=1)), None), 0
        if run and (sent := run.data.tags.get("ablate.sent")):
            count, before = sent.split()
            done = int(count)
            if digest(points[:done]) != before:
                client.delete_run(run.info.run_id)
                run, done = None, 0
        if run is None:
            began = _milliseconds(record.started)
            key = {"ablate.key": record.key}
            run = client.create_run(place, start_time=began, run_name=record.run, tags=key)
        id_ = run.info.run_id
        new = [Param(name, text) for name, text in params.items() if run.data.params.get(name) != text]
        for batch in _batches(new, AT_ONCE["params"]):
            client.log_batch(id_, params=batch)
        for batch in _batches([Metric(*point) for point in points[done:]], AT_ONCE["metrics"]):
            client.log_batch(id_, metrics=batch)
        # Last: what was cut short is sent again, and MLflow keeps one of two equal points.
        tags["ablate.sent"] = f"{len(points)} {digest(points)}"
        for batch in _batches([RunTag(name, text) for name, text in tags.items()], AT_ONCE["tags"]):
            client.log_batch(id_, tags=batch)
        for stale in run.data.tags.keys() - tags.keys() - {"ablate.key"}:
            if stale.startswith("ablate."):
                client.delete_tag(id_, stale)
        if record.status in GOING_ON:
            client.update_run(id_, status=record.status)
        else:
            end = record.ended or (record.epochs[-1].time if record.epochs else record.started)
            client.set_terminated(id_, record.status, end_time=_milliseconds(end))
    except MlflowException as error:
        raise TrackerError(f"{shown_store(store)}: MLflow says: {summary(error)}") from None
    return Sent(len(points) - done, len(points), f"{shown_store(store)}, experiment {experiment}, run {id_}")


def shown_store(store: str) -> str:
    """A store's URI with the whole path of a file, and without a password."""
    if store.startswith("sqlite:///"):
        return f"sqlite:///{Path(store.removeprefix('sqlite:///')).absolute()}"
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", store)


def _reach(store: str) -> None:
    """Raises TrackerError for a database that cannot be opened: MLflow alone tries again for minutes."""
    scheme, _, rest = store.partition(":")
    if scheme in ("http", "https", "databricks"):
        return
    if not rest.startswith("//") or scheme == "file":
        allowed = "a database, as sqlite:///mlflow.db, or a server, as http://HOST:5000"
        raise TrackerError(f"store {store!r}: MLflow keeps runs in {allowed}; folders it refuses")
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(store)
        with engine.connect() as connection:
            if scheme == "sqlite":
                connection.exec_driver_sql("PRAGMA schema_version")
        engine.dispose()
    except SQLAlchemyError as error:
        said = summary(getattr(error, "orig", None) or error)
        raise TrackerError(f"{shown_store(store)} cannot be opened: {said}") from None


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _points(record: Record) -> list[tuple[str, float, int, int]]:
    """Name, value, milliseconds since 1970, step.

    The scores are last, so that what was sent before them is a beginning of this.
    """
    found = [
        (mlflow_name(name), float(value), _milliseconds(epoch.time), epoch.epoch)
        for epoch in record.epochs
        for name, value in epoch.values.items()
    ]
    last = record.epochs[-1] if record.epochs else Epoch(0, record.started, {})
    scores = {mlflow_name(name): float(value) for name, value in record.scores.items()}
    moment = _milliseconds(last.time)
    return found + [(n, v, moment, last.epoch) for n, v in scores.items() if len(n) <= LONGEST_NAME]


def _params(record: Record) -> dict[str, str]:
    """What decides the run and so never changes, under the names of `--set`."""
    known = {name: record.content.get(name) for name in ("experiment", "seed", "signature", "fingerprint")}
    science = record.content.get("config", {}).get("science", {})
    return _pieces({mlflow_name(name): value for name, value in (*known.items(), *leaves(science))})


def _tags(record: Record) -> dict[str, str]:
    """All else of run.json, where the run stands, and what is no finite number; these may change."""
    config = record.content.get("config", {})
    found = {name: value for name, value in record.content.items() if name != "config"}
    found |= {name: config[name] for name in ("data", "execution") if name in config}
    long = {name: value for name, value in record.scores.items() if len(mlflow_name(name)) > LONGEST_NAME}
    beside = {**record.beside, **long} or None
    found |= {"state": str(record.state), "reason": record.reason, "beside": beside}
    named = {f"ablate.{mlflow_name(name)}": value for name, value in found.items() if value is not None}
    return _pieces(named)


def _pieces(values: Mapping[str, Any]) -> dict[str, str]:
    """Text as it is, all else as JSON; what MLflow would cut, as `NAME part 1 of 2` and so on."""
    found = {}
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
        parts = [text[at : at + LONGEST_VALUE] for at in range(0, len(text), LONGEST_VALUE)] or [""]
        for place, part in enumerate(parts, start=1):
            found[name if len(parts) == 1 else f"{name} part {place} of {len(parts)}"] = part
    return found


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))
