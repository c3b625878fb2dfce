"""Processes of this machine: what /proc says of them, the daemons of a testbed, and the jobs on its nodes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.config import DAEMON_PATH, Layout, Ports, TestbedError

POLL_SECONDS = 0.05
PACKAGES = "slurm-wlm slurmdbd munge mariadb-server"
SLURM_PROGRAMS = ("munged", "slurmctld", "slurmd", "scontrol", "sinfo", "squeue", "scancel")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db")
LOWEST_PORT = 10_000
LOG_LINES = 15
_children: dict[int, subprocess.Popen[bytes]] = {}  # kept, so that those which end are collected


@dataclass(frozen=True)
class Process:
    """A process by its id and its start, because the id comes back after the process is gone."""

    pid: int
    began: int

    def alive(self) -> bool:
        """Whether it runs; a zombie does not, whoever neglects to collect it."""
        now = _stat(self.pid)
        return now is not None and now[0] == self and now[2] not in "ZX"

    def save(self, path: Path) -> None:
        """Record it in a file, for `load`."""
        path.write_text(f"{self.pid} {self.began}\n")


def _stat(pid: int) -> tuple[Process, int, str] | None:
    """The process, its parent's id and its state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return Process(pid, int(fields[19])), int(fields[1]), fields[0]


def load(path: Path) -> Process | None:
    """The process recorded in a file, if it is still alive."""
    try:
        pid, began = map(int, path.read_text().split())
    except (OSError, ValueError):
        return None
    recorded = Process(pid, began)
    return recorded if recorded.alive() else None


def all_processes() -> dict[int, tuple[Process, int]]:
    """Every living process by its id, with its parent's id."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    found = {pid: _stat(pid) for pid in pids}
    return {pid: (s[0], s[1]) for pid, s in found.items() if s is not None and s[2] not in "ZX"}


def with_descendants(roots: Iterable[Process]) -> list[Process]:
    """The given processes, then their children, grandchildren and so on."""
    family = list(roots)
    table = all_processes()
    for member in family:  # grows while it is walked
        family += [p for p, parent in table.values() if parent == member.pid and p not in family]
    return family


def environment_of(pid: int) -> dict[str, str]:
    """The variables the process began with; empty where it is gone or has overwritten them."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def name_of(pid: int) -> str:
    """The name of its program, cut to 15 characters; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def opened(pid: int) -> set[str]:
    """The files that the process has open."""
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(link))
    return found


def kill(victims: Iterable[Process]) -> None:
    """SIGKILL in the given order."""
    for victim in victims:
        if victim.alive():
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float, poll: float = POLL_SECONDS) -> bool:
    """Wait for the condition; whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(poll)
    return True


def steps(layout: Layout, nodes: Collection[str]) -> list[Process]:
    """The steps of some nodes: their daemons first, then their processes, children last.

    A job's process that left its step's tree still has the variables of the job.
    """
    logs = {str(layout.log(name)) for name in nodes}
    daemons, strays = [], []
    for pid, (process, _) in all_processes().items():
        if name_of(pid) == "slurmstepd":
            daemons += [process] * bool(logs & opened(pid))
            continue
        variables = environment_of(pid)
        if variables.get("SLURM_CONF") == str(layout.slurm_conf) and "SLURM_JOB_ID" in variables:
            strays += [process] * (variables.get("SLURMD_NODENAME") in nodes)
    return with_descendants([*daemons, *strays])


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


def spawn(name: str, command: Sequence[str], layout: Layout, environment: Mapping[str, str]) -> None:
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
    started = _stat(child.pid)
    assert started is not None  # a child of ours stays in the table until it is collected
    started[0].save(layout.process(name))


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
        with suppress(OSError):
            lines += path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (it is empty)"
