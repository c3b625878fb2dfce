"""`ablate list`: every experiment and the rows it fills."""

from __future__ import annotations

import json
from typing import Any

import click

from ablations.options import json_option, profile_option, set_option


@click.command("list")
@click.argument("names", nargs=-1, metavar="[TABLE|EXPERIMENT|FILE.py]...")
@click.option("--everything", is_flag=True, help="Tables 9, A1, A2, 3x, 6x and controls too.")
@profile_option
@set_option
@json_option
def command(
    names: tuple[str, ...], everything: bool, profile: str, overrides: tuple[str, ...], as_json: bool
) -> None:
    """List every experiment and the table rows it fills; those of Tables 1-8 without arguments."""
    if everything:
        from ablations.registry import everything as all_tables

        names = (*(table.name for table in all_tables().tables), *names)
    records = describe(names, profile, overrides)
    if as_json:
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
        return
    lines = [("experiment", "model", "size", "rows")]
    for record in records:
        rows = ", ".join(f"{place['table']}: {place['row']}" for place in record["rows"])
        lines.append((record["experiment"], record["model"], str(record["size"]), rows))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    count = sum(counted(names, record) for record in records)
    click.echo(f"{len(records)} experiments, {count} rows, profile {profile}")


def counted(names: tuple[str, ...], record: dict[str, Any]) -> int:
    """Rows of an experiment in the tables that were chosen; in all of them where it was named itself."""
    from ablations.registry import select

    selection = select(names)
    if record["experiment"] in selection.named:
        return len(record["rows"])
    chosen = {table.name for table in selection.tables}
    return sum(place["table"] in chosen for place in record["rows"])


def describe(names: tuple[str, ...], profile: str, overrides: tuple[str, ...]) -> list[dict[str, Any]]:
    """One record per experiment."""
    from ablations.registry import everything, resolve, select
    from yolor_core.identity import signature

    selection = select(names)
    records = []
    for experiment in selection.experiments:
        science = resolve(experiment, profile, overrides)
        slug = experiment.slug
        places = dict.fromkeys((*everything().places(slug), *selection.places(slug)))
        records.append(
            {
                "experiment": experiment.slug,
                "signature": signature(science),
                "model": science.model.architecture,
                "size": science.evaluation.size,
                "profile": profile,
                "rows": [{"table": table.name, "row": row.label} for table, row in places],
            }
        )
    return records
