"""What a launch says: the plan and scripts of a cluster, what was sent, notes on runs, how they ended."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ablations.display import INTERRUPTED, record_of
from ablations.options import aligned
from yolor_core.errors import counted
from yolor_core.runs import LOST, State

if TYPE_CHECKING:
    from ablations.cluster_launch import ClusterPlan
    from ablations.costs import Estimate
    from ablations.planned import PlannedRun
    from slurm.local import Outcome
    from slurm.submission import Submitted

WHOLE = ("ConfigError", "DataError", "InputError")  # failures whose sentence says all that the log does


def describe_plan(plan: ClusterPlan, tables: Mapping[str, Iterable[str]]) -> str:
    """Runs and GPU hours by table, and in what jobs they would be sent."""
    from ablations.cluster_launch import by_table

    unit = "GPU h" if plan.cluster.gpus else "process h"
    head = ("table", "runs", "done", "submitted", "to send", unit)
    lines = [head]
    for record in by_table(plan, tables):
        numbers = (record[key] for key in ("runs", "done", "submitted", "to_send"))
        lines.append((record["table"], *map(str, numbers), hours(record["gpu_hours"])))
    if len(tables) != 1 or int(lines[-1][1]) != len(plan.states):  # runs that these continue come along
        states = list(plan.states.values())
        taken = sum(state in (State.QUEUED, State.RUNNING) for state in states)
        done, sent = states.count(State.DONE), len(plan.requests)
        lines.append(("in all", str(len(states)), str(done), str(taken), str(sent), hours(plan.hours)))
    text = aligned(lines)
    if plan.requests:
        text += [*packing(plan), basis(plan)]
    return "\n".join(text)


def packing(plan: ClusterPlan) -> list[str]:
    """That runs share GPUs, where some do."""
    from ablations.cluster_launch import rehearsal

    arrays = rehearsal(plan)[1]
    most = max((array.per_job for array in arrays), default=1)
    if most == 1:
        return []
    runs, jobs = len(plan.requests), sum(array.jobs for array in arrays)
    together = f"{counted(runs, 'run')} in {counted(jobs, 'job')}, up to {most} on each GPU (runs_per_gpu)"
    return [f"{together}; they share its hours"]


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
    from ablations.cluster_launch import rehearsal

    sender, arrays = rehearsal(plan)
    seen: dict[tuple[Any, bool, bool], list[int]] = {}
    for number, array in enumerate(arrays):
        seen.setdefault((array.resources, array.waits, array.per_job > 1), []).append(number)
    parts = []
    for (_, waits, _), numbers in seen.items():
        first = arrays[numbers[0]]
        count = sum(len(arrays[number].requests) for number in numbers)
        jobs = counted(sum(arrays[number].jobs for number in numbers), "job")
        after = ", each after the one it continues" if waits else ""
        about = f"# {counted(count, 'run')} in {jobs}{after}"
        parts.append(f"{about}\n{sender.script(first, numbers[0], 'JOB' if waits else None)}")
    return "\n".join(parts)


def local_time(estimates: Mapping[str, Estimate], whose: str, parallel: int) -> str:
    """How long runs will take here, so many at a time; and by whose measure."""
    if not estimates:
        return "time unknown: no run of this profile has finished in this folder"
    each = [estimate.seconds for estimate in estimates.values()]
    wait = max([*each, sum(each) / parallel])
    words = f"{wait:.0f} s" if wait < 90 else f"{wait / 60:.0f} minutes"
    return f"about {words if wait < 5400 else f'{wait / 3600:.1f} hours'}, as fast as {whose}"


def tell_foreign_options() -> None:
    """Name the user's own options for SLURM that a launch keeps from it (stderr)."""
    from slurm.scheduler import foreign

    inside = "SLURM_JOB_ID" in os.environ  # of a job, in which SLURM sets dozens of its own
    names = [name for name in foreign() if not (inside and name.startswith("SLURM_"))]
    if names:
        count = "1 variable" if len(names) == 1 else f"{len(names)} variables"
        click.echo(f"note: the profile decides, so {count} of your shell did not reach SLURM: "
                   f"{', '.join(names)}", err=True)  # fmt: skip


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
    for note in sent.notes:
        click.echo(f"warning: {note}", err=True)
    if sent.problem:
        rest = len(plan.requests) - len(sent.jobs) - len(sent.taken) - len(sent.left_out)
        click.echo(f"not sent: {counted(rest, 'run')}: {sent.problem}", err=True)


def warn_of_other_code(planned: Sequence[PlannedRun], states: Mapping[str, str]) -> None:
    """Finished runs of changed code are kept, but somebody should know."""
    from yolor_core.identity import source_hash

    present = source_hash()
    made_by = [
        record_of(run.run_dir).get("source_hash") for run in planned if states[run.run_id] == State.DONE
    ]
    other = [source for source in made_by if source not in (None, present)]
    if other:
        click.echo(
            f"note: {counted(len(other), 'finished run')} {'was' if len(other) == 1 else 'were'} made by "
            "other code of yolor_core, and kept. Remove the folder to train a run anew",
            err=True,
        )


def warn_of_damage(planned: Sequence[PlannedRun], states: Mapping[str, str]) -> None:
    """Name the files that keep runs from being started or from counting as finished."""
    from yolor_core.errors import RunError
    from yolor_core.runs.directory import RunDirectory

    for run in planned:
        directory = RunDirectory(run.run_dir)
        if states[run.run_id] == State.INCOMPLETE:
            lost = ", ".join(directory.missing())
            click.echo(f"note: {directory.path} was finished, but {lost}; it is trained again", err=True)
        elif states[run.run_id] == State.UNREADABLE:
            try:
                directory.read_state()
            except RunError as error:
                click.echo(f"warning: {error}", err=True)


def report(outcomes: dict[str, Outcome], missing: Sequence[PlannedRun], interrupted: bool) -> int:
    """Say what went wrong and how to go on (stderr); returns the exit code."""
    failed = [run for run in missing if run.run_id in outcomes and outcomes[run.run_id].state in LOST]
    for run in failed:
        outcome = outcomes[run.run_id]
        click.echo(f"\n{outcome.state}: {run.run_id}: {outcome.reason}", err=True)
        for line in () if str(outcome.reason).startswith(WHOLE) else outcome.log:
            click.echo(f"    {line}", err=True)
        click.echo(f"    log: {run.run_dir / 'logs'}", err=True)
    unfinished = [name for name, outcome in outcomes.items() if outcome.state != State.DONE]
    if interrupted and unfinished:
        click.echo(
            f"\ninterrupted: {counted(len(unfinished), 'run')} not done. The same command goes on from here",
            err=True,
        )
        return INTERRUPTED
    if unfinished:
        click.echo(
            f"\n{len(unfinished)} of {counted(len(outcomes), 'run')} not done ({len(failed)} failed); the "
            "same command tries those again, and `ablate tables` prints what there is",
            err=True,
        )
        return 1
    return 0
