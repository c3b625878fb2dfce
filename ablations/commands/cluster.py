"""`ablate cluster`: profiles of clusters, and whether one works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import json_option, results_folder, results_option

if TYPE_CHECKING:
    from slurm.probe import Finding

MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}


@click.group("cluster")
def command() -> None:
    """Cluster profiles: list them, show one in full, check that it works."""


@command.command("list")
@json_option
def list_profiles(as_json: bool) -> None:
    """The profiles that come with the suite; a profile of your own is passed by path."""
    from slurm.cluster import known_clusters

    known = known_clusters()
    if as_json:
        click.echo(json.dumps({name: str(path) for name, path in known.items()}, indent=1))
        return
    for name, path in known.items():
        about = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        click.echo(f"{name:<10}  {about}\n{'':<10}  {path}")


@command.command("show")
@click.argument("profile")
def show(profile: str) -> None:
    """PROFILE with every key that it leaves at its default."""
    from slurm.cluster import load_cluster

    click.echo(json.dumps(load_cluster(profile).model_dump(mode="json"), indent=1, ensure_ascii=False))


@command.command("check")
@click.argument("profile")
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
    from slurm.cluster import load_cluster
    from slurm.files import replace_json
    from slurm.probe import Finding, judge, look_around, send_probe
    from slurm.scheduler import ClusterError
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
                judge(cluster, seen, results, code, tell)
                replace_json(results / "clusters" / f"{cluster.name}.json", {"shared": True, **seen})
    good = all(finding.level != "problem" for finding in found)
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in found], indent=1, ensure_ascii=False))
    ctx.exit(0 if good else 1)
