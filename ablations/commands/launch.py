"""`ablate launch`: run what is missing of tables or experiments, on this machine or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import (
    AP_POINTS,
    HOURS,
    cluster_option,
    completing,
    data_option,
    examples,
    json_option,
    print_json,
    profile_option,
    results_folder,
    results_option,
    seeds_option,
    set_option,
    stopping_options,
)
from yolor_core.errors import counted
from yolor_core.runs import State

if TYPE_CHECKING:
    from ablations.costs import Estimate
    from ablations.planned import PlannedRun
    from analysis.plan_file import Rule
    from slurm.local import Outcome


@click.command(
    "launch",
    epilog=examples(
        "ablate launch 1 2 --seeds 3",
        "ablate launch --all --dry-run",
        "ablate launch 1 4 --precision 0.33 --budget 20",
        "ablate launch 1 4 --until-verdict --most 20",
        "ablate launch 1 --profile paper --data /path/to/coco --cluster example",
    ),
)
@click.argument(
    "names",
    nargs=-1,
    metavar="[TABLE|EXPERIMENT|FILE.py]...",
    shell_complete=completing("tables", "experiments"),
)
@click.option("--all", "everything", is_flag=True, help="All of the ablation study: Tables 1-8.")
@profile_option
@seeds_option()
@data_option
@set_option
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs at a time, in equal parts on the GPUs; else as many as cores allow, one to a GPU.",
)
@click.option(
    "--precision",
    type=AP_POINTS,
    metavar="AP",
    help="Add seeds until every comparison's 95 % interval is ± so many AP points, e.g. 0.33.",
)
@click.option(
    "--budget", type=HOURS, metavar="HOURS", help="At most: core-hours here, GPU hours on a cluster."
)
@click.option("--until-verdict", is_flag=True, help="Add seeds to each row until its verdict stands.")
@stopping_options
@click.option("--wait", is_flag=True, help="On a cluster: wait, look, and submit the next seeds, to the end.")
@results_option
@cluster_option
@click.option("--force", is_flag=True, help="Submit although the time limit looks shorter than an epoch.")
@click.option(
    "--dry-run", is_flag=True, help="Only say what would run, and how long; with --cluster, the scripts."
)
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
    precision: float | None,
    budget: float | None,
    until_verdict: bool,
    margin: float,
    most: int | None,
    batch: int | None,
    wait: bool,
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

    Ctrl-C lets every run save its work and stops; the same command resumes them. A run that fails does not
    stop the others. Exit code: 0 when all are done, 1 when some failed, 130 when interrupted. A finished
    run that has lost its weights, its evaluation or its record is trained again.

    --precision and --until-verdict choose the seeds themselves, batch by batch, by a rule that is written
    down before the first run; docs/seeds.md says which. On a cluster the same command, run again, takes the
    next look.
    """
    from ablations.registry import tables
    from yolor_core.errors import ConfigError

    if not names and not everything:
        raise click.UsageError("name tables or experiments, or say --all")
    for name in names if everything else ():
        if name.removeprefix("table") in tables():
            raise ConfigError(f"--all has table {name.removeprefix('table')} already; say one of the two")
    wanted = [*tables(), *names] if everything else list(names)
    if jobs is not None and cluster is not None:
        raise click.UsageError("--jobs is for this machine; a cluster's profile has `parallel`")
    if precision is not None or until_verdict:
        if precision is not None and until_verdict:
            raise click.UsageError("say --precision or --until-verdict; one rule says when to stop")
        if ctx.get_parameter_source("seeds") != click.core.ParameterSource.DEFAULT:
            raise click.UsageError("--seeds is for a fixed number; --precision and --until-verdict find it")
        if precision is not None and ctx.get_parameter_source("margin") != click.core.ParameterSource.DEFAULT:
            raise click.UsageError("--margin goes with --until-verdict; --precision has no use for it")
        from ablations.commands.until import stopping_rule

        rule = stopping_rule(precision, margin, most, batch)
        ctx.exit(
            launch_until(
                ctx, wanted, profile, overrides, data, jobs, rule, budget, wait, results, cluster, force,
                dry_run, as_json,
            )
        )  # fmt: skip
    for name in ("budget", "margin", "most", "batch", "wait"):
        if ctx.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} goes with --precision or --until-verdict")
    if cluster is None:
        ctx.exit(launch_here(wanted, profile, seeds, overrides, data, jobs, results, dry_run, as_json))
    ctx.exit(
        launch_on_cluster(
            ctx, wanted, profile, seeds, overrides, data, results, cluster, force, dry_run, as_json
        )
    )


def launch_until(
    ctx: click.Context,
    wanted: Sequence[str],
    profile: str,
    overrides: tuple[str, ...],
    data: str | None,
    jobs: int | None,
    rule: Rule,
    budget: float | None,
    wait: bool,
    results: Path,
    name: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Add seeds by a rule, here or on a cluster; returns the exit code."""
    from ablations.commands.until import Until, until_here, until_on_cluster
    from slurm.cluster import load_cluster

    if name is None:
        if wait:
            raise click.UsageError("--wait is for a cluster; here a launch always waits")
        until = Until(wanted, profile, overrides, data, results, rule, budget, as_json)
        return until_here(until, jobs, dry_run)
    cluster = load_cluster(name)
    results = results_folder(ctx, results, cluster.results)
    data = data or cluster.data or None
    until = Until(wanted, profile, overrides, data, results, rule, budget, as_json, cluster)
    return until_on_cluster(until, force, dry_run, wait)


def launch_here(
    wanted: Sequence[str],
    profile: str,
    seeds: Sequence[int],
    overrides: tuple[str, ...],
    data: str | None,
    jobs: int | None,
    results: Path,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Plan for this machine, say so, and train unless `dry_run`; returns the exit code."""
    from ablations.costs import local_estimates
    from ablations.display import clock, tell_of_data
    from ablations.launch_report import local_time, report, warn_of_damage, warn_of_other_code
    from ablations.local_launch import at_a_time, fitting, require_writable, run_missing
    from ablations.plan import on_a_cluster, plan_runs, refuse_published
    from yolor_core.runs.directory import RunDirectory

    refuse_published(results)
    planned = plan_runs(wanted, profile, seeds, overrides, data, results)
    states = {run.run_id: RunDirectory(run.run_dir).life() for run in planned}
    elsewhere = on_a_cluster([run for run in planned if states[run.run_id] != State.DONE])
    missing = [run for run in planned if states[run.run_id] != State.DONE and run.run_id not in elsewhere]
    parallel = jobs or fitting(planned)
    click.echo(
        f"{counted(len(planned), 'run')}: {len(planned) - len(missing) - len(elsewhere)} done, "
        f"{len(missing)} to run, {at_a_time(min(parallel, len(missing)))}; in {results / 'runs'}",
        err=as_json,
    )
    for name, why in elsewhere.items():
        click.echo(f"left out: {name} {why}", err=True)
    warn_of_other_code(planned, states)
    tell_of_data(planned, states)
    warn_of_damage(planned, states)
    outcomes: dict[str, Outcome] = {}
    interrupted = False
    estimates: dict[str, Estimate] = {}
    if dry_run:
        estimates, whose = local_estimates(missing, results)
        for run in () if as_json else planned:
            word = "leave" if run.run_id in elsewhere else action(states[run.run_id])
            took = f"  {clock(estimates[run.run_id].seconds)}" if run.run_id in estimates else ""
            click.echo(f"{word:<6}  {run.run_id}  ({states[run.run_id]}){took}")
        if missing:
            click.echo(local_time(estimates, whose, min(parallel, len(missing))), err=as_json)
    elif missing:
        if not all(run.run_dir.exists() for run in missing):
            require_writable(results / "runs")
        outcomes, interrupted = run_missing(missing, parallel, sys.stderr if as_json else sys.stdout)
    if as_json:
        records = [record(run, states[run.run_id], outcomes.get(run.run_id)) for run in planned]
        for each in records:
            if each["run"] in estimates:
                each["seconds_expected"] = round(estimates[each["run"]].seconds, 1)
            if each["run"] in elsewhere:
                each |= {"action": "leave", "reason": elsewhere[each["run"]]}
        print_json(records)
    return report(outcomes, missing, interrupted) or int(bool(elsewhere))


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
    from ablations.display import tell_of_data
    from ablations.launch_report import (
        describe_plan,
        scripts,
        tell,
        tell_foreign_options,
        tell_left_out,
        warn_of_damage,
    )
    from ablations.plan import plan_runs, refuse_published
    from ablations.registry import select
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
        tell_foreign_options()
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
        print_json(content)
    if sent is not None and sent.signal is not None:
        return 128 + sent.signal
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
