"""The processes of jobs on the nodes of a testbed, which all run on this machine."""

from __future__ import annotations

from collections.abc import Collection

from slurm.testbed.config import Layout
from slurm.testbed.processes import (
    Process,
    all_processes,
    environment_of,
    has_open,
    name_of,
    with_descendants,
)


def steps(layout: Layout, nodes: Collection[str]) -> list[Process]:
    """The steps of some nodes: their daemons first, then their processes, children last.

    A job's process that left its step's tree still has the variables of the job.
    """
    logs = [layout.log(name) for name in nodes]
    daemons, strays = [], []
    for pid, (process, _) in all_processes().items():
        if name_of(pid) == "slurmstepd":
            daemons += [process] * any(has_open(pid, log) for log in logs)
            continue
        variables = environment_of(pid)
        if variables.get("SLURM_CONF") == str(layout.slurm_conf) and "SLURM_JOB_ID" in variables:
            strays += [process] * (variables.get("SLURMD_NODENAME") in nodes)
    return with_descendants([*daemons, *strays])
