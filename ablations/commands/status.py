"""`ablate status`, `logs` and `cost`: how far the runs are, what one printed, and what all have taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import completing, examples, json_option, print_json, read_results_option
from yolor_core.runs import State

if TYPE_CHECKING:
    from ablations.display import RunView
    from slurm.scheduler import Seen

WATCH_SECONDS, PATIENCE = 5.0, 4.0
FOLLOW_SECONDS = 0.5
ASK_SECONDS = 10.0  # between two questions to the scheduler while following a log
ENDING_SECONDS = 20.0  # in which the script of a job that is over says how it ended
LACKS_WEIGHTS = "weights.safetensors is missing"  # as RunDirectory.missing says it
LEAST = 0.005  # hours below which a ratio says nothing


@click.command(
    "status", epilog=examples("ablate status --watch", "ablate status csp-fast.add-fa --results results")
)
@click.argument(
    "names", nargs=-1, metavar="[RUN|EXPERIMENT]...", shell_complete=completing("experiments", "runs")
)
@read_results_option
@click.option("--watch", is_flag=True, help="Look again every few seconds, until all are done or Ctrl-C.")
@json_option
def status(names: tuple[str, ...], results: Path, watch: bool, as_json: bool) -> None:
    """Show every run: its state, epochs, AP so far, time spent and left, node, GPU hours, and why it stopped.

    A run without detection has no AP; `ablate evaluate --run DIR` and the tables have its other scores.
    Runs on a cluster are looked up with one squeue and one sacct for all of them. A run that says running
    although no process holds it any more is shown as interrupted; a finished one that has lost its record,
    evaluation or weights as incomplete, but not in a published folder, which has no weights; one with a
    damaged state.json as unreadable.
    """
    from ablations.display import text
    from ablations.overview import LOOK_SECONDS, chosen, overview
    from ablations.plan import is_published

    def look(seconds: float) -> list[RunView]:
        views = overview(results, seconds)
        if is_published(results):
            views = [_as_published(view) for view in views]
        return chosen(views, names) if names else views

    views = look(LOOK_SECONDS)
    if as_json:
        print_json([view.record() for view in views])
    elif not views:
        click.echo(
            f"no runs in {results / 'runs'}; `ablate launch --all` makes some, --results names another folder"
        )
    elif watch:
        _watch(views, lambda: look(PATIENCE))
    else:
        click.echo(text(views))


def _as_published(view: RunView) -> RunView:
    """Where weights are not published, a run that lacks nothing else has finished."""
    if view.state is not State.INCOMPLETE or view.reason != LACKS_WEIGHTS:
        return view
    return replace(view, state=State.DONE, reason="published without weights")


def _watch(views: list[RunView], look: Callable[[], list[RunView]]) -> None:
    from rich.console import Console

    from ablations.display import live, summary, table

    console = Console()
    with live(console) as display:
        while True:
            display.update(table(views, console, summary(views)), refresh=True)
            if not any(view.going_on for view in views):
                return
            try:
                time.sleep(WATCH_SECONDS)
            except KeyboardInterrupt:
                return
            views = look()


@click.command("logs", epilog=examples("ablate logs RUN --follow"))
@click.argument("run", metavar="RUN", shell_complete=completing("runs"))
@read_results_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends or Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=40, show_default=True, help="How many, from the end."
)
@click.option(
    "--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Which of several processes."
)
def logs(run: str, results: Path, follow: bool, lines: int, rank: int) -> None:
    """Print the end of what RUN (a run's name or its beginning) has written, on a cluster or here."""
    from ablations.overview import log_files, one, overview
    from yolor_core.errors import RunError

    view = one(overview(results), run)
    paths = log_files(view.run_dir, view.token, rank)
    if not paths and not (follow and view.state in (State.QUEUED, State.STARTING)):
        said = f"{view.run} ({view.state}) has written nothing" + (f": {view.reason}" if view.reason else "")
        if view.state is not State.DONE:
            raise RunError(said)
        click.echo(said, err=True)
    try:
        _print(view, results, paths, follow, lines, rank)
    except KeyboardInterrupt:
        return


def _print(view: RunView, results: Path, paths: list[Path], follow: bool, lines: int, rank: int) -> None:
    from ablations.overview import log_files, one, overview
    from slurm.files import tail

    read: dict[Path, int] = {}
    for path in paths:
        if len(paths) > 1:
            click.echo(f"==> {path}", err=True)
        read[path] = path.stat().st_size
        for line in tail(path).splitlines()[-lines:] if lines else []:
            click.echo(line)
    asked = over = time.monotonic()
    while follow:
        if view.going_on:
            over = time.monotonic()
        # A run is done before its job's script has said so, which is the last line there is.
        last = not view.going_on and not (_to_be_judged(view) and time.monotonic() - over < ENDING_SECONDS)
        for path in log_files(view.run_dir, view.token, rank):
            if path.stat().st_size > read.get(path, 0):
                with path.open("rb") as file:
                    file.seek(read.get(path, 0))
                    new = file.read()
                read[path] = read.get(path, 0) + len(new)
                click.echo(new.decode(errors="replace"), nl=False)
        if last:
            return
        if time.monotonic() - asked > ASK_SECONDS or not read:
            asked = time.monotonic()
            view = one(overview(results), view.run)
        time.sleep(FOLLOW_SECONDS)


def _to_be_judged(view: RunView) -> bool:
    """Whether an attempt of the run has begun whose end is not noted: its script may still write."""
    attempts = view.token.attempts() if view.token else []
    return bool(attempts) and attempts[-1]["event"] == "start"


@click.command("cost", epilog=examples("ablate cost --json"))
@read_results_option
@json_option
def cost(results: Path, as_json: bool) -> None:
    """Compare each experiment's estimated GPU hours with what its jobs have taken.

    `booked` is the accounting's figure: every attempt of every submission, start-up and requeued time
    included. Where sacct does not answer it is missing, and `trained`, the time that the runs themselves
    counted, has to do. Runs that share a GPU share its hours. Without GPUs it is hours of processes.
    """
    from ablations.options import aligned

    records, answered = costs_of_runs(results)
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo(f"no submitted runs in {results / 'runs'}")
        return
    numbers = ("runs", "done", "estimated", "trained", "booked")
    total = {key: sum(record[key] or 0 for record in records) for key in numbers}
    lines = [("experiment", *numbers, "booked / estimated of done")]
    lines.extend(
        (
            record["experiment"],
            str(record["runs"]),
            str(record["done"]),
            *(f"{record[key] or 0:.2f}" for key in ("estimated", "trained")),
            f"{record['booked'] or 0:.2f}" if answered else "",
            "" if record["ratio"] is None else f"{record['ratio']:.2f}",
        )
        for record in [*records, {"experiment": "in all", **total, "ratio": None}]
    )
    for line in aligned(lines):
        click.echo(line.rstrip())
    if not answered:
        click.echo("sacct does not answer here, so nothing is known of what was booked", err=True)


def costs_of_runs(results: Path) -> tuple[list[dict[str, Any]], bool]:
    """One record per experiment that was submitted, and whether the accounting answered."""
    from ablations.overview import overview
    from slurm import ClusterError, scheduler
    from slurm.tokens import read

    booked: dict[str, Seen] | None
    submitted = [(view, view.token) for view in overview(results) if view.token is not None]
    jobs = {
        view.run: {
            job: sent.pack
            for sent in (read(view.run_dir, number) for number in range(1, token.number + 1))
            if (job := sent.job) is not None
        }
        for view, token in submitted
    }
    try:
        everything = [job for some in jobs.values() for job in some]
        booked = scheduler.history(everything, exact=True) if everything else {}
    except ClusterError:
        booked = None
    records: dict[str, dict[str, Any]] = {}
    ratios: dict[str, list[float]] = {}
    for view, token in submitted:
        name = str(token.content.get("experiment") or view.run)
        record = records.setdefault(
            name, {"experiment": name, "runs": 0, "done": 0, "estimated": 0.0, "trained": 0.0, "booked": None}
        )
        expected = read(view.run_dir, 1).hours or 0.0
        record["runs"] += 1
        record["done"] += view.state is State.DONE
        record["estimated"] += expected
        record["trained"] += view.gpu_hours or 0.0
        if booked is not None:
            mine = [(booked[job], pack) for job, pack in jobs[view.run].items() if job in booked]
            each = [(seen.gpu_seconds or seen.seconds * token.gpus) / pack for seen, pack in mine]
            spent = sum(each) / 3600
            record["booked"] = (record["booked"] or 0.0) + spent
            if view.state is State.DONE and expected >= LEAST:
                ratios.setdefault(name, []).append(spent / expected)
    for name, record in records.items():
        found = ratios.get(name)
        record["ratio"] = sum(found) / len(found) if found else None
    return list(records.values()), booked is not None
