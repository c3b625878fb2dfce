"""Start daemons in the background, where a machine has them, and see to it that they are up."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slurm.testbed.config import DAEMON_PATH, Layout, Ports
from slurm.testbed.errors import TestbedError
from slurm.testbed.processes import Process, load, process, until

PACKAGES = "slurm-wlm slurmdbd munge mariadb-server"
SLURM_PROGRAMS = ("munged", "slurmctld", "slurmd", "scontrol", "sinfo", "squeue", "scancel")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db")
LOWEST_PORT = 10_000
LOG_LINES = 15

_children: dict[int, subprocess.Popen[bytes]] = {}  # kept, so that those which end are collected


def check_machine(accounting: bool) -> None:
    """Raises TestbedError where this machine cannot run the daemons, saying what to install."""
    if os.geteuid() != 0:
        raise TestbedError("a testbed needs root: SLURM's daemons start jobs as other users")
    if missing := missing_programs(accounting):
        raise TestbedError(
            f"{', '.join(missing)}: not installed. On Debian and Ubuntu:"
            f" apt-get install -y --no-install-recommends {PACKAGES}"
        )


def missing_programs(accounting: bool) -> list[str]:
    """Programs of the daemons that are not installed."""
    wanted = SLURM_PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    return [name for name in wanted if shutil.which(name, path=DAEMON_PATH) is None]


def free_ports(nodes: int) -> Ports:
    """Ports that nobody listens on, below those that the kernel gives to outgoing connections.

    A node that is revived has to get its port again, so no chance connection may have taken it meanwhile.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        ephemeral = int(file.read().split()[0])
    highest = ephemeral if ephemeral > LOWEST_PORT + 1000 else 65_535
    candidates = random.Random().sample(range(LOWEST_PORT, highest), k=500)
    free = [port for port in candidates if _is_free(port)][: nodes + 3]
    if len(free) < nodes + 3:
        raise TestbedError(f"no {nodes + 3} free TCP ports were found between {LOWEST_PORT} and {highest}")
    return Ports(controller=free[0], accounting=free[1], database=free[2], nodes=tuple(free[3:]))


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        try:
            attempt.bind(("", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether somebody answers on a port of this machine."""
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def spawn(name: str, command: Sequence[str], layout: Layout, environment: Mapping[str, str]) -> Process:
    """Start a daemon apart from the terminal, with this environment only and no signal ignored.

    A shell's background jobs ignore SIGINT and a nohup's children SIGHUP; slurmd would pass that on to jobs.
    """
    variables = [f"{key}={value}" for key, value in environment.items()]
    with layout.output(name).open("ab") as output:
        child = subprocess.Popen(
            ["/usr/bin/env", "-i", "--default-signal", *variables, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=layout.folder,
            start_new_session=True,
        )
    _children[child.pid] = child
    started = process(child.pid)
    assert started is not None  # a child of ours stays in the table until it is collected
    started.save(layout.process(name))
    return started


def collect() -> None:
    """Look after those of our own children that ended."""
    for pid in [pid for pid, child in _children.items() if child.poll() is not None]:
        del _children[pid]


def wait_up(name: str, layout: Layout, up: Callable[[], bool], seconds: float) -> None:
    """Wait until the daemon answers, or say why it does not."""

    def ended() -> bool:
        return load(layout.process(name)) is None

    if until(lambda: ended() or up(), seconds) and not ended():
        return
    problem = "ended at once" if ended() else f"did not come up within {seconds:.0f} s"
    raise TestbedError(f"{name} {problem}. The last lines of its log:\n{tail(name, layout)}")


def tail(name: str, layout: Layout) -> str:
    """The end of what the daemon logged and printed."""
    lines: list[str] = []
    for path in (layout.log(name), layout.output(name)):
        lines += _last_lines(path)
    return "\n".join(f"  {line}" for line in lines) or "  (it is empty)"


def _last_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
