"""`ablate cluster`: profiles of clusters, and whether one works. `ablate cancel` and `retry`: runs on one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import completing, examples, json_option, print_json, results_folder, results_option

if TYPE_CHECKING:
    from slurm.probe import Finding


from typing import TYPE_CHECKING

from ablations.options import cluster_option, read_results_option
from yolor_core.runs import State

if TYPE_CHECKING:
    from ablations.display import RunView
    from ablations.planned import PlannedRun
    from slurm.cluster import Cluster


MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}


@click.group("cluster", epilog=examples("ablate cluster list", "ablate cluster check mycluster.toml"))
def cluster_group() -> None:
    """Cluster profiles: list them, show one in full, check that it works."""


@cluster_group.command("list", epilog=examples("ablate cluster list"))
@json_option
def list_profiles(as_json: bool) -> None:
    """The profiles that come with the suite; a profile of your own is passed by path."""
    from slurm.cluster import known_clusters

    known = known_clusters()
    if as_json:
        print_json({name: str(path) for name, path in known.items()})
        return
    for name, path in known.items():
        about = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        click.echo(f"{name:<10}  {about}\n{'':<10}  {path}")


@cluster_group.command("show", epilog=examples("ablate cluster show example"))
@click.argument("profile", shell_complete=completing("clusters"))
def show(profile: str) -> None:
    """PROFILE with every key that it leaves at its default."""
    from slurm.cluster import load_cluster

    print_json(load_cluster(profile).model_dump(mode="json"))


@cluster_group.command("check", epilog=examples("ablate cluster check mycluster.toml --timeout 900"))
@click.argument("profile", shell_complete=completing("clusters"))
@results_option
@click.option(
    "--timeout", default=600, show_default=True, metavar="SECONDS", help="To wait for the tiny job."
)
@json_option
@click.pass_context
def check(ctx: click.Context, profile: str, results: Path, timeout: int, as_json: bool) -> None:
    """Try PROFILE out: look at the cluster, send a tiny job, and say what does not work.

    Exit code: 0 when runs can be launched, 1 when there is a problem.
    """
    from slurm import ClusterError
    from slurm.cluster import load_cluster
    from slurm.files import replace_json
    from slurm.probe import Finding, conclude, look_around, send_probe
    from slurm.submission import freeze
    from yolor_core.identity import code_commit

    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            word, colour = MARKS[finding.level]
            click.echo(f"{click.style(word.rjust(7), fg=colour)}  {finding.what}: {finding.words}")

    cluster = load_cluster(profile)
    results = results_folder(ctx, results, cluster.results)
    if look_around(cluster, tell):
        commit, dirty = code_commit()
        code = freeze(results, {"commit": commit, "dirty": dirty})
        try:
            seen = send_probe(cluster, results, code, cluster.data, timeout, tell)
        except ClusterError as error:
            tell(Finding("problem", "submission", str(error)))
        else:
            if seen is not None:
                conclude(cluster, seen, results, code, tell)
                replace_json(results / "clusters" / f"{cluster.name}.json", {"shared": True, **seen})
    good = all(finding.level != "problem" for finding in found)
    if as_json:
        print_json([vars(finding) for finding in found])
    ctx.exit(0 if good else 1)


@click.command("cancel", epilog=examples("ablate cancel csp-fast.add-fa", "ablate cancel --all"))
@click.argument(
    "names", nargs=-1, metavar="[RUN|EXPERIMENT]...", shell_complete=completing("experiments", "runs")
)
@click.option("--all", "everything", is_flag=True, help="Every submitted run of this results folder.")
@read_results_option
@click.pass_context
def cancel(ctx: click.Context, names: tuple[str, ...], everything: bool, results: Path) -> None:
    """Cancel runs that wait or run on a cluster. A running one saves itself first; a later launch resumes it.

    Names are those of `ablate status`: a whole one, its beginning, an experiment, or a pattern with *.
    """
    from ablations.overview import chosen, overview
    from slurm import ClusterError, scheduler
    from yolor_core.errors import counted

    if bool(names) == everything:
        raise click.UsageError("name runs, or say --all")
    scheduler.require()
    views = overview(results, scheduler.SECONDS)
    wanted = views if everything else chosen(views, names)
    mine = [view for view in wanted if view.submitted]
    live = [view for view in mine if view.job]
    # A job with runs that stay goes on; the others in it see the mark, and end by themselves.
    names_of_mine = {view.run for view in mine}
    staying = {view.job for view in views if view.submitted and view.run not in names_of_mine}
    refused = _cancel([view for view in live if view.job not in staying])
    live = [view for view in live if view.run not in refused]
    # Noted after SLURM has taken the order, for else they go on. Then once more, because one that saved
    # itself at this moment may have been put back in the queue before it was noted.
    for view in mine:
        if view.token is not None and view.run not in refused:
            try:
                view.token.cancel()
            except OSError as error:  # SLURM has ended it all the same
                click.echo(f"{view.run}: that it is cancelled cannot be noted: {error.strerror}", err=True)
    with suppress(ClusterError):
        scheduler.cancel({view.job for view in live if view.job and view.job not in staying})
    for why in refused.values():
        click.echo(f"not cancelled: {why}", err=True)
    for view in (view for view in mine if not view.job):
        click.echo(f"{view.run} is just being submitted; if its job comes, it will end at once", err=True)
    rest = len(wanted) - len(mine)
    others = f"; {counted(rest, 'other')} {'was' if rest == 1 else 'were'} not on the cluster" if rest else ""
    click.echo(f"cancelled {counted(len(live), 'run')}{others}")
    ctx.exit(1 if refused else 0)


def _cancel(views: Sequence[RunView]) -> dict[str, str]:
    """Tell SLURM to end the runs' jobs; which ones it would not, because they are another user's, and why.

    Raises ClusterError where it would not end the caller's own.
    """
    from slurm import ClusterError, scheduler
    from slurm.tokens import user

    refused: dict[str, str] = {}
    owners = {view.run: view.token.user for view in views if view.token is not None}
    for owner in sorted(set(owners.values()), key=lambda name: name != user()):  # the caller's own first
        theirs = [view for view in views if owners.get(view.run) == owner]
        try:
            scheduler.cancel(dict.fromkeys(view.job for view in theirs if view.job))
        except ClusterError as error:
            if owner == user():
                raise
            refused |= {view.run: f"{view.run} is {owner}'s: {error}" for view in theirs}
    return refused


@click.command("retry", epilog=examples("ablate retry --failed"))
@click.argument(
    "names", nargs=-1, metavar="[RUN|EXPERIMENT]...", shell_complete=completing("experiments", "runs")
)
@click.option("--failed", is_flag=True, help="Every run that failed, was lost or was cancelled.")
@cluster_option
@read_results_option
@click.option("--force", is_flag=True, help="Submit although the time limit looks shorter than an epoch.")
@click.pass_context
def retry(
    ctx: click.Context, names: tuple[str, ...], failed: bool, cluster: str | None, results: Path, force: bool
) -> None:
    """Submit runs again, with their own configuration and the cluster profile that they were sent with.

    They resume from their last checkpoints. --cluster sends them with another profile. Runs that are done,
    wait or run are left alone.
    """
    from ablations.cluster_launch import check, plan_on_cluster, send
    from ablations.launch_report import tell, tell_foreign_options, tell_left_out
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
        tell_foreign_options()
        sent = send(plan)
        tell(plan, sent)
        if sent.signal is not None:
            ctx.exit(128 + sent.signal)
        problem |= bool(sent.problem or sent.left_out or plan.held)
    ctx.exit(1 if problem else 0)


def _planned(run_dir: Path) -> PlannedRun | None:
    """A run as it was planned when it was submitted; None where nobody wrote that down."""
    from ablations.planned import read_planned
    from yolor_core.errors import RunError

    try:
        return read_planned(run_dir)[0]
    except RunError:
        return None


def _sent_with(view: RunView, results: Path) -> Cluster | None:
    """The profile as it was at the run's last submission. Raises RunError where this version has no such."""
    from slurm.cluster import Cluster
    from slurm.files import read_json
    from yolor_core.errors import RunError

    launch = str(view.token.content.get("launch")) if view.token else ""
    path = results / "launches" / launch / "launch.json"
    record = read_json(path)
    try:
        return Cluster.model_validate(record["cluster"]) if record else None
    except (KeyError, ValueError):
        raise RunError(f"{path} holds no profile that this version takes; name one with --cluster") from None
