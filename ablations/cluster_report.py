"""What a launch on a cluster says: the plan, the scripts, and what was sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from ablations.cluster_launch import ClusterPlan, by_table, rehearsal
from ablations.columns import aligned, counted
from slurm.submission import Submitted
from yolor_core.runs.life import State


def describe_plan(plan: ClusterPlan, tables: Mapping[str, Iterable[str]]) -> str:
    """Runs and GPU hours by table, and in what jobs they would be sent."""
    unit = "GPU h" if plan.cluster.gpus else "process h"
    head = ("table", "runs", "done", "submitted", "to send", unit)
    lines = [head]
    for record in by_table(plan, tables):
        numbers = (record[key] for key in ("runs", "done", "submitted", "to_send"))
        lines.append((record["table"], *map(str, numbers), hours(record["gpu_hours"])))
    if len(tables) != 1:
        states = list(plan.states.values())
        taken = sum(state in (State.QUEUED, State.RUNNING) for state in states)
        done, sent = states.count(State.DONE), len(plan.requests)
        lines.append(("in all", str(len(states)), str(done), str(taken), str(sent), hours(plan.hours)))
    text = aligned(lines)
    if plan.requests:
        text.append(basis(plan))
    return "\n".join(text)


def basis(plan: ClusterPlan) -> str:
    """What the hours were estimated from."""
    measured = sum(estimate.measured for estimate in plan.estimates.values())
    if measured == len(plan.estimates):
        return "hours: from finished runs in this results folder"
    guess = f"by FLOPs at {plan.cluster.tflops:g} TFLOP/s (the profile's tflops), a rough guess"
    if measured:
        rest = len(plan.estimates) - measured
        return f"hours: {measured} from finished runs in this results folder, {rest} {guess}"
    return f"hours: {guess}"


def hours(value: float) -> str:
    """0.034 -> '0.03', 12.3 -> '12.3', 12345.6 -> '12346'."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def scripts(plan: ClusterPlan) -> str:
    """The script of every kind of array, as sbatch would get it."""
    sender, arrays = rehearsal(plan)
    seen: dict[tuple[Any, bool], list[int]] = {}
    for number, array in enumerate(arrays):
        seen.setdefault((array.resources, array.waits), []).append(number)
    parts = []
    for (_, waits), numbers in seen.items():
        first = arrays[numbers[0]]
        count = sum(len(arrays[number].requests) for number in numbers)
        jobs = "1 job" if len(numbers) == 1 else f"{len(numbers)} jobs or arrays"
        after = ", each after the one it continues" if waits else ""
        about = f"# {counted(count, 'run')} in {jobs}{after}"
        parts.append(f"{about}\n{sender.script(first, numbers[0], 'JOB' if waits else None)}")
    return "\n".join(parts)


def tell_left_out(runs: Mapping[str, str]) -> None:
    """Name runs that are not sent, and why, on stderr."""
    for name, why in runs.items():
        click.echo(f"left out: {name}: {why}", err=True)


def tell(plan: ClusterPlan, sent: Submitted, err: bool = False) -> None:
    """Say what was sent (on stderr if `err`), what was not, and how to look at it."""
    tell_left_out(sent.left_out)
    if sent.taken:
        taken = counted(len(sent.taken), "run")
        click.echo(f"{taken} submitted by somebody else at this moment; left to them", err=True)
    arrays = sorted({job.split("_")[0] for job in sent.jobs.values()}, key=int)
    if sent.jobs:
        jobs = f"{'jobs' if len(arrays) > 1 else 'job'} {', '.join(arrays)}"
        click.echo(f"submitted {counted(len(sent.jobs), 'run')} as {jobs} (launch {sent.launch})", err=err)
        click.echo("`ablate status --watch` shows them, `ablate logs RUN -f` what one prints", err=err)
    if sent.problem:
        rest = len(plan.requests) - len(sent.jobs) - len(sent.taken) - len(sent.left_out)
        click.echo(f"not sent: {counted(rest, 'run')}: {sent.problem}", err=True)
