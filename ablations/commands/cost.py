"""`ablate cost`: GPU hours that were expected, and those that the cluster has booked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ablations.columns import aligned
from ablations.options import json_option, read_results_option

LEAST = 0.005  # hours below which a ratio says nothing


@click.command("cost")
@read_results_option
@json_option
def command(results: Path, as_json: bool) -> None:
    """Compare each experiment's estimated GPU hours with what its jobs have taken.

    `booked` is the accounting's figure: every attempt of every submission, start-up and requeued time
    included. Where sacct does not answer it is missing, and `trained`, the time that the runs themselves
    counted, has to do. Without GPUs it is hours of processes.
    """
    records, answered = describe(results)
    if as_json:
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
        return
    if not records:
        click.echo(f"no submitted runs in {results / 'runs'}")
        return
    total = {
        key: sum(record[key] or 0 for record in records)
        for key in ("runs", "done", "estimated", "trained", "booked")
    }
    lines = [("experiment", "runs", "done", "estimated", "trained", "booked", "booked / estimated of done")]
    lines.extend(
        (
            record["experiment"],
            str(record["runs"]),
            str(record["done"]),
            *(f"{record[key] or 0:.2f}" for key in ("estimated", "trained")),
            f"{record['booked'] or 0:.2f}" if answered else "",
            "" if record["ratio"] is None else f"{record['ratio']:.2f}",
        )
        for record in [*records, {"experiment": "in all", **total, "ratio": None}]
    )
    for line in aligned(lines):
        click.echo(line.rstrip())
    if not answered:
        click.echo("sacct does not answer here, so nothing is known of what was booked", err=True)


def describe(results: Path) -> tuple[list[dict[str, Any]], bool]:
    """One record per experiment that was submitted, and whether the accounting answered."""
    from ablations.overview import overview
    from slurm import scheduler
    from slurm.errors import ClusterError
    from slurm.tokens import read

    views = [view for view in overview(results) if view.token is not None]
    jobs = {
        view.run: [
            sent.job
            for number in range(1, view.token.number + 1)
            if (sent := read(view.run_dir, number)).job is not None
        ]
        for view in views
        if view.token is not None
    }
    booked: dict[str, Any] | None
    try:
        everything = [job for some in jobs.values() for job in some]
        booked = scheduler.history(everything) if everything else {}
    except ClusterError:
        booked = None
    records: dict[str, dict[str, Any]] = {}
    compared: dict[str, list[float]] = {}
    for view in views:
        token = view.token
        if token is None:
            continue
        name = str(token.content.get("experiment") or view.run)
        record = records.setdefault(
            name, {"experiment": name, "runs": 0, "done": 0, "estimated": 0.0, "trained": 0.0, "booked": None}
        )
        expected = read(view.run_dir, 1).hours or 0.0
        record["runs"] += 1
        record["done"] += view.state == "done"
        record["estimated"] += expected
        record["trained"] += view.gpu_hours or 0.0
        if booked is not None:
            mine = [booked[job] for job in jobs[view.run] if job in booked]
            spent = sum(seen.gpu_seconds or seen.seconds * token.gpus for seen in mine) / 3600
            record["booked"] = (record["booked"] or 0.0) + spent
            if view.state == "done" and expected >= LEAST:
                compared.setdefault(name, []).append(spent / expected)
    for name, record in records.items():
        ratios = compared.get(name)
        record["ratio"] = sum(ratios) / len(ratios) if ratios else None
    return list(records.values()), booked is not None
