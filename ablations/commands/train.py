"""`ablate train`: one experiment in this process, to watch it or to debug it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import data_option, profile_option, results_option, set_option

if TYPE_CHECKING:
    from ablations.plan import PlannedRun
    from slurm.signals import StopFlag

LINE_SECONDS = 5.0
INTERRUPTED = 130


@click.command("train")
@click.argument("experiment")
@profile_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@data_option
@set_option
@results_option
@click.pass_context
def command(
    ctx: click.Context,
    experiment: str,
    profile: str,
    seed: int,
    data: str | None,
    overrides: tuple[str, ...],
    results: Path,
) -> None:
    """Train EXPERIMENT (a name of `ablate list`) here, going on where an earlier attempt ended.

    Ctrl-C saves at the next step and stops; a second one stops at once.
    """
    import signal

    from ablations.plan import plan_runs
    from ablations.registry import experiment_named
    from slurm.signals import stop_on

    experiment_named(experiment)  # a table would be more than one run
    with stop_on(signal.SIGINT, signal.SIGTERM, once=True) as stop:
        for run in plan_runs([experiment], profile, [seed], overrides, data, results):
            if train_here(run, stop) != "done":
                click.echo("interrupted; the same command goes on from here", err=True)
                ctx.exit(INTERRUPTED)


def train_here(run: PlannedRun, stop: StopFlag) -> str:
    """Train one run unless it is done, printing a line now and then. Returns its state."""
    from slurm.progress import clock, describe, snapshot
    from yolor_core.runs.directory import RunDirectory
    from yolor_core.training import train

    if RunDirectory(run.run_dir).complete():  # a damaged state.json is refused here
        click.echo(f"{run.run_id} is done: {describe(snapshot(run.run_dir))}  ({run.run_dir})")
        return "done"
    click.echo(f"{run.run_id}  ({run.run_dir})")
    printed = time.monotonic()

    def stop_and_report() -> bool:  # training asks this between any two steps
        nonlocal printed
        if time.monotonic() - printed > LINE_SECONDS:
            printed = time.monotonic()
            seen = snapshot(run.run_dir)
            click.echo(f"{describe(seen)}  step {seen.step}/{seen.steps}  {clock(seen.seconds)}")
        return stop()

    state: str = train(run.config, run.run_dir, stop_and_report)
    seen = snapshot(run.run_dir)
    click.echo(f"{state}: {describe(seen)}  {clock(seen.seconds)}")
    return state
