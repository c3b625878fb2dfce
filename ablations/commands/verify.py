"""`ablate verify`: make every number of a published folder again, and compare."""

from __future__ import annotations

from pathlib import Path

import click

from ablations.options import Folder


@click.command("verify")
@click.argument("folder", type=Folder(path_type=Path), default=Path("results/published/mini"))
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that share the work.  [default: as many as cores, fewer for few runs]",
)
@click.pass_context
def command(ctx: click.Context, folder: Path, processes: int | None) -> None:
    """Make the numbers of a folder of `ablate publish` again from its runs, and compare them.

    Exit code 0: all numbers are equal; 1: some differ, and the first of them are named. Texts that another
    version of the code words otherwise are named too, and are no difference.
    """
    from ablations.costs import costs_of
    from analysis.published.manifest import read_manifest
    from analysis.published.verify import verify

    differences = wording = 0
    try:
        for check in verify(folder, costs_of, processes):
            click.echo(check.line)
            differences += len(check.differences)
            wording += len(check.wording)
    except KeyboardInterrupt:
        click.echo("interrupted: not everything was compared", err=True)
        ctx.exit(130)
    if differences:
        click.echo(f"{folder}: {differences} difference{'s' if differences != 1 else ''}")
        ctx.exit(1)
    if wording:
        commit = read_manifest(folder)[0].commit or "unknown"
        click.echo(
            f"{folder}: every number compared is equal; {wording} place{'s are' if wording != 1 else ' is'} "
            f"worded or laid out otherwise by this version of the code. Published by commit {commit}, which "
            "compares that too"
        )
    else:
        click.echo(f"{folder}: verified")
