"""`ablate status`: how far the runs are, from their state.json alone (no torch, no pandas)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import json_option, results_option

if TYPE_CHECKING:
    from yolor_core.runs.directory import RunDirectory


@click.command("status")
@results_option
@json_option
def command(results: Path, as_json: bool) -> None:
    """Show every run: its state, epochs, AP so far, time spent, and why it failed or stopped.

    A run without detection has no AP; `ablate evaluate --run DIR` and the tables have its other scores.
    A run that says running although no process holds it any more is shown as interrupted; a finished one that
    has lost its record, evaluation or weights as incomplete; one with a damaged state.json as unreadable.
    """
    records = describe(results)
    if as_json:
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
        return
    if not records:
        click.echo(f"no runs in {results / 'runs'}; `ablate launch --all` makes some")
        return
    from slurm.progress import clock

    lines = [("run", "state", "epoch", "AP", "time", "reason")]
    for record in records:
        ap = "" if record["ap"] is None else f"{100 * record['ap']:.1f}"
        epoch = f"{record['epoch']}/{record['epochs']}" if record["epochs"] else ""
        lines.append(
            (record["run"], record["state"], epoch, ap, clock(record["seconds"]), record["reason"] or "")
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    states = [record["state"] for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    click.echo(f"{len(records)} runs: {counts}")


def describe(results: Path) -> list[dict[str, Any]]:
    """One record per run directory, in the order of their names."""
    from ablations.job import standing
    from yolor_core.runs.directory import RunDirectory

    runs = [RunDirectory(path.parent) for path in sorted((results / "runs").glob("*/state.json"))]
    return [_record(run, standing(run)) for run in runs]


def _record(run: RunDirectory, standing: str) -> dict[str, Any]:
    """Whatever state.json holds, the fields are of the types that they should be; None or 0 where not."""
    from yolor_core.errors import RunError
    from yolor_core.runs.files import number

    try:
        state = run.read_state() or {}
        reason = "; ".join(run.missing()) if standing == "incomplete" else _text(state.get("reason"))
    except RunError as error:
        state, reason = {}, str(error)
    return {
        "run": run.path.name,
        "state": standing,
        "epoch": int(number(state.get("epoch")) or 0),
        "epochs": int(number(state.get("epochs")) or 0) or None,
        "ap": number(state.get("ap")),
        "seconds": number(state.get("seconds")) or 0.0,
        "heartbeat": _text(state.get("heartbeat")),
        "reason": reason,
    }


def _text(value: object) -> str | None:
    return None if value is None else " ".join(str(value).split())
