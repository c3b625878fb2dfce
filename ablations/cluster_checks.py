"""What cannot work on a cluster, found before anything is sent: limits, shares, and where the results are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from slurm import scheduler
from slurm.cluster import Cluster
from slurm.errors import ClusterError
from slurm.files import create_json, read_json
from slurm.refusals import check_path
from yolor_core.errors import ConfigError, RunError

if TYPE_CHECKING:
    from ablations.cluster_launch import ClusterPlan

START_SECONDS = 120  # of a job's limit that it does not train: Python, data, the first batch
LOCAL_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "ramfs", "vfat", "apfs"}


def check(plan: ClusterPlan, force: bool = False) -> None:
    """Refuse what cannot work before anything is written.

    Raises:
        ConfigError: a run has more processes than its batch can be shared by.
        ClusterError: the results folder or a time limit will not do.
    """
    from yolor_core.training.step import check_shares

    check_path(plan.results.absolute())
    if plan.cluster.python and not plan.cluster.container and not Path(plan.cluster.python).exists():
        raise ClusterError(f"environment = {plan.cluster.environment!r}: {plan.cluster.python} is not there")
    for request in plan.requests:
        run, wanted = plan.runs[request.name], request.resources
        try:
            check_shares(run.config.science.train, wanted.ranks)
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
        epoch = estimate.epoch / wanted.ranks
        if epoch > usable and not force:
            basis = "finished runs here took" if estimate.measured else "by its FLOPs (the profile's tflops)"
            raise ClusterError(
                f"time = {wanted.time!r} is shorter than an epoch of {run.config.experiment}: about "
                f"{epoch / 60:.0f} minutes, {basis}. A job needs an epoch, {plan.cluster.signal_delay} s to "
                f"save (signal_delay) and {START_SECONDS} s to start; raise `time`, or say --force: a run "
                "also goes on within an epoch"
            )


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
