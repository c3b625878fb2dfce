"""The configuration files of a testbed, as texts. Nothing here reads or writes anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LONGEST_FOLDER = 70  # slurmd binds a Unix socket below its spool folder, whose path ends at 107 characters
MEMORY_MB = 6000
DAEMON_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

BY_PARTITION = """PreemptType=preempt/partition_prio
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectTypeParameters=CR_Core"""
STRICT = """PreemptType=preempt/qos
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
SelectTypeParameters=CR_Core_Memory
AccountingStorageEnforce=limits,qos"""
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainRAMSpace=yes\n"
CGROUPS = Path("/sys/fs/cgroup")  # of version 1, where SLURM has folders for a node


class TestbedError(Exception):
    """Something that the user can act on; the message is one or more sentences."""

    __test__ = False  # pytest takes a class of this name for a test


@dataclass(frozen=True)
class Shape:
    """What the cluster pretends to have. None of it depends on the real machine."""

    nodes: int = 3
    gpus: int = 2
    cpus: int = 8
    max_array: int = 1001
    accounting: bool = True
    requeue_delay: int = 10
    strict: bool = False  # limits enforced, preemption by QOS, memory held by cgroups

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("max_array", 1), ("requeue_delay", 1)):
            if (value := getattr(self, name)) < least:
                raise TestbedError(f"{name} is {value}, but a testbed needs at least {least}")

    @property
    def node_names(self) -> tuple[str, ...]:
        """n1, n2 and so on."""
        return tuple(f"n{i + 1}" for i in range(self.nodes))


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, one for each daemon that listens."""

    controller: int
    accounting: int
    database: int
    nodes: tuple[int, ...]


class Layout:
    """Where what lies below the testbed's folder."""

    def __init__(self, folder: Path) -> None:
        path = str(folder)
        if len(path) > LONGEST_FOLDER:
            raise TestbedError(
                f"the folder {path} has {len(path)} characters, but SLURM's sockets allow {LONGEST_FOLDER}"
            )
        if any(c.isspace() or c in "#\\%'\",=()[]" for c in path):
            raise TestbedError(f"the folder {path} has characters that slurm.conf cannot hold")
        self.folder = folder
        self.record = folder / "testbed.json"  # by which the folder is known as a testbed
        self.slurm_conf = folder / "etc/slurm.conf"  # SLURM's other files lie beside it
        self.munge_key = folder / "etc/munge.key"
        self.munge_socket = folder / "run/munge.socket"
        self.database = folder / "database"
        self.database_socket = folder / "run/mariadb.socket"
        self.grants = folder / "etc/grants.sql"  # what MariaDB executes when it starts
        self.folders = [folder / name for name in ("etc", "gpu", "log", "run", "spool", "state", "tmp")]

    def gpu(self, index: int) -> Path:
        """The device file of a fake GPU."""
        return self.folder / f"gpu/gpu{index}"

    def log(self, daemon: str) -> Path:
        """What the daemon logs."""
        return self.folder / f"log/{daemon}.log"

    def output(self, daemon: str) -> Path:
        """What it prints, which is where it complains before its log is open."""
        return self.folder / f"log/{daemon}.out"

    def pid(self, daemon: str) -> Path:
        """Where the daemon itself writes its process id."""
        return self.folder / f"run/{daemon}.pid"

    def process(self, daemon: str) -> Path:
        """Our own record of the process; the daemons write their pid files themselves, and late."""
        return self.folder / f"run/{daemon}.process"


def slurm_conf(layout: Layout, shape: Shape, ports: Ports, host: str) -> str:
    """slurm.conf: several nodes on one host, short timings, preemption by partition."""
    folder = layout.folder
    accounting = "AccountingStorageType=accounting_storage/none"
    if shape.accounting:
        accounting = f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports.accounting}
# AuthInfo does not count for this connection
AccountingStoragePass={layout.munge_socket}
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"""
    gpus = f" Gres=gpu:{shape.gpus}" if shape.gpus else ""
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={shape.cpus} Boards=1"
        f" SocketsPerBoard=1 CoresPerSocket={shape.cpus} ThreadsPerCore=1 RealMemory={MEMORY_MB}{gpus}"
        for name, port in zip(shape.node_names, ports.nodes, strict=True)
    )
    return f"""ClusterName=testbed
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports.controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start again when its former credential has expired
AuthInfo=socket={layout.munge_socket},cred_expire={shape.requeue_delay}
MailProg=/bin/true

StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={layout.pid("slurmctld")}
SlurmdPidFile={layout.pid("%n")}
SlurmctldLogFile={layout.log("slurmctld")}
SlurmdLogFile={layout.log("%n")}

MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
MaxArraySize={shape.max_array}
MaxJobCount={max(10_000, 2 * shape.max_array)}

KillWait=10
# A dead node is noticed after both: a connection that is refused is tried anew for MessageTimeout
SlurmdTimeout=10
MessageTimeout=5
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_continue

{STRICT if shape.strict else BY_PARTITION}
PreemptMode=REQUEUE
# Without it a preempted job gets SIGTERM, whatever its --signal says
SlurmctldParameters=preempt_send_user_signal

{accounting}

{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=20 MaxTime=1-0 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=1-0 State=UP
PartitionName=short Nodes=ALL PriorityTier=1 MaxTime=00:10:00 State=UP
"""


def gres_conf(layout: Layout, shape: Shape) -> str:
    """gres.conf: the fake GPUs. SLURM wants a device file for each: links to /dev/null will do."""
    names = ",".join(shape.node_names)
    return "".join(f"NodeName={names} Name=gpu File={layout.gpu(i)}\n" for i in range(shape.gpus))


def slurmdbd_conf(layout: Layout, ports: Ports, password: str) -> str:
    """slurmdbd.conf. It holds a password: slurmdbd insists on mode 600."""
    return f"""AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.accounting}
SlurmUser=root
LogFile={layout.log("slurmdbd")}
PidFile={layout.pid("slurmdbd")}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports.database}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct
"""


def grants_sql(password: str) -> str:
    """What MariaDB executes when it starts: slurmdbd's account, with the rights to make its database."""
    return (
        f"CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON slurm_acct.* TO 'slurm'@'127.0.0.1';\n"
    )


# Commands. They are split at spaces, which the testbed's folder never has.


def munged_command(layout: Layout) -> list[str]:
    """`--force`: a temporary folder that other users cannot enter is right here, and munged complains."""
    return (
        f"munged --foreground --force --socket={layout.munge_socket} --key-file={layout.munge_key}"
        f" --log-file={layout.log('munged')} --pid-file={layout.pid('munged')}"
        f" --seed-file={layout.folder}/run/munge.seed"
    ).split()


def database_setup_command(layout: Layout) -> list[str]:
    """Makes MariaDB's system tables in an empty folder."""
    return (
        f"mariadb-install-db --no-defaults --user=root --datadir={layout.database}"
        " --auth-root-authentication-method=socket --skip-name-resolve --skip-test-db"
    ).split()


def database_command(layout: Layout, ports: Ports) -> list[str]:
    """MariaDB on 127.0.0.1 alone. What it forgets in a crash is forgotten: it is made for quick tests."""
    return (
        f"mariadbd --no-defaults --user=root --datadir={layout.database} --tmpdir={layout.folder}/tmp"
        f" --socket={layout.database_socket} --pid-file={layout.pid('mariadbd')} --init-file={layout.grants}"
        f" --port={ports.database} --bind-address=127.0.0.1 --skip-name-resolve"
        " --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=64M"
        " --innodb-lock-wait-timeout=900 --performance-schema=OFF"
    ).split()


def daemon_environment(layout: Layout, home: str) -> dict[str, str]:
    """What the daemons see, and nothing else: a virtual environment's variables are not theirs."""
    own = {"HOME": home, "SLURM_CONF": str(layout.slurm_conf), "PATH": DAEMON_PATH, "SHELL": "/bin/bash"}
    return own | {"LANG": "C.UTF-8", "LOGNAME": "root", "TMPDIR": "/tmp", "USER": "root"}
