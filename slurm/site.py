"""What a site has and allows: limits of accounts and QOS, GPUs of nodes, software. Seen, never assumed."""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm import ClusterError, scheduler
from slurm.cluster import Cluster, Resources, minutes

OF_A_QOS = ("MaxWall", "MaxTRES", "MaxTRESPU", "GrpTRES", "MaxJobsPU", "MaxSubmitPU", "GrpJobs")
OF_AN_ACCOUNT = ("MaxWall", "MaxTRES", "GrpTRES", "MaxJobs", "MaxSubmit", "GrpJobs")
TRES = {"gres/gpu": "GPUs", "cpu": "CPUs", "node": "nodes"}  # SLURM's names; the profile's in lower case
CONTAINERS = ("apptainer", "singularity", "enroot", "podman", "charliecloud")
# Variables that a container sets inside, and a file that it has.
INSIDE = {"APPTAINER_CONTAINER": "apptainer", "SINGULARITY_CONTAINER": "singularity"}
PODMAN = Path("/run/.containerenv")
SCRATCH = ("SLURM_TMPDIR", "LOCAL_SCRATCH", "LOCALSCRATCH", "JOBFS", "PBS_JOBFS", "TMPDIR")
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "panfs", "orangefs", "cifs", "fuse.")


@dataclass(frozen=True)
class Limits:
    """What holds for the jobs of a profile, as far as the accounting says."""

    account: str  # which a job gets; empty where it is not known
    qos: str
    accounts: tuple[str, ...]  # of the user
    qoses: tuple[str, ...]  # of the account
    found: tuple[tuple[str, str, str], ...]  # whose, which, how much: ("qos 'long'", "MaxWall", "1-00:00:00")
    enforced: bool = True
    past_the_partition: bool = False  # whether the QOS admits longer jobs than the partition does

    def refusal(self, wanted: Resources) -> str:
        """Why a job that asks for this would wait for ever; empty where it would not."""
        for whose, which, value in self.found if self.enforced else ():
            if which == "MaxWall":
                longest = slurms_minutes(value)
                if longest is not None and wanted.minutes > longest:
                    return (
                        f"time = {wanted.time!r} is longer than {whose} allows: {longest} minutes. Lower the "
                        "profile's `time`; a run that needs longer is queued again"
                    )
            if "TRES" not in which:
                continue
            for tres, amount in (part.partition("=")[::2] for part in value.split(",")):
                name, _, kind = tres.partition(":")
                asked = {"GPUs": wanted.all_gpus, "CPUs": wanted.all_cpus, "nodes": wanted.nodes}
                key = TRES.get(name, "")
                if amount.isdecimal() and asked.get(key, 0) > int(amount) and kind in ("", wanted.gpu_type):
                    return (
                        f"a run needs {asked[key]} {key}, and {whose} allows {amount} ({which} {tres}). See "
                        f"the profile's `{key.lower()}`, `account` and `qos`"
                    )
        return ""


def limits(cluster: Cluster, partition: str, settings: Mapping[str, str]) -> Limits:
    """The limits for jobs of a profile in a partition: of its QOS, theirs, then of the account."""
    enforce = settings.get("AccountingStorageEnforce")
    enforced = enforce is None or any(word in enforce for word in ("limits", "safe", "all"))
    user = _user()
    # One database may serve several clusters.
    here = [f"cluster={settings['ClusterName']}"] if settings.get("ClusterName") else []
    rows = _ask("assoc", ("Account", "QOS", "DefaultQOS", *OF_AN_ACCOUNT, "Partition"), f"user={user}", *here)
    named = ("", *partition.split(","))
    rows = [row for row in rows if row.get("Partition", "") in named]
    accounts = tuple(sorted({row["Account"] for row in rows}))
    account = cluster.account or (accounts[0] if len(accounts) == 1 else "")
    if not account and accounts:
        account = next((row["DefaultAccount"] for row in _ask("user", ("DefaultAccount",), user)), "")
    own = [row for row in rows if row["Account"] == account]
    mine = next((row for row in own if row.get("Partition")), own[0] if own else {})
    qos = cluster.qos or mine.get("DefaultQOS", "")
    names = list(dict.fromkeys(name for name in (_qos_of(partition), qos) if name))
    of_qos = {name: next(iter(_ask("qos", (*OF_A_QOS, "Flags"), name)), {}) for name in names}
    flags = {name: row.pop("Flags", "").split(",") for name, row in of_qos.items()}
    if "OverPartQOS" in flags.get(qos, ()):
        names.reverse()
    held: dict[str, tuple[str, str, str]] = {}  # SLURM's order: the first that sets a limit counts
    for name in names:
        for which, value in of_qos[name].items():
            held.setdefault(which, (f"qos {name!r}", which, value))
    for which in OF_AN_ACCOUNT:
        if mine.get(which):
            held.setdefault(which, (f"account {account!r}", which, mine[which]))
    qoses = tuple(sorted(mine.get("QOS", "").split(","))) if mine.get("QOS") else ()
    longer = any("PartitionTimeLimit" in some for some in flags.values())
    return Limits(account, qos, accounts, qoses, tuple(held.values()), enforced, longer)


def _ask(what: str, fields: tuple[str, ...], *which: str) -> list[dict[str, str]]:
    """Rows of sacctmgr without their empty fields, but `Account`; none where it does not answer."""
    try:
        text = scheduler.run(["sacctmgr", "-n", "-P", "show", what, *which, f"format={','.join(fields)}"])
    except ClusterError:
        return []
    rows = (zip(fields, line.split("|"), strict=False) for line in text.splitlines() if line)
    return [
        {name: value.strip() for name, value in row if value.strip() or name == "Account"} for row in rows
    ]


def _qos_of(partition: str) -> str:
    """The QOS that a partition itself has, which goes before a job's."""
    with suppress(ClusterError):
        named = [partition] if partition and "," not in partition else []
        for line in scheduler.run(["scontrol", "show", "partition", "--oneliner", *named]).splitlines():
            if named or "Default=YES" in line:
                match = re.search(r"\bQoS=(\S+)", line)
                return match[1] if match and match[1] != "N/A" else ""
    return ""


def slurms_minutes(limit: str) -> int | None:
    """A limit as SLURM prints it; None where there is none."""
    with suppress(ValueError):
        return minutes(limit if "-" in limit or limit.count(":") == 2 else f"0:{limit}")
    return None


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def gres(text: str) -> list[tuple[str, int]]:
    """Type and number of a node's GPUs by sinfo's word, as `gpu:a100:4(S:0-1),gpu:v100:2`; "" for no type."""
    parts = (part.split(":") for part in re.sub(r"\([^)]*\)", "", text).split(","))
    return [(":".join(p[1:-1]), int(p[-1])) for p in parts if p[0] == "gpu" and p[-1].isdecimal()]


def kinds(rows: list[tuple[str, str, int]]) -> Counter[str]:
    """Nodes by the GPUs that they have: from (gres, features, nodes), types where gres names them."""
    found: Counter[str] = Counter()
    for text, features, nodes in rows:
        types = sorted({kind for kind, _ in gres(text)})
        if types:
            untyped = types == [""] and features not in ("", "(null)")
            found[f"features {features}" if untyped else ", ".join(t or "untyped" for t in types)] += nodes
    return found


def software() -> dict[str, Any]:
    """What this machine has, on a login node or in a job: keys of `--json` and of the probe's file."""
    env = os.environ
    modules = "Lmod" if env.get("LMOD_CMD") or env.get("LMOD_VERSION") else ""
    if not modules and (env.get("MODULESHOME") or env.get("MODULES_CMD")):
        modules = "Environment Modules"
    inside = [name for variable, name in INSIDE.items() if env.get(variable)]
    inside += ["podman"] if PODMAN.exists() else []
    system = ""
    with suppress(OSError):
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return {
        "modules": modules,
        "module_function": any(name.startswith("BASH_FUNC_module") for name in env) or "BASH_ENV" in env,
        "loaded": env.get("LOADEDMODULES", ""),
        "containers": [name for name in CONTAINERS if shutil.which(name)],
        "inside": inside[0] if inside else "",
        "system": system,
        "headers": Path(sysconfig.get_path("include"), "Python.h").is_file(),
        "compiler": next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), ""),
    }


def pyxis() -> bool:
    """Whether srun knows `--container-image`, an option of the plugin pyxis."""
    with suppress(ClusterError):
        return "--container-image" in scheduler.run(["srun", "--help"])
    return False


def scratch(environment: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """A folder of this node's own that a job may use: its variable, and its free space in GB; None: none."""
    env = os.environ if environment is None else environment
    for name in (*SCRATCH, ""):
        folder = env.get(name, "") if name else "/tmp"
        kind = file_system(Path(folder)) if folder else ""
        if not folder or kind.startswith(SHARED):
            continue
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free / 1e9
            return {"name": f"${name}" if name else folder, "folder": folder, "kind": kind, "free": free}
    return None


def file_system(path: Path, mounts: str | None = None) -> str:
    """The kind of the file system that a path lies on, as ext4, tmpfs or nfs4; empty where nobody says."""
    with suppress(OSError):
        text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
        best, kind = -1, ""
        real = Path(os.path.realpath(path))
        for line in text.splitlines():
            _, point, this, *_ = line.split(" ")
            point = point.replace("\\040", " ")
            if len(point) >= best and real.is_relative_to(point):
                best, kind = len(point), this
        return kind
    return ""
