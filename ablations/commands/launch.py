"""`ablate launch`: run what is missing of tables or experiments, on this machine or on a cluster."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.columns import counted
from ablations.options import (
    cluster_option,
    data_option,
    json_option,
    profile_option,
    results_folder,
    results_option,
    seeds_option,
    set_option,
)
from yolor_core.runs.life import LOST, State

if TYPE_CHECKING:
    from ablations.plan import PlannedRun
    from slurm.local import Outcome

INTERRUPTED = 130  # exit code, as of a command that Ctrl-C ended
WHOLE = ("ConfigError", "DataError", "InputError")  # failures whose sentence says all that the log does


@click.command("launch")
@click.argument("names", nargs=-1, metavar="[TABLE|EXPERIMENT|FILE.py]...")
@click.option("--all", "everything", is_flag=True, help="All of the ablation study: Tables 1-8.")
@profile_option
@seeds_option()
@data_option
@set_option
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at a time; as many as cores allow."
)
@results_option
@cluster_option
@click.option("--force", is_flag=True, help="Submit although the time limit looks shorter than an epoch.")
@click.option("--dry-run", is_flag=True, help="Only say what would run; with --cluster, print the scripts.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    everything: bool,
    profile: str,
    seeds: list[int],
    data: str | None,
    overrides: tuple[str, ...],
    jobs: int | None,
    results: Path,
    cluster: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run what is missing, interrupted or failed; what is done stays.

    With --cluster the runs become jobs of SLURM, and the command returns at once: what somebody has submitted
    already is left alone, and jobs run a frozen copy of the code. Without it they are trained on this
    machine.

    Ctrl-C lets every run save its work and stops; the same command goes on from there. A run that fails does
    not stop the others. Exit code: 0 when all are done, 1 when some failed, 130 when interrupted. A finished
    run that has lost its weights, its evaluation or its record is trained again.
    """
    from ablations.local_launch import fitting, require_writable, run_missing
    from ablations.overview import on_a_cluster
    from ablations.plan import plan_runs
    from ablations.registry import tables
    from analysis.published import refuse_published
    from yolor_core.errors import ConfigError
    from yolor_core.runs.directory import RunDirectory

    if not names and not everything:
        raise click.UsageError("name tables or experiments, or say --all")
    for name in names if everything else ():
        if name.removeprefix("table") in tables():
            raise ConfigError(f"--all has table {name.removeprefix('table')} already; say one of the two")
    wanted = [*tables(), *names] if everything else list(names)
    if cluster is not None:
        if jobs is not None:
            raise click.UsageError("--jobs is for this machine; a cluster's profile has `parallel`")
        ctx.exit(
            launch_on_cluster(
                ctx, wanted, profile, seeds, overrides, data, results, cluster, force, dry_run, as_json
            )
        )
    refuse_published(results)
    planned = plan_runs(wanted, profile, seeds, overrides, data, results)
    states = {run.run_id: RunDirectory(run.run_dir).life() for run in planned}
    elsewhere = on_a_cluster([run for run in planned if states[run.run_id] != State.DONE])
    missing = [run for run in planned if states[run.run_id] != State.DONE and run.run_id not in elsewhere]
    parallel = jobs or fitting(planned)
    click.echo(
        f"{counted(len(planned), 'run')}: {len(planned) - len(missing) - len(elsewhere)} done, "
        f"{len(missing)} to run, {min(parallel, len(missing))} at a time; in {results / 'runs'}",
        err=as_json,
    )
    for name, why in elsewhere.items():
        click.echo(f"left out: {name} {why}", err=True)
    warn_of_other_code(planned, states)
    tell_of_data(planned, states)
    warn_of_damage(planned, states)
    outcomes: dict[str, Outcome] = {}
    interrupted = False
    if dry_run:
        if not as_json:
            for run in planned:
                word = "leave" if run.run_id in elsewhere else action(states[run.run_id])
                click.echo(f"{word:<6}  {run.run_id}  ({states[run.run_id]})")
    elif missing:
        if not all(run.run_dir.exists() for run in missing):
            require_writable(results / "runs")
        outcomes, interrupted = run_missing(missing, parallel, sys.stderr if as_json else sys.stdout)
    if as_json:
        records = [record(run, states[run.run_id], outcomes.get(run.run_id)) for run in planned]
        for each in records:
            if each["run"] in elsewhere:
                each |= {"action": "leave", "reason": elsewhere[each["run"]]}
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
    ctx.exit(report(outcomes, missing, interrupted) or int(bool(elsewhere)))


def launch_on_cluster(
    ctx: click.Context,
    wanted: Sequence[str],
    profile: str,
    seeds: Sequence[int],
    overrides: tuple[str, ...],
    data: str | None,
    results: Path,
    name: str,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Plan for a cluster, say so, and submit unless `dry_run`; returns the exit code."""
    from ablations.cluster_launch import by_table, check, plan_on_cluster, send
    from ablations.cluster_report import describe_plan, scripts, tell, tell_left_out
    from ablations.plan import plan_runs
    from ablations.registry import select
    from analysis.published import refuse_published
    from slurm import scheduler
    from slurm.cluster import load_cluster

    cluster = load_cluster(name)
    if not dry_run:
        scheduler.require()
    results = results_folder(ctx, results, cluster.results)
    refuse_published(results)
    planned = plan_runs(wanted, profile, seeds, overrides, data or cluster.data or None, results)
    plan = plan_on_cluster(planned, cluster, results)
    check(plan, force)
    selection = select(wanted)
    ids = {
        slug: [r.run_id for r in planned if r.config.experiment == slug]
        for slug in {r.config.experiment for r in planned}
    }
    tables = {
        f"table {table.name}": [i for e in table.experiments for i in ids.get(e.slug, [])]
        for table in selection.tables
    }
    if selection.named:
        tables["by name"] = [i for slug in sorted(selection.named) for i in ids.get(slug, [])]
    click.echo(describe_plan(plan, tables), err=as_json)
    tell_left_out(plan.held)
    tell_of_data(planned, plan.states)
    warn_of_damage(planned, plan.states)
    sent = None
    if dry_run:
        if not as_json and plan.requests:
            click.echo("\n" + scripts(plan))
    elif plan.requests:
        sent = send(plan)
        tell(plan, sent, err=as_json)
    if as_json:
        runs = [
            {
                "run": run.run_id,
                "experiment": run.config.experiment,
                "seed": run.config.seed,
                "run_dir": str(run.run_dir),
                "state": plan.states[run.run_id],
                "gpu_hours": plan.estimates[run.run_id].hours if run.run_id in plan.estimates else None,
                "job": sent.jobs.get(run.run_id) if sent else None,
                "left_out": (plan.held | (sent.left_out if sent else {})).get(run.run_id),
            }
            for run in planned
        ]
        content = {"tables": by_table(plan, tables), "runs": runs, "launch": sent.launch if sent else None}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    return int(bool(plan.held or (sent is not None and (sent.problem or sent.left_out))))


def action(state: str) -> str:
    """What a launch does with a run in this state."""
    actions: dict[str, str] = {
        State.DONE: "keep",
        State.MISSING: "start",
        State.RUNNING: "wait",
        State.UNREADABLE: "refuse",
    }
    return actions.get(state, "resume")


def record(run: PlannedRun, state: str, outcome: Outcome | None) -> dict[str, Any]:
    """One record of `--json`: what was found, what is done about it, and, after a launch, what came of it."""
    return {
        "run": run.run_id,
        "experiment": run.config.experiment,
        "profile": run.config.science.profile,
        "seed": run.config.seed,
        "run_dir": str(run.run_dir),
        "after": run.after,
        "state": state,
        "action": action(state),
        "outcome": outcome.state if outcome else None,
        "reason": outcome.reason if outcome else None,
    }


def warn_of_other_code(planned: Sequence[PlannedRun], states: Mapping[str, str]) -> None:
    """Finished runs of changed code are kept, but somebody should know."""
    from yolor_core.identity import source_hash

    present = source_hash()
    made_by = [_made_by(run) for run in planned if states[run.run_id] == State.DONE]
    other = [source for source in made_by if source not in (None, present)]
    if other:
        click.echo(
            f"note: {counted(len(other), 'finished run')} {'was' if len(other) == 1 else 'were'} made by "
            "other code of yolor_core, and kept. Remove the folder to train a run anew",
            err=True,
        )


def _made_by(run: PlannedRun) -> Any:
    """Source hash in run.json; None where it does not say."""
    return _record(run.run_dir).get("source_hash")


def _record(run_dir: Path) -> dict[str, Any]:
    """Content of run.json; empty where that cannot be read."""
    from yolor_core.errors import RunError
    from yolor_core.runs.directory import RunDirectory

    try:
        return RunDirectory(run_dir).read_run() or {}
    except RunError:
        return {}


def tell_of_data(planned: Sequence[PlannedRun], states: Mapping[str, str]) -> None:
    """Say which finished runs were trained on equal data elsewhere, and which older ones do not count."""
    from yolor_core.data.fingerprint import annotation_fingerprint, written_shapes
    from yolor_core.identity import run_id
    from yolor_core.runs.directory import RunDirectory

    data = planned[0].config.data
    here = _place(data.model_dump())
    done = [run.run_dir for run in planned if states[run.run_id] == State.DONE]
    trained = [(_record(path).get("config") or {}).get("data") for path in done]
    for there, count in Counter(map(_place, trained)).items():
        if there not in (here, None):
            click.echo(
                f"note: {counted(count, 'finished run')} {'were' if count > 1 else 'was'} trained on "
                f"{there}, whose annotations and pictures are those of {here}; "
                f"{'they count' if count > 1 else 'it counts'}",
                err=True,
            )
    if data.kind == "shapes":
        return
    before = annotation_fingerprint(data)
    left = [run for run in planned if states[run.run_id] != State.DONE]
    earlier = [run.run_dir.parent / run_id(run.config, before) for run in left]
    found = [path for path in earlier if path.is_dir() and not RunDirectory(path).missing()]
    if found:
        why = (
            "they were trained on the shapes as drawn, and the pictures here are others"
            if written_shapes(data)
            else "version 0.1.0 did not write down their pictures, so nobody knows whether these are the same"
        )
        click.echo(
            f"note: {counted(len(found), 'earlier run')} on these annotations (e.g. "
            f"{found[0]}) do not count: {why}. `ablate tables --fingerprint {before[:8]}` shows them",
            err=True,
        )


def _place(data: Mapping[str, Any] | None) -> str | None:
    """Where the data of a configuration are; None where it does not say."""
    if not data:
        return None
    return os.path.realpath(str(data["root"])) if data.get("kind") == "coco" else "the shapes drawn on demand"


def warn_of_damage(planned: Sequence[PlannedRun], states: Mapping[str, str]) -> None:
    """Name the files that keep runs from being started or from counting as finished."""
    from yolor_core.errors import RunError
    from yolor_core.runs.directory import RunDirectory

    for run in planned:
        directory = RunDirectory(run.run_dir)
        if states[run.run_id] == State.INCOMPLETE:
            lost = ", ".join(directory.missing())
            click.echo(f"note: {directory.path} was finished, but {lost}; it is trained again", err=True)
        elif states[run.run_id] == State.UNREADABLE:
            try:
                directory.read_state()
            except RunError as error:
                click.echo(f"warning: {error}", err=True)


def report(outcomes: dict[str, Outcome], missing: Sequence[PlannedRun], interrupted: bool) -> int:
    """Say what went wrong and how to go on (stderr); returns the exit code."""
    failed = [run for run in missing if run.run_id in outcomes and outcomes[run.run_id].state in LOST]
    for run in failed:
        outcome = outcomes[run.run_id]
        click.echo(f"\n{outcome.state}: {run.run_id}: {outcome.reason}", err=True)
        for line in () if str(outcome.reason).startswith(WHOLE) else outcome.log:
            click.echo(f"    {line}", err=True)
        click.echo(f"    log: {run.run_dir / 'logs'}", err=True)
    unfinished = [name for name, outcome in outcomes.items() if outcome.state != State.DONE]
    if interrupted and unfinished:
        click.echo(
            f"\ninterrupted: {counted(len(unfinished), 'run')} not done. The same command goes on from here",
            err=True,
        )
        return INTERRUPTED
    if unfinished:
        click.echo(
            f"\n{len(unfinished)} of {counted(len(outcomes), 'run')} not done ({len(failed)} failed); the "
            "same command tries those again, and `ablate tables` prints what there is",
            err=True,
        )
        return 1
    return 0
