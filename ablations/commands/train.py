"""`ablate train`: one experiment in this process, to watch it or to debug it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import completing, data_option, examples, profile_option, results_option, set_option

if TYPE_CHECKING:
    from ablations.planned import PlannedRun
    from slurm.worker import StopFlag


@click.command("train", epilog=examples("ablate train csp-fast.add-fa --seed 3"))
@click.argument("experiment", shell_complete=completing("experiments"))
@profile_option
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of initial weights, data order and augmentation.",
)
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
    """Train EXPERIMENT (a name of `ablate list`) here, or resume it where an earlier attempt ended.

    Ctrl-C saves at the next step and stops; a second one stops at once. Under torchrun or srun all processes
    train one run together, and only the first one prints.
    """
    import signal

    from ablations.display import INTERRUPTED, tell_of_data
    from ablations.plan import on_a_cluster, plan_runs, refuse_published
    from ablations.registry import everything, experiment_named
    from slurm.worker import stop_on
    from yolor_core.errors import ConfigError, RunError
    from yolor_core.runs.directory import RunDirectory
    from yolor_core.training.distributed import place

    refuse_published(results)
    if experiment.removeprefix("table") in {table.name for table in everything().tables}:
        raise ConfigError(
            f"{experiment} is a table, more than one run: `ablate launch {experiment}` makes them"
        )
    experiment_named(experiment)
    speaks = place().rank == 0
    with stop_on(signal.SIGINT, signal.SIGTERM, once=True) as stop:
        runs = plan_runs([experiment], profile, [seed], overrides, data, results)
        for name, why in on_a_cluster(runs).items() if speaks else ():
            raise RunError(f"{name} {why}")
        if speaks:
            tell_of_data(runs, {run.run_id: RunDirectory(run.run_dir).life() for run in runs})
        for run in runs:
            if train_here(run, stop, quiet=not speaks) != "done":
                if speaks:
                    click.echo("interrupted; the same command goes on from here", err=True)
                ctx.exit(INTERRUPTED)


def train_here(run: PlannedRun, stop: StopFlag, quiet: bool = False) -> str:
    """Train one run unless it is done, and say how it goes unless `quiet`. Returns its state."""
    from rich.console import Console

    from ablations.display import clock, describe, seen
    from ablations.planned import planned_record
    from ablations.watching import TrainingWatch, conclusion, last_scores, scores
    from ablations.worker import train
    from slurm.files import replace_json
    from yolor_core.runs.directory import RunDirectory

    folder = RunDirectory(run.run_dir)
    if folder.complete():  # a damaged state.json is refused here
        if not quiet:
            click.echo(f"{run.run_id} is done: {describe(seen(run.run_dir))}  ({run.run_dir})")
        return "done"
    planned = run.run_dir / "planned.json"
    if not (planned.exists() and folder.running()):  # another process, or the first rank of this training
        replace_json(planned, planned_record(run))
    if quiet:
        return train(run.run_dir, stop)

    watch = TrainingWatch(run, Console())
    said = False

    def stop_and_say() -> bool:  # training asks this between any two steps
        nonlocal said
        if stop() and not said:
            said = True
            watch.stopping()
        return stop()

    with watch:
        state = train(run.run_dir, stop_and_say, watch)
    last = seen(run.run_dir)
    measured = scores(last_scores(folder.read_metrics()))
    parts = (f"{state}: epoch {last.epoch}/{last.epochs}", measured, f"{clock(last.seconds)} of training")
    click.echo("  ".join(part for part in parts if part))
    if state == "done":
        click.echo(conclusion(run))
    return state
