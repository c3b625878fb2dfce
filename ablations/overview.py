"""How all runs of a results folder are: their own files, and one look at the scheduler for all of them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ablations.display import RunView, progress
from slurm.scheduler import forever
from slurm.tokens import Token, current
from slurm.view import Standing, look_at
from yolor_core.errors import RunError, UnknownNameError
from yolor_core.runs import GOING_ON, LOST, State
from yolor_core.runs.directory import RunDirectory

LOOK_SECONDS = 0.6  # the scheduler's time to answer where a person waits
ENDED = (*LOST, State.INTERRUPTED, State.CANCELLED)  # for reasons that the scheduler may know
UNFINISHED = (*LOST, State.INTERRUPTED, State.INCOMPLETE, State.CANCELLED, State.NOT_SENT)


def overview(results: Path, seconds: float = LOOK_SECONDS) -> list[RunView]:
    """Every run of a results folder, in the order of their names.

    The scheduler is asked about unfinished submitted runs only: one squeue, one sacct, at the same time.
    """
    folder = results / "runs"
    paths = sorted(
        path
        for path in folder.glob("*")
        if (path / "state.json").exists() or (path / "submits").is_dir() or (path.is_dir() and _damaged(path))
    )
    return [view(path, seen) for path, seen in look_up(paths, seconds)]


def look_up(paths: Sequence[Path], seconds: float) -> list[tuple[Path, Standing | None]]:
    """The scheduler's standing of each submitted run that has not finished."""
    submitted = {path: token for path in paths if (token := current(path)) is not None}
    unfinished = [path for path in submitted if not _done(path)]
    standings = look_at(unfinished, seconds)
    return [
        (path, standings.get(path) or (Standing(submitted[path], State.DONE) if path in submitted else None))
        for path in paths
    ]


def _damaged(path: Path) -> bool:
    try:
        RunDirectory(path).read_run()
    except RunError:
        return True
    return False


def _done(path: Path) -> bool:
    try:
        return (RunDirectory(path).read_state() or {}).get("state") == "done"
    except RunError:
        return False


def view(path: Path, seen: Standing | None) -> RunView:
    """A run's own files and the scheduler's word in one."""
    run = RunDirectory(path)
    state: dict[str, Any] = {}
    reason: str | None = None
    try:
        state = run.read_state() or {}
        if not state:
            run.read_run()  # all there is of a run whose record is damaged
        reason = _text(state.get("reason"))
        word = run.life(seen.state if seen else None)
        if word is State.INCOMPLETE:
            reason = "; ".join(run.missing())
    except RunError as error:
        word, reason = State.UNREADABLE, str(error)
    if seen is not None and seen.ending and word is State.STARTING and state.get("state") in set(State):
        word = State(state["state"])  # nothing starts: it has saved itself, and its job is about to end
    if seen is not None and (seen.taken or seen.state is State.NOT_SENT or word in ENDED):
        if word in GOING_ON:  # what is written is of an earlier attempt
            reason = _about(seen)
        elif word not in LOST or not reason:
            reason = _about(seen) or reason
    known = progress(state)
    token = seen.token if seen else None
    return RunView(
        run=path.name,
        run_dir=path,
        state=word,
        **known | ({} if word is State.RUNNING else {"left": None}),
        node=seen.node if seen and seen.state is State.RUNNING else "",
        gpu_hours=known["seconds"] * token.gpus / token.pack / 3600 if token else None,
        job=token.job if token else None,
        reason=reason,
        heartbeat=_text(state.get("heartbeat")),
        token=token,
        submitted=seen is not None and seen.taken,
    )


def _about(seen: Standing) -> str | None:
    if seen.state is State.QUEUED and seen.token.job:
        never = forever(seen.reason)
        more = f", which does not pass by itself: {never}" if never else ""
        return f"waits: {seen.reason}{more}" if seen.reason else None
    return None if seen.state is State.RUNNING else seen.reason or None


def _text(value: object) -> str | None:
    return None if value is None else " ".join(str(value).split())


def chosen(views: Iterable[RunView], names: Sequence[str]) -> list[RunView]:
    """The runs that names mean: a run's whole name or its beginning, an experiment, or a pattern with `*`.

    Raises UnknownNameError for a name that means none, RunError where there is nothing to choose from.
    """
    views = list(views)
    if names and not views:
        raise RunError(f"run {names[0]!r}: there are no runs here; --results names another folder")
    found: dict[str, RunView] = {}
    for name in names:
        exact = [v for v in views if name in (v.run, v.run_dir.as_posix()) or _experiment(v) == name]
        matching = exact or [v for v in views if v.run.startswith(name) or fnmatch.fnmatchcase(v.run, name)]
        if not (matching and name):  # an empty one, as of a variable that is not set, begins every name
            raise UnknownNameError("run", name, [v.run for v in views])
        found |= {v.run: v for v in matching}
    return list(found.values())


def one(views: Iterable[RunView], name: str) -> RunView:
    """The only run that a name means, as in `chosen`. Raises RunError where it means several."""
    found = chosen(views, [name])
    if len(found) > 1:
        raise RunError(f"{name!r} means {len(found)} runs: {', '.join(v.run for v in found[:6])}; name one")
    return found[0]


def find_run(name: str, results: Path) -> Path:
    """The folder of a run, by path or by its name in the results folder. Raises as `one`."""
    path = Path(name)
    if os.path.isfile(path / "run.json"):
        return path
    try:
        return one(overview(results), name).run_dir
    except (RunError, UnknownNameError) as error:
        if not os.path.exists(path):
            raise
        here = "a folder without run.json" if os.path.isdir(path) else "a file"
        raise RunError(f"{error}; {name} itself is {here}, so no run") from None


def log_files(run_dir: Path, token: Token | None, rank: int = 0) -> list[Path]:
    """The log of a run's last job, or those of its last start on this machine.

    Args:
        run_dir: the run's folder.
        token: of its last submission to a cluster; None where there was none.
        rank: of the run's processes.
    """
    log = token.log if token else None
    if log is None:
        return RunDirectory(run_dir).last_logs()
    if token is not None and "pack" in token.content:  # of one process, and the script has a file of its own
        mine = log if log.exists() else log.with_name(f"{token.job}_script_log.out")
        return [mine] if mine.exists() and not rank else []
    mine = log.with_name(log.name.replace("_0_log", f"_{rank}_log"))
    # Before its processes start, the job's script writes into the first one's file.
    return [mine] if mine.exists() else []


def _experiment(view: RunView) -> str | None:
    """`csp-fast.add-fa-mini-s0-0123456789` -> `csp-fast.add-fa`."""
    parts = view.run.rsplit("-", 3)
    return parts[0] if len(parts) == 4 else None
