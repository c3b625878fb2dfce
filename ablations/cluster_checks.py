"""Where the results of a cluster may be: on a disk that all nodes see, of one cluster alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from slurm import scheduler
from slurm.cluster import Cluster
from slurm.errors import ClusterError
from slurm.files import create_json, read_json

LOCAL_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "ramfs", "vfat", "apfs"}


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
