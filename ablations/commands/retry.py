"""`ablate retry`: submit runs again, as they were submitted before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import cluster_option, read_results_option
from yolor_core.runs.life import State

if TYPE_CHECKING:
    from ablations.overview import RunView
    from ablations.plan import PlannedRun
    from slurm.cluster import Cluster


@click.command("retry")
@click.argument("names", nargs=-1, metavar="[RUN|EXPERIMENT]...")
@click.option("--failed", is_flag=True, help="Every run that failed, was lost or was cancelled.")
@cluster_option
@read_results_option
@click.option("--force", is_flag=True, help="Submit although the time limit looks shorter than an epoch.")
@click.pass_context
def command(
    ctx: click.Context, names: tuple[str, ...], failed: bool, cluster: str | None, results: Path, force: bool
) -> None:
    """Submit runs again, with their own configuration and the cluster profile that they were sent with.

    They go on from their last checkpoints. --cluster sends them with another profile. Runs that are done,
    wait or run are left alone.
    """
    from ablations.cluster_launch import check, plan_on_cluster, send
    from ablations.cluster_report import tell, tell_left_out
    from ablations.overview import UNFINISHED, chosen, overview
    from slurm import scheduler
    from slurm.cluster import load_cluster
    from yolor_core.errors import RunError

    if not names and not failed:
        raise click.UsageError("name runs, or say --failed")
    scheduler.require()
    views = overview(results, scheduler.SECONDS)
    wanted = chosen(views, names) if names else views
    if failed:
        wanted = [view for view in wanted if view.token and view.state in (*UNFINISHED, State.PREEMPTED)]
    if not wanted:
        click.echo("nothing to retry")
        return
    groups: dict[str, tuple[Cluster, list[RunView]]] = {}
    for view in wanted:
        profile = load_cluster(cluster) if cluster else _sent_with(view, results)
        if profile is None:
            raise RunError(f"{view.run} was not submitted to a cluster; name a profile with --cluster")
        groups.setdefault(profile.model_dump_json(), (profile, []))[1].append(view)
    problem = False
    for profile, members in groups.values():
        planned = {view.run: _planned(view.run_dir) for view in members}
        for name in (name for name, run in planned.items() if run is None):
            click.echo(
                f"left out: {name}: its planned.json is missing or damaged; launch it instead", err=True
            )
            problem = True
        plan = plan_on_cluster([run for run in planned.values() if run is not None], profile, results)
        tell_left_out(plan.held)
        check(plan, force)
        if not plan.requests:
            click.echo("nothing to retry")
            problem |= bool(plan.held)
            continue
        sent = send(plan)
        tell(plan, sent)
        problem |= bool(sent.problem or sent.left_out or plan.held)
    ctx.exit(1 if problem else 0)


def _planned(run_dir: Path) -> PlannedRun | None:
    """A run as it was planned when it was submitted; None where nobody wrote that down."""
    from ablations.plan import read_planned
    from yolor_core.errors import RunError

    try:
        return read_planned(run_dir)[0]
    except RunError:
        return None


def _sent_with(view: RunView, results: Path) -> Cluster | None:
    """The profile as it was at the run's last submission."""
    from slurm.cluster import Cluster
    from slurm.files import read_json

    launch = str(view.token.content.get("launch")) if view.token else ""
    record = read_json(results / "launches" / launch / "launch.json")
    return Cluster.model_validate(record["cluster"]) if record else None
