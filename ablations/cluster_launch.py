"""From planned runs to jobs of a cluster: which are to be sent, what they will take, and sending them."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ablations import worker
from ablations.costs import Estimate, Estimator
from ablations.planned import Place, PlannedRun, planned_record
from slurm import ClusterError, scheduler
from slurm.cluster import Cluster
from slurm.files import create_json, read_json
from slurm.scheduler import check_path, forever
from slurm.submission import (
    Array,
    Request,
    Sender,
    Submitted,
    freeze,
    layout,
    new_launch,
    rehearse,
)
from slurm.tokens import user
from slurm.view import Standing, look_at
from slurm.worker import StopFlag, stop_on
from yolor_core.config import RunConfig
from yolor_core.errors import ConfigError, RunError
from yolor_core.identity import code_commit
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory

START_SECONDS = 120  # of a job's limit that it does not train: Python, data, the first batch
LOCAL_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "ramfs", "vfat", "apfs"}
NOT_SLURM_ARRAY = 1000  # jobs of an array, where the cluster cannot be asked (`--dry-run` elsewhere)


@dataclass
class ClusterPlan:
    """What a launch would do."""

    cluster: Cluster
    results: Path
    runs: dict[str, PlannedRun]
    states: dict[str, State]  # done, queued or running (submitted by somebody), or to be sent
    seen: dict[str, Standing]
    requests: list[Request]
    estimates: dict[str, Estimate]
    held: dict[str, str] = field(default_factory=dict)  # runs left out, and why
    others: dict[str, State] = field(default_factory=dict)  # states of runs that these continue

    @property
    def hours(self) -> float:
        """GPU hours of the runs to send."""
        return sum(request.hours or 0.0 for request in self.requests)


def check(plan: ClusterPlan, force: bool = False) -> None:
    """Refuse what cannot work before anything is written.

    Raises:
        ConfigError: a run has more processes than its batch can be shared by, or than it can be compiled on.
        ClusterError: the results folder or a time limit will not do.
    """
    from yolor_core.training.step import check_shares

    check_path(plan.results.absolute())
    if plan.cluster.python and not plan.cluster.container and not Path(plan.cluster.python).exists():
        raise ClusterError(f"environment = {plan.cluster.environment!r}: {plan.cluster.python} is not there")
    together = {request.name: array.per_job for array in rehearsal(plan)[1] for request in array.requests}
    for request in plan.requests:
        run, wanted = plan.runs[request.name], request.resources
        try:
            check_shares(run.config.science, wanted.ranks)
        except RunError as error:
            raise ConfigError(
                f"{run.config.experiment} on {wanted.nodes} x {wanted.per_node} processes: {error}"
            ) from None
        estimate = plan.estimates[request.name]
        usable = 60 * wanted.minutes - plan.cluster.signal_delay - START_SECONDS
        if usable <= 0 and not force:
            raise ClusterError(
                f"time = {wanted.time!r} leaves nothing to train: {plan.cluster.signal_delay} s of it are "
                f"for saving (signal_delay), {START_SECONDS} s for starting. Raise `time` or lower "
                "`signal_delay`, or say --force"
            )
        epoch = estimate.epoch * together[request.name] / wanted.ranks
        if epoch > usable and not force:
            basis = "finished runs here took" if estimate.measured else "by its FLOPs (the profile's tflops)"
            raise ClusterError(
                f"time = {wanted.time!r} is shorter than an epoch of {run.config.experiment}: about "
                f"{epoch / 60:.0f} minutes, {basis}. A job needs an epoch, {plan.cluster.signal_delay} s to "
                f"save (signal_delay) and {START_SECONDS} s to start; raise `time`, or say --force: a run "
                "also goes on within an epoch"
            )


def plan_on_cluster(runs: Sequence[PlannedRun], cluster: Cluster, results: Path) -> ClusterPlan:
    """Sort the runs into done, taken by somebody, and to be sent; estimate the latter.

    Raises ClusterError where the scheduler cannot say about a submitted run: it might be started twice.
    """
    by_id = {run.run_id: run for run in runs}
    directories = {run.run_id: RunDirectory(run.run_dir) for run in runs}
    states = {name: directory.life() for name, directory in directories.items()}
    open_runs = [run for run in runs if states[run.run_id] != "done"]
    needed = {run.after: run.run_dir for run in open_runs if run.after and run.after not in by_id}
    before = {name: path.parent / name for name, path in needed.items()}
    folders = {run.run_id: run.run_dir for run in open_runs} | before
    looked = look_at(folders.values(), scheduler.SECONDS)
    seen = {name: looked[path] for name, path in folders.items() if path in looked}
    plan = ClusterPlan(cluster, results, by_id, states, seen, [], {})
    plan.others = {name: RunDirectory(path).life() for name, path in before.items()}
    estimator = Estimator(results, cluster.tflops)
    for run in open_runs:
        name = run.run_id
        there = seen.get(name)
        if there is not None and there.hidden:
            plan.held[name] = there.reason
        elif there is not None and there.state is State.UNKNOWN:
            raise ClusterError(
                f"{name} was submitted by {there.token.user} as job {there.token.job}, and squeue does not "
                "answer whether that is still there. Try again when it does"
            )
        elif there is not None and there.taken:
            states[name] = there.state
        elif states[name] is State.RUNNING:
            plan.held[name] = "a process on this machine trains it"
        elif states[name] is State.UNREADABLE:
            plan.held[name] = "its state.json is damaged; `ablate status` says how"
        else:
            _request(run, plan, estimator)
    plan.requests.sort(key=lambda request: -(request.hours or 0.0))  # the longest first
    return plan


def _request(run: PlannedRun, plan: ClusterPlan, estimator: Estimator) -> None:
    """Put a run on the list of those to send, or of those that are held."""
    config = on_cluster(run.config, plan.cluster)
    there = plan.seen.get(run.run_id)
    after, after_job = run.after, None
    if after is not None:
        before = plan.seen.get(after)
        if (plan.others | plan.states)[after] == "done":
            after = None
        elif before is not None and before.hidden:
            plan.held[run.run_id] = f"it needs {after}: {before.reason}"
            return
        elif before is not None and before.taken and before.token.job is None:
            plan.held[run.run_id] = f"{after} is being submitted; launch again in a minute"
            return
        elif before is not None and before.taken:
            after, after_job = None, before.token.job
        elif after in plan.held or after not in plan.runs:
            plan.held[run.run_id] = (
                f"it needs {after}: {plan.held.get(after, 'launch or retry that one too')}"
            )
            return
    estimate = estimator(run)
    plan.estimates[run.run_id] = estimate
    request = Request(
        name=run.run_id,
        run_dir=run.run_dir.absolute(),
        work=worker.__name__,
        resources=plan.cluster.resources(run.config.experiment),
        planned=planned_record(run, Place(config.execution, plan.cluster.local_disk)),
        after=after,
        after_job=after_job,
        number=there.token.number if there else 0,
        hours=estimate.hours,
        label=run.config.experiment,
    )
    plan.requests.append(request)


def on_cluster(config: RunConfig, cluster: Cluster) -> RunConfig:
    """The same run with the machine's part of its configuration as the profile has it."""
    wanted, execution = cluster.resources(config.experiment), config.execution
    own: dict[str, Any] = {"workers": min(execution.workers, max(wanted.cpus - 1, 0))}
    if cluster.device != "auto":
        own["device"] = cluster.device
    elif wanted.gpus and execution.device == "auto":
        own["device"] = "cuda"  # on a node whose GPU does not work "auto" would train on the processor
    if not wanted.gpus or cluster.device == "cpu":
        own["threads"] = max(1, wanted.cpus - own["workers"])
    if execution.start_checkpoint:
        own["start_checkpoint"] = str(Path(execution.start_checkpoint).absolute())
    return config.model_copy(update={"execution": execution.model_copy(update=own)})


def rehearsal(plan: ClusterPlan) -> tuple[Sender, list[Array]]:
    """A sender for looking at scripts, and the arrays there would be; writes and sends nothing."""
    folder = plan.results.absolute() / "launches" / "LAUNCH"
    code = plan.results.absolute() / "code" / "CODE"
    longest = plan.cluster.max_array or _longest()
    return Sender(plan.cluster, folder, code, longest), layout(plan.requests, longest)


def _longest() -> int:
    try:
        return scheduler.longest_array()
    except ClusterError:
        return NOT_SLURM_ARRAY


def send(plan: ClusterPlan) -> Submitted:
    """Let the cluster check the scripts, freeze the code, claim the runs and submit them.

    A first signal ends it between two arrays; what was sent stays sent.

    Raises ClusterError, with nothing written, where sbatch would refuse.
    """
    with stop_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, once=True) as stop:
        return _send(plan, stop)


def _send(plan: ClusterPlan, stop: StopFlag) -> Submitted:
    sender, arrays = rehearsal(plan)
    with tempfile.TemporaryDirectory() as folder:
        notes = rehearse(sender, arrays, partial(_script, Path(folder)))
    plan.results.mkdir(parents=True, exist_ok=True)
    check_shared(plan.results, plan.cluster)
    check_owner(plan.results)
    commit, dirty = code_commit()
    code = freeze(plan.results, {"commit": commit, "dirty": dirty, "by": user()})
    sender = Sender(plan.cluster, new_launch(plan.results), code, sender.longest)
    sent = sender.submit(plan.requests, stop)
    sent.notes += notes + waiting_forever(sent.jobs.values())
    return sent


def waiting_forever(jobs: Iterable[str]) -> list[str]:
    """Of jobs that were just sent, the reasons for which some will never start, one line each."""
    try:
        queued = scheduler.queue(jobs)
    except ClusterError:
        return []
    reasons = {seen.reason: forever(seen.reason) for seen in queued.values() if seen.waiting}
    return [
        f"SLURM says {reason}, which does not pass by itself: {why}" for reason, why in reasons.items() if why
    ]


def _script(folder: Path, text: str) -> Path:
    path = folder / "rehearsal.sh"
    path.write_text(text)
    return path


def by_table(plan: ClusterPlan, tables: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Runs and GPU hours of each table (name -> run ids); a run of two tables counts in each."""
    sent = {request.name: request for request in plan.requests}
    records = []
    for table, names in tables.items():
        names = [name for name in names if name in plan.runs]
        new = [sent[name] for name in names if name in sent]
        records.append(
            {
                "table": table,
                "runs": len(names),
                "done": sum(plan.states[name] == "done" for name in names),
                "submitted": sum(plan.states[name] in ("queued", "running") for name in names),
                "to_send": len(new),
                "gpu_hours": round(sum(request.hours or 0.0 for request in new), 3),
            }
        )
    return records


def check_shared(results: Path, cluster: Cluster) -> None:
    """Raises ClusterError for a folder that the nodes do not see, as far as this machine can tell."""
    proof = results / "clusters" / f"{cluster.name}.json"
    if (read_json(proof) or {}).get("shared") or _all_nodes_here():
        return
    kind = file_system(results)
    if kind in LOCAL_DISKS:
        raise ClusterError(
            f"{results.absolute()} is on a disk of this machine ({kind}), which the nodes do not see. Choose "
            "a folder on the shared file system with --results, ABLATE_RESULTS or the profile's `results`; "
            f"if it is shared, let `ablate cluster check {cluster.name} --results {results}` prove it"
        )


def check_owner(results: Path) -> None:
    """Let one cluster alone submit from a results folder: another one's scheduler does not know its jobs.

    Raises ClusterError where it belongs to another cluster.
    """
    name = scheduler.settings().get("ClusterName", "")
    mark = results / "clusters" / "scheduler.json"
    create_json(mark, {"ClusterName": name})
    owner = (read_json(mark) or {}).get("ClusterName", name)
    if owner != name:
        raise ClusterError(
            f"{results} belongs to cluster {owner!r}, this is {name!r}, which cannot see what runs there; "
            "choose another folder with --results"
        )


def file_system(path: Path) -> str:
    """The kind of file system that a folder (or the nearest that exists above it) is on; '' where unknown."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    command = ["stat", "-f", "-c", "%T", str(there)]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return {"ext2/ext3": "ext4", "overlayfs": "overlay"}.get(found, found)


def _all_nodes_here() -> bool:
    """Whether every node is this machine, as on a cluster for trying things out."""
    try:
        text = scheduler.run(["scontrol", "show", "node", "--oneliner"])
    except ClusterError:
        return False
    hosts = {word.split("=")[1] for word in text.split() if word.startswith("NodeHostName=")}
    return bool(hosts) and hosts <= {os.uname().nodename, os.uname().nodename.split(".")[0]}
