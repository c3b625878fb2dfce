"""`ablate list`: every experiment and the rows it fills. `ablate show`: what an experiment or a table is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ablations.options import completing, examples, json_option, print_json, profile_option, set_option
from yolor_core.errors import counted

if TYPE_CHECKING:
    from ablations.experiments import Experiment
    from ablations.registry import Selection
    from ablations.table import Table


@click.command("list", epilog=examples("ablate list", "ablate list 4 csp-fast --profile paper"))
@click.argument(
    "names",
    nargs=-1,
    metavar="[TABLE|EXPERIMENT|FILE.py]...",
    shell_complete=completing("tables", "experiments"),
)
@click.option("--everything", is_flag=True, help="Tables 9, A1, A2, 3x, 6x and controls too.")
@profile_option
@set_option
@json_option
def list_command(
    names: tuple[str, ...], everything: bool, profile: str, overrides: tuple[str, ...], as_json: bool
) -> None:
    """List every experiment and the table rows it fills; those of Tables 1-8 without arguments."""
    from ablations.registry import everything as all_tables
    from ablations.registry import tables

    further = [table.name for table in all_tables().tables if table.name not in tables()]
    rest = f"Tables {', '.join(further[:-1])} and {further[-1]}"
    asked = bool(names or everything)
    of, more = ("", "") if asked else (" of Tables 1-8", f"; `ablate list --everything` adds {rest}")
    if everything:
        names = (*(table.name for table in all_tables().tables), *names)
    records = describe_all(names, profile, overrides)
    if as_json:
        print_json(records)
        return
    lines = [("experiment", "model", "size", "rows")]
    for record in records:
        rows = ", ".join(f"{place['table']}: {place['row']}" for place in record["rows"])
        lines.append((record["experiment"], record["model"], str(record["size"]), rows))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    count = sum(rows_of(names, record) for record in records)
    click.echo(f"{counted(len(records), 'experiment')}, {counted(count, 'row')}{of}, profile {profile}{more}")


def rows_of(names: tuple[str, ...], record: dict[str, Any]) -> int:
    """Rows of an experiment in the tables that were chosen; in all of them where it was named itself."""
    from ablations.registry import select

    selection = select(names)
    if record["experiment"] in selection.named:
        return len(record["rows"])
    chosen = {table.name for table in selection.tables}
    return sum(place["table"] in chosen for place in record["rows"])


def describe_all(names: tuple[str, ...], profile: str, overrides: tuple[str, ...]) -> list[dict[str, Any]]:
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


@click.command("show", epilog=examples("ablate show csp-fast.add-fa", "ablate show 4"))
@click.argument(
    "name", metavar="EXPERIMENT|TABLE|FILE.py", shell_complete=completing("tables", "experiments")
)
@profile_option
@set_option
@json_option
def show(name: str, profile: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show a table, or an experiment: its purpose, difference to the baseline, full configuration."""
    from ablations.registry import select

    selection = select([name])
    if selection.named:
        record = describe_experiment(selection.experiment(name), selection, profile, overrides)
        print_json(record) if as_json else click.echo(_experiment_text(record))
        return
    if selection.tables:
        records = [describe_table(table) for table in selection.tables]
        to_text = _table_text
    else:  # a file that defines experiments only
        records = [describe_experiment(e, selection, profile, overrides) for e in selection.experiments]
        to_text = _experiment_text
    if as_json:
        print_json(records[0] if len(records) == 1 else records)
        return
    click.echo("\n\n".join(to_text(record) for record in records))


def describe_table(table: Table) -> dict[str, Any]:
    """A table as plain data."""
    paper = table.paper()
    return {
        "table": table.name,
        "title": table.title,
        "section": table.section,
        "question": table.question,
        "hypothesis": table.hypothesis,
        "remarks": [*table.remarks, *table.notes],
        "rows": [
            {
                "row": row.label,
                "experiment": row.slug,
                "change": row.change,
                "against": list(table.compared(row)),
                "cost": row.cost,
                "paper": paper.get(row.label, {}),
            }
            for row in table.rows
        ],
    }


def describe_experiment(
    experiment: Experiment, selection: Selection, profile: str, overrides: tuple[str, ...]
) -> dict[str, Any]:
    """An experiment at a profile as plain data; `difference` lists fields unlike the baseline's."""
    from ablations.registry import everything, resolve
    from yolor_core.config import leaves
    from yolor_core.identity import signature

    science = resolve(experiment, profile, overrides)
    places = dict.fromkeys((*everything().places(experiment.slug), *selection.places(experiment.slug)))
    bases = [table.baseline(row).experiment for table, row in places]
    base = next((b for b in bases if b is not None and b.slug != experiment.slug), None)
    difference = []
    if base is not None:
        own, other = dict(leaves(science)), dict(leaves(resolve(base, profile, overrides)))
        fields = dict.fromkeys((*other, *own))
        difference = [
            {"field": name, "baseline": other.get(name), "value": own.get(name)}
            for name in fields
            if (own.get(name) or None) != (other.get(name) or None)  # an empty list is an absent one
        ]
    return {
        "experiment": experiment.slug,
        "title": experiment.title,
        "profile": profile,
        "signature": signature(science),
        "continues": experiment.continues,
        "rows": [
            {
                "table": table.name,
                "row": row.label,
                "question": table.question,
                "hypothesis": table.hypothesis,
                "change": row.change,
                "cost": row.cost,
            }
            for table, row in places
        ],
        "baseline": base.slug if base is not None else None,
        "difference": difference,
        "science": science.model_dump(mode="json"),
    }


def _experiment_text(record: dict[str, Any]) -> str:
    from yolor_core.config import leaves

    lines = [f"{record['experiment']}: {record['title']}"]
    if record["continues"]:
        lines.append(f"starts from the checkpoint of {record['continues']}")
    for row in record["rows"]:
        lines += [
            "",
            f"Table {row['table']}, row {row['row']!r}: {row['change']}",
            *_wrapped(row["hypothesis"]),
        ]
        lines.append(f"  cost at the paper's scale: {row['cost']}")
    if record["baseline"]:
        lines += ["", f"Difference to {record['baseline']} (profile {record['profile']}):"]
        lines += [
            f"  {d['field']}: {_shown(d['baseline'])} -> {_shown(d['value'])}" for d in record["difference"]
        ]
    lines += ["", f"Configuration at profile {record['profile']}, signature {record['signature']}:"]
    lines += [f"  {name} = {json.dumps(value)}" for name, value in leaves(record["science"])]
    return "\n".join(lines)


def _table_text(record: dict[str, Any]) -> str:
    section = f" (section {record['section']})" if record["section"] else ""
    lines = [f"Table {record['table']}: {record['title']}{section}"]
    if record["question"]:
        lines += ["", record["question"], *_wrapped(record["hypothesis"])]
    for row in record["rows"]:
        lines += ["", f"{row['row']}: {row['change']}"]
        if row["experiment"]:
            lines.append(f"  experiment {row['experiment']}; at the paper's scale {row['cost']}")
        else:
            lines.append(f"  quoted, {row['cost']}")
        if row["against"] != [row["row"]]:
            lines.append(f"  compared with {' and '.join(map(repr, row['against']))}")
        if row["paper"]:
            lines.append(
                "  paper: " + ", ".join(f"{metric} {value}" for metric, value in row["paper"].items())
            )
    if record["remarks"]:
        lines += ["", "Remarks", *(line for remark in record["remarks"] for line in _wrapped(remark, "- "))]
    return "\n".join(lines)


def _wrapped(text: str, start: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(text, 100, initial_indent="  " + start, subsequent_indent="  " + " " * len(start))


def _shown(value: object) -> str:
    return "(none)" if value in (None, [], ()) else json.dumps(value, ensure_ascii=False)
