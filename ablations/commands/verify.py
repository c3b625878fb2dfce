"""`ablate verify`: make every number of a published folder again, and compare."""

from __future__ import annotations

from pathlib import Path

import click

from ablations.options import Folder


@click.command("verify")
@click.argument("folder", type=Folder(path_type=Path), default=Path("results/published/mini"))
@click.pass_context
def command(ctx: click.Context, folder: Path) -> None:
    """Make the numbers of a folder of `ablate publish` again from its runs, and compare them.

    Exit code 0: all are equal; 1: some differ, and the first of them are named.
    """
    from ablations.commands.tables import costs_of
    from analysis.published.verify import verify

    differences = 0
    for check in verify(folder, costs_of):
        click.echo(check.line)
        differences += len(check.differences)
    found = f"{differences} difference{'s' if differences != 1 else ''}" if differences else "verified"
    click.echo(f"{folder}: {found}")
    ctx.exit(1 if differences else 0)
