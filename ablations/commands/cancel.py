"""`ablate cancel`: take submitted runs off the cluster."""

from __future__ import annotations

from pathlib import Path

import click

from ablations.options import read_results_option


@click.command("cancel")
@click.argument("names", nargs=-1, metavar="[RUN|EXPERIMENT]...")
@click.option("--all", "everything", is_flag=True, help="Every submitted run of this results folder.")
@read_results_option
def command(names: tuple[str, ...], everything: bool, results: Path) -> None:
    """Cancel runs that wait or run on a cluster. A running one saves itself first; a later launch goes on.

    Names are those of `ablate status`: a whole one, its beginning, an experiment, or a pattern with *.
    """
    from ablations.columns import counted
    from ablations.overview import chosen, overview
    from slurm import scheduler

    if bool(names) == everything:
        raise click.UsageError("name runs, or say --all")
    scheduler.require()
    views = overview(results, scheduler.SECONDS)
    wanted = views if everything else chosen(views, names)
    mine = [view for view in wanted if view.submitted]
    live = [view for view in mine if view.job]
    for view in mine:
        if view.token is not None:
            view.token.cancel()  # first, so that a run that is just being requeued sees it
    scheduler.cancel([view.job for view in live if view.job])
    for view in (view for view in mine if not view.job):
        click.echo(f"{view.run} is just being submitted; if its job comes, it will end at once", err=True)
    rest = len(wanted) - len(mine)
    others = f"; {counted(rest, 'other')} {'was' if rest == 1 else 'were'} not on the cluster" if rest else ""
    click.echo(f"cancelled {counted(len(live), 'run')}{others}")
