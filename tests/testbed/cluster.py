"""A testbed: start it, stop it, and let its nodes and its accounting fail."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tests.testbed import config
from tests.testbed.config import Layout, Ports, Shape, TestbedError
from tests.testbed.processes import (
    check_machine,
    collect,
    free_ports,
    kill,
    listens,
    load,
    spawn,
    steps,
    tail,
    until,
    wait_up,
    with_descendants,
)

UP_SECONDS = 30.0  # for one daemon; it takes a second or two on an idle machine
ASK_SECONDS = 30.0
READY = ("idle", "mixed", "allocated", "completing")
CLIENT_SECONDS = 3.0
RESUME_SECONDS = 5.0  # a node that is down for no other reason returns by itself (ReturnToService)


class Testbed:
    """The cluster below a folder, whichever process started it."""

    __test__ = False  # pytest takes a class of this name for a test

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.layout = Layout(self.folder)
        # what a process needs to use this cluster
        self.environment = {"SLURM_CONF": str(self.layout.slurm_conf), "ABLATE_TESTBED": str(self.folder)}
        self.daemon_environment = config.daemon_environment(self.layout, os.path.expanduser("~root"))

    @property
    def shape(self) -> Shape:
        """What it was started with. Raises TestbedError where there is none."""
        return read_record(self.layout)[0]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their names."""
        return self.shape.node_names

    def running(self) -> bool:
        """Whether its controller lives. Nodes and the accounting may be off all the same."""
        return self.layout.record.exists() and self._alive("slurmctld")

    def daemons(self) -> dict[str, bool]:
        """Every daemon it should have, and whether it lives."""
        accounting = ("mariadbd", "slurmdbd") if self.shape.accounting else ()
        return {name: self._alive(name) for name in ("munged", *accounting, "slurmctld", *self.nodes)}

    def start(self, shape: Shape) -> bool:
        """Start the cluster and wait until its nodes are idle; False if it runs already, in any shape.

        What is left of one that died, e.g. when the machine restarted, is removed first.
        """
        check_machine(shape.accounting)
        check_folder(self.layout)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            if self.running():
                return False
            if self.layout.record.exists():
                self._remove(keep_logs=False)
                self.folder.mkdir(exist_ok=True)
            write_record(self.layout, shape, free_ports(shape.nodes))
            try:
                self._start()
            except BaseException:
                self._remove(keep_logs=False)
                raise
        return True

    def stop(self, keep_logs: bool = False) -> bool:
        """End all jobs and daemons and remove the folder; False if there is no testbed in it."""
        if not self.layout.record.exists():
            return False
        with locked(self.folder):
            self._remove(keep_logs)
        return True

    def ask(self, *command: str, seconds: float = ASK_SECONDS) -> str:
        """What one of SLURM's commands answers. A refusal is a TestbedError with the command's words."""
        ours = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SQUEUE", "SINFO"))
        }
        try:
            answer = subprocess.run(
                command,
                env=ours | self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise TestbedError(f"`{' '.join(command)}` gave no answer within {seconds:.0f} s") from None
        if answer.returncode:
            words = (answer.stderr or answer.stdout).strip()
            raise TestbedError(f"`{' '.join(command)}` failed ({answer.returncode}): {words}")
        return answer.stdout

    def node_states(self) -> dict[str, str]:
        """As sinfo says: idle, mixed, allocated, down and so on; `*` after it where the node is silent."""
        lines = self.ask("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return {name: state for name, _, state in (line.partition(" ") for line in lines)}

    def kill_node(self, name: str) -> None:
        """Take the node's power: its slurmd and every process of its jobs end at once, without a word.

        SLURM notices within half a minute (SlurmdTimeout and more), sets the node down and requeues its jobs.
        """
        self._check_node(name)
        daemon = load(self.layout.process(name))
        kill([daemon] if daemon else [])  # first, so that it starts nothing more
        # The steps' daemons before the tasks: one that saw its task end would report a failed job.
        until(lambda: not self._kill_all([name]), UP_SECONDS)
        collect()

    def revive_node(self, name: str, seconds: float = 60.0) -> None:
        """Start the node again and wait until it takes jobs.

        Where SLURM had not noticed the failure it is told first: a machine takes longer to restart than that,
        and a node that is back too early would keep the jobs it lost for another minute.
        """
        self._check_node(name)
        if not self._alive(name):
            self.ask("scontrol", "update", f"nodename={name}", "state=down", "reason=power failure")
            self._start_node(name)
        resume_at = time.monotonic() + RESUME_SECONDS

        def ready() -> bool:
            state = self.node_states().get(name, "unknown")
            if state in ("down", "drained", "draining") and time.monotonic() > resume_at:
                with suppress(TestbedError):  # it came up by itself in between
                    self.ask("scontrol", "update", f"nodename={name}", "state=resume")
            return state in READY

        wait_up(name, self.layout, ready, seconds)

    def stop_accounting(self) -> None:
        """Take slurmdbd away: `sacct` fails, and slurmctld keeps what it has to tell until it is back."""
        self._check_accounting()
        daemon = load(self.layout.process("slurmdbd"))
        kill([daemon] if daemon else [])
        until(lambda: not self._alive("slurmdbd"), UP_SECONDS)

    def start_accounting(self) -> None:
        """Bring slurmdbd back and wait until it answers."""
        self._check_accounting()
        if not self._alive("slurmdbd"):
            self._start_accounting(read_record(self.layout)[1])

    # Starting

    def _start(self) -> None:
        layout, (shape, ports) = self.layout, read_record(self.layout)
        write_configuration(layout, shape, ports)
        self._spawn("munged", *config.munged_command(layout))
        if shape.accounting:
            set_up_database(layout, self.daemon_environment)
            self._spawn("mariadbd", *config.database_command(layout, ports))
        wait_up("munged", layout, layout.munge_socket.exists, UP_SECONDS)
        if shape.accounting:
            wait_up("mariadbd", layout, lambda: listens(ports.database), UP_SECONDS)
            self._start_accounting(ports)
            self.ask("sacctmgr", "--immediate", "add", "cluster", "testbed")
        self._spawn("slurmctld", "slurmctld", "-D")
        wait_up("slurmctld", layout, lambda: listens(ports.controller), UP_SECONDS)
        for name in shape.node_names:
            self._start_node(name)
        for name in shape.node_names:
            wait_up(name, layout, partial(self._idle, name), UP_SECONDS)

    def _idle(self, name: str) -> bool:
        return self.node_states().get(name) == "idle"

    def _start_accounting(self, ports: Ports) -> None:
        self._spawn("slurmdbd", "slurmdbd", "-D")
        wait_up("slurmdbd", self.layout, lambda: listens(ports.accounting), UP_SECONDS)

    def _start_node(self, name: str) -> None:
        self._spawn(name, "slurmd", "-D", "-N", name)

    def _spawn(self, name: str, *command: str) -> None:
        spawn(name, command, self.layout, self.daemon_environment)

    # Stopping

    def _remove(self, keep_logs: bool) -> None:
        """End everything; the state is thrown away, so nothing needs to end in good order."""
        if self._alive("slurmctld"):
            with suppress(TestbedError, OSError):
                self.ask("scancel", "--user=root", seconds=5)
                until(lambda: not self.ask("squeue", "--noheader", seconds=5), CLIENT_SECONDS)
        records = sorted((self.folder / "run").glob("*.process"))
        # The controller before the nodes, so that it requeues nothing.
        records.sort(key=lambda path: path.stem != "slurmctld")
        kill(with_descendants(daemon for daemon in map(load, records) if daemon))
        until(lambda: not self._kill_all(self.nodes), UP_SECONDS)
        if not until(lambda: not any(map(load, records)), UP_SECONDS):
            alive = ", ".join(f"{path.stem} (process {p.pid})" for path in records if (p := load(path)))
            raise TestbedError(f"some daemons of {self.folder} do not end: {alive}")
        collect()
        if self.shape.strict:
            _remove_cgroups(self.nodes)
        if not keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for path in self.folder.iterdir():
            if path.name != "log":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _kill_all(self, nodes: Collection[str]) -> bool:
        """Kill the steps of these nodes; whether there were any."""
        victims = steps(self.layout, nodes)
        kill(victims)
        return bool(victims)

    def _alive(self, daemon: str) -> bool:
        collect()
        return load(self.layout.process(daemon)) is not None

    # Refusals

    def _check_node(self, name: str) -> None:
        if name not in self.nodes:
            raise TestbedError(f"there is no node {name}; there are {', '.join(self.nodes)}")

    def _check_accounting(self) -> None:
        if not self.shape.accounting:
            raise TestbedError(f"the testbed in {self.folder} was started without accounting")


# The folder


def read_record(layout: Layout) -> tuple[Shape, Ports]:
    """What the testbed was started with. Raises TestbedError where there is none."""
    try:
        record = json.loads(layout.record.read_text())
    except FileNotFoundError:
        raise TestbedError(
            f"there is no testbed in {layout.folder}."
            f" Start one: python -m tests.testbed start --dir {layout.folder}"
        ) from None
    ports = Ports(**record["ports"])
    return Shape(**record["shape"]), replace(ports, nodes=tuple(ports.nodes))


def write_record(layout: Layout, shape: Shape, ports: Ports) -> None:
    """Make the folder known as a testbed, before anything is started in it."""
    record = {"shape": asdict(shape), "ports": asdict(ports)}
    unfinished = layout.record.with_suffix(".new")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    unfinished.replace(layout.record)


def check_folder(layout: Layout) -> None:
    """Refuse a folder with anything else in it, because `stop` removes it. Raises TestbedError."""
    folder = layout.folder
    if folder.exists() and not folder.is_dir():
        raise TestbedError(f"{folder} is not a folder")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if found - {"log", "testbed.new"} and not layout.record.exists():
        raise TestbedError(f"{folder} holds something else than a testbed; choose another folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Against another process that starts or stops the same testbed; raises TestbedError where one does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TestbedError(f"another process is starting or stopping the testbed in {folder}") from None
        yield
    finally:
        os.close(handle)


def write_configuration(layout: Layout, shape: Shape, ports: Ports) -> None:
    """Make the folders and write every file that a daemon needs."""
    layout.folder.chmod(0o755)
    for path in layout.folders:
        path.mkdir(mode=0o700, exist_ok=True)
        if path.name in ("etc", "gpu", "run", "spool"):  # ordinary users may use the cluster; secrets are 600
            path.chmod(0o755)
    password = secrets.token_hex(16)
    host = socket.gethostname().partition(".")[0]
    layout.slurm_conf.write_text(config.slurm_conf(layout, shape, ports, host))
    layout.slurm_conf.with_name("gres.conf").write_text(config.gres_conf(layout, shape))
    if shape.strict:
        layout.slurm_conf.with_name("cgroup.conf").write_text(config.CGROUP_CONF)
    for index in range(shape.gpus):
        layout.gpu(index).symlink_to("/dev/null")
    for name in shape.node_names:
        (layout.folder / "spool" / name).mkdir(mode=0o755)
    _write_secret(layout.munge_key, secrets.token_bytes(128))
    if shape.accounting:
        dbd = config.slurmdbd_conf(layout, ports, password)
        _write_secret(layout.slurm_conf.with_name("slurmdbd.conf"), dbd.encode())
        _write_secret(layout.grants, config.grants_sql(password).encode())


def set_up_database(layout: Layout, environment: Mapping[str, str]) -> None:
    """Make the empty database of the accounting. Raises TestbedError with the program's own words."""
    with layout.output("mariadb-install-db").open("wb") as file:
        answer = subprocess.run(
            config.database_setup_command(layout),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=layout.folder,
        )
    if answer.returncode:
        raise TestbedError(f"mariadb-install-db failed:\n{tail('mariadb-install-db', layout)}")


def _write_secret(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _remove_cgroups(nodes: Collection[str]) -> None:
    """The empty folders that SLURM leaves for its nodes."""
    for node in nodes:
        for folder in config.CGROUPS.glob(f"*/slurm_{node}"):
            for path in (*sorted(folder.glob("**/"), reverse=True), folder):
                with suppress(OSError):  # it is gone, or another testbed has a node of this name
                    path.rmdir()
