"""A page per run: what it was, where it ran, its curves, the end of what it printed, and what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablations.table import ALL_DETECTION, SCORES
from analysis.report.tables import Entry
from analysis.tables.formats import number
from yolor_core.errors import RunError
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory
from yolor_core.runs.directory import number as finite

Facts = list[tuple[str, str]]  # label, text
UNKNOWN = "not recorded"


@dataclass
class RunPage:
    """All that the page of a run shows. What cannot be read is in `problems`."""

    run: str
    path: str
    state: str
    experiment: str | None
    seed: str
    facts: Facts
    code: Facts = field(default_factory=list)
    environment: Facts = field(default_factory=list)
    data: Facts = field(default_factory=list)
    config: str = ""
    scores: list[Entry] = field(default_factory=list)  # the twelve COCO numbers, in order of `ALL_DETECTION`
    others: Facts = field(default_factory=list)  # other tasks' scores
    classes: list[tuple[str, Entry]] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    csv: str = ""
    logs: Sequence[Log] = ()
    cells: list[tuple[str, str, str]] = field(default_factory=list)  # table, its anchor, row
    problems: list[str] = field(default_factory=list)
    files: Facts = field(default_factory=list)  # of its folder, none of which the report holds; sizes


def run_page(row: pd.Series, metrics: pd.DataFrame, logs: Sequence[Log]) -> RunPage:
    """Gather the page of a run: `row` of `load_runs`, its epochs, the ends of its logs."""
    directory = RunDirectory(Path(row["path"]))
    problems: list[str] = []
    if isinstance(row["reason"], str) and row["reason"]:
        problems.append(row["reason"])
    record, state, evaluation = (
        _try(read, problems) for read in (directory.read_run, directory.read_state, directory.read_evaluation)
    )
    seed = finite(row["seed"])
    page = RunPage(
        run=str(row["run"]),
        path=str(row["path"]),
        state=str(row["state"]) if isinstance(row["state"], str) else str(State.UNKNOWN),
        experiment=row["experiment"] if isinstance(row["experiment"], str) else None,
        seed="unknown" if seed is None else str(int(seed)),
        facts=_times(record, state),
        logs=logs,
        problems=problems,
        files=_files(directory.path),
    )
    if record:
        page.code = _code(record)
        page.environment = _environment(record)
        page.data = _data(record, row)
        page.config = json.dumps(record.get("config", {}), indent=1, ensure_ascii=False)
    _scores(page, evaluation)
    if not metrics.empty:
        page.panels = panels(metrics)
    return page


def _files(folder: Path) -> Facts:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), size(path.stat().st_size)) for path in found]


def size(count: int) -> str:
    """`740 B`, `12.3 kB`, `4.5 MB`."""
    return (
        f"{count} B" if count < 1000 else f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
    )


def _try(read: Any, problems: list[str]) -> dict[str, Any]:
    try:
        return read() or {}
    except RunError as error:
        if str(error) not in problems:
            problems.append(str(error))
        return {}


def _times(record: dict[str, Any], state: dict[str, Any]) -> Facts:
    epochs, seconds = state.get("epochs"), finite(state.get("seconds"))
    return [
        ("epochs", f"{state.get('epoch', 0)} of {epochs}" if epochs else UNKNOWN),
        ("training time", UNKNOWN if seconds is None else duration(seconds)),
        ("started", _text(record.get("started"))),
        ("ended", _text(record.get("ended"))),
        ("last sign of life", _text(state.get("heartbeat"))),
        ("resumes", _text(record.get("resumes"))),
    ]


def _code(record: dict[str, Any]) -> Facts:
    dirty = record.get("dirty")
    changed = UNKNOWN if dirty is None else "yes: the commit does not say all of the code" if dirty else "no"
    return [
        ("commit", _text(record.get("commit"))),
        ("changed since the commit", changed),
        ("hash of yolor_core's sources", _text(record.get("source_hash"))),
        ("signature of the settings", _text(record.get("signature"))),
    ]


def _environment(record: dict[str, Any]) -> Facts:
    packages = record.get("packages")
    found = [
        ("device", _text(record.get("device"))),
        ("processes", _text(record.get("ranks"))),
        ("SLURM jobs", ", ".join(map(str, record.get("jobs") or [])) or "none"),
        ("Python", _text(record.get("python"))),
    ]
    if isinstance(packages, dict):
        found += [(str(name), _text(version)) for name, version in packages.items()]
    return found


def _data(record: dict[str, Any], row: pd.Series) -> Facts:
    found = [("data", _text(row["data"])), ("fingerprint", _text(record.get("fingerprint")))]
    reports = record.get("data_report")
    for split in ("train", "val"):
        report = reports.get(split) if isinstance(reports, dict) else None
        if isinstance(report, dict):
            found.append((split, f"{report.get('images')} images, {report.get('boxes')} boxes"))
    return found


def _scores(page: RunPage, evaluation: dict[str, Any]) -> None:
    detection = evaluation.get("detection")
    if isinstance(detection, dict):
        values = [_percent(detection.get(name)) for name in ALL_DETECTION]
        page.scores = [Entry(number("AP", value, more=1), sort=value) for value in values]
    for column, score in SCORES.items():
        scores = evaluation.get(score.task)
        if score.task != "detection" and isinstance(scores, dict):
            page.others.append((f"{column} (%)", number(column, _percent(scores.get(score.name)), more=1)))
    classes = evaluation.get("per_class")
    if isinstance(classes, dict):
        found = [(str(name), _percent(value)) for name, value in classes.items()]
        page.classes = [(name, Entry(number("AP", value, more=1), sort=value)) for name, value in found]


def duration(seconds: float) -> str:
    """`9.5 s`, `12 min 3 s`, `4 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _percent(value: object) -> float | None:
    found = finite(value)
    return None if found is None else 100 * float(found)


def _text(value: object) -> str:
    return UNKNOWN if value is None or value == "" else str(value)


PANELS: Mapping[str, str] = {
    "loss/box": "box loss",
    "loss/obj": "objectness loss",
    "loss/cls": "classification loss",
    "AP": "AP (%)",
}
LOSS = "loss/"  # so all terms begin
WIDTH, HEIGHT = 240.0, 90.0  # of the plotting area, in the units of the view box


@dataclass(frozen=True)
class Panel:
    """One quantity over the epochs of a run; `points` in the units of the view box."""

    name: str
    points: tuple[tuple[float, float], ...]
    first: str  # epoch
    last: str
    low: str
    high: str
    final: str

    @property
    def line(self) -> str:
        """For a polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)

    @property
    def sentence(self) -> str:
        """What is to be seen, for those who do not see it."""
        if self.first == self.last:
            return f"{self.final} after epoch {self.last}"
        return f"{self.final} after epoch {self.last}; {self.low} to {self.high} since epoch {self.first}"


def panels(metrics: pd.DataFrame) -> list[Panel]:
    """The panels of one run, from its epochs; a quantity that it has not recorded has none."""
    data = panel_data(metrics)
    found = []
    for column in data.columns[1:]:
        known = data[["epoch", column]].dropna()
        values = [float(value) for value in known[column]]
        name = PANELS.get(column) or f"{column.removeprefix(LOSS)} loss"
        found.append(_panel(name, [int(epoch) for epoch in known["epoch"]], values))
    return found


def panel_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """The epochs and the columns behind the panels: losses, and AP (percent)."""
    losses = [str(column) for column in metrics.columns if str(column).startswith(LOSS)]
    wanted = dict.fromkeys(["epoch", *(c for c in PANELS if c in metrics and c != "AP"), *losses, "AP"])
    frame = metrics[[column for column in wanted if column in metrics]]
    frame = frame.apply(pd.to_numeric, errors="coerce").replace([np.inf, -np.inf], np.nan)
    return frame.dropna(subset=["epoch"]).dropna(axis="columns", how="all").reset_index(drop=True)


def _panel(name: str, epochs: Sequence[int], values: Sequence[float]) -> Panel:
    low, high = min(values), max(values)
    span, length = (high - low) or 1.0, (epochs[-1] - epochs[0]) or 1
    points = tuple(
        (WIDTH * (epoch - epochs[0]) / length, HEIGHT * (high - value) / span if high > low else HEIGHT / 2)
        for epoch, value in zip(epochs, values, strict=True)
    )
    texts = (f"{value:.3g}" for value in (low, high, values[-1]))
    return Panel(name, points, str(epochs[0]), str(epochs[-1]), *texts)


LINES, BYTES, CHARACTERS = 60, 20_000, 1_000  # of a tail; characters of a line
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass(frozen=True)
class Log:
    """A file's name and the end of its text, without control characters."""

    name: str
    text: str
    cut: bool  # whether the file is longer


def tail(path: Path) -> Log:
    """The end of a file; one that cannot be read says so in its text."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - BYTES))
            raw = file.read(BYTES)
    except OSError as error:
        return Log(path.name, f"cannot be read: {error.strerror}", False)
    lines = clean(raw.decode("utf-8", errors="replace")).splitlines()
    if size > BYTES and len(lines) > 1:
        lines = lines[1:]  # the first is a part of one
    return Log(path.name, "\n".join(lines[-LINES:]), size > BYTES or len(lines) > LINES)


def clean(text: str) -> str:
    """Text as a terminal leaves it: no escapes, a progress bar's last state, no control characters."""
    lines = []
    for line in ESCAPE.sub("", text).replace("\r\n", "\n").split("\n"):
        shown = line.rstrip("\r").rsplit("\r", 1)[-1].expandtabs(8)
        shown = "".join(c if c.isprintable() else "\ufffd" for c in shown)
        lines.append(shown if len(shown) <= CHARACTERS else f"{shown[:CHARACTERS]} ...")
    return "\n".join(lines)
