"""`ablate status`: how far the runs are, from their state.json alone (no torch, no pandas)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ablations.options import json_option, results_option


@click.command("status")
@results_option
@json_option
def command(results: Path, as_json: bool) -> None:
    """Show every run: its state, epochs, AP so far, time spent, and why it failed or stopped.

    A run that says running although no process holds it any more is shown as interrupted.
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

    records = []
    for path in sorted((results / "runs").glob("*/state.json")):
        run = RunDirectory(path.parent)
        state = run.read_state() or {}
        records.append(
            {
                "run": path.parent.name,
                "state": standing(run),
                "epoch": state.get("epoch") or 0,
                "epochs": state.get("epochs") or None,
                "ap": state.get("ap"),
                "seconds": state.get("seconds") or 0.0,
                "heartbeat": state.get("heartbeat"),
                "reason": state.get("reason"),
            }
        )
    return records
