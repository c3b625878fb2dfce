"""Find out whether a cluster profile works, with a tiny job, and say in words what does not."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm import ClusterError, scheduler, site
from slurm.cluster import Cluster, Resources
from slurm.files import read_json
from slurm.scheduler import check_path
from slurm.submission import Request, Sender

MODULE = re.compile(r"\b(module\s+(load|add)|ml)\s")
CLOCK_SECONDS = 60.0  # munge refuses credentials from clocks that differ by five minutes
FILE_SECONDS = 30.0  # in which a file written on a node appears here, on a slow network file system


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: "ok", "note" (works, but) or "problem"."""

    level: str
    what: str
    words: str
    facts: Mapping[str, Any] = field(default_factory=dict)  # the same for programs


Tell = Callable[[Finding], None]


def look_around(cluster: Cluster, tell: Tell) -> bool:
    """What can be seen without a job; whether a job may be tried."""
    missing = [p for p in ("sbatch", "srun", "squeue", "scontrol", "scancel") if not shutil.which(p)]
    if missing:
        tell(Finding("problem", "commands", f"not on the PATH: {', '.join(missing)}. Is this a login node?"))
        return False
    try:
        version = scheduler.run(["sbatch", "--version"]).strip()
        settings = scheduler.settings()
    except ClusterError as error:
        tell(Finding("problem", "controller", f"does not answer: {error}"))
        return False
    tell(Finding("ok", "controller", f"{version} of cluster {settings.get('ClusterName', '?')} answers"))
    _accounting(tell)
    good = _partitions(cluster, tell)
    longest = scheduler.longest_array(settings)
    tell(Finding("ok", "arrays", f"up to {longest} runs each; longer grids become several"))
    _preemption(settings, tell)
    good &= _limits(cluster, settings, tell)
    _software("login node", site.software() | {"pyxis": site.pyxis()}, tell)
    return good


def _accounting(tell: Tell) -> None:
    try:
        scheduler.run(["sacct", "-X", "-n", "-P", "-o", "JobID", "-S", "now"], 10.0)
    except ClusterError as error:
        words = f"sacct does not answer ({error}): `ablate cost` will know estimates only; all else works"
        tell(Finding("note", "accounting", words))
    else:
        tell(Finding("ok", "accounting", "sacct answers"))


def _partitions(cluster: Cluster, tell: Tell) -> bool:
    try:
        text = scheduler.run(["sinfo", "-h", "-o", "%R|%l|%G|%c|%m|%a|%D|%f", "-a"])
    except ClusterError as error:
        tell(Finding("problem", "partitions", f"sinfo fails: {error}"))
        return False
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 7]
    names = sorted({row[0] for row in rows})
    resources = {cluster.resources(o.experiments) for o in cluster.override} | {cluster.resources("")}
    good = True
    for wanted in sorted(resources, key=str):
        mine = [row for row in rows if not wanted.partition or row[0] in wanted.partition.split(",")]
        if not mine:
            words = f"partition {wanted.partition!r} is not there; there are: {', '.join(names)}"
            tell(Finding("problem", "partition", words))
            good = False
            continue
        most = max(gpus(row[2], wanted.gpu_type) for row in mine)
        if wanted.gpus > most:
            kind = f" of type {wanted.gpu_type}" if wanted.gpu_type else ""
            offered = ", ".join(sorted({row[2] for row in mine}))
            words = f"{wanted.gpus} GPUs{kind} a node are asked for, {most} is the most there is ({offered})"
            tell(Finding("problem", "GPUs", words))
            good = False
            continue
        limit = mine[0][1]
        name = wanted.partition or "the default"
        words = f"{name}: time limit {limit}, GPUs {mine[0][2]}, {mine[0][3]} CPUs"
        tell(Finding("ok", "partition", words))
        _mixed(name, wanted, [row for row in mine if gpus(row[2], wanted.gpu_type)], tell)
    return good


def _mixed(partition: str, wanted: Resources, rows: list[list[str]], tell: Tell) -> None:
    """Whether a run may meet different GPUs, as gres and features tell."""
    found = site.kinds([(row[2], row[7], int(row[6])) for row in rows if row[6].isdecimal()])
    if not wanted.gpus or not found:
        return
    listed = ", ".join(f"{kind} ({nodes} node{'s' * (nodes != 1)})" for kind, nodes in found.items())
    facts = {"partition": partition, "kinds": dict(found)}
    if len(found) == 1 or wanted.constraint:
        tell(Finding("ok", "GPU types", listed, facts))
        return
    words = f"mixed: {listed}. A run takes any of them, unless the profile's `gpu_type` or `constraint` says"
    tell(Finding("note", "GPU types", words, facts))


def _limits(cluster: Cluster, settings: Mapping[str, str], tell: Tell) -> bool:
    """Account and QOS of the jobs, and what they allow."""
    wanted = cluster.resources("")
    seen = site.limits(cluster, wanted.partition, settings)
    facts = {**vars(seen), "found": [list(row) for row in seen.found]}
    if not seen.account and not seen.qos:
        tell(Finding("note", "limits", "the accounting names no account or QOS of yours", facts))
        return True
    listed = ", ".join(f"{which} {value} ({whose})" for whose, which, value in seen.found) or "none seen"
    words = f"account {seen.account or '?'}, QOS {seen.qos or 'none'}; {listed}"
    if seen.found and not seen.enforced:
        words += "; this cluster does not enforce them"
    resources = {cluster.resources(o.experiments) for o in cluster.override} | {wanted}
    bad = sorted({why for one in resources if (why := seen.refusal(one))})
    tell(Finding("problem" if bad else "ok", "limits", "; ".join([*bad, words]), facts))
    return not bad


def _software(where: str, seen: Mapping[str, Any], tell: Tell, loads: bool = False) -> None:
    """Modules (`loads`: a profile wants some), containers and what a compiler needs; here or in a job."""
    modules = seen["modules"] or "no modules seen"
    if seen["loaded"]:
        modules += f", loaded: {seen['loaded']}"
    elif seen["modules"] and not seen["module_function"]:
        modules += " (a script has to read its init file before `module load`)"
    containers = [*seen["containers"], *(["pyxis (srun --container-image)"] if seen.get("pyxis") else [])]
    words = [modules, f"containers: {', '.join(containers) or 'none seen'}", seen["system"]]
    if seen["inside"]:
        words.append(f"in a container ({seen['inside']})")
    missing = [
        name
        for name, there in (("Python.h", seen["headers"]), ("a C compiler", seen["compiler"]))
        if not there
    ]
    if missing:
        words.append(f"without {' and '.join(missing)}, which only `numerics.compile` needs")
    failed = loads and not seen["loaded"]
    if failed:
        words.insert(0, "`setup` loads modules, and none is loaded: does the job's bash know `module`?")
    tell(Finding("note" if failed else "ok", where, "; ".join(word for word in words if word), dict(seen)))


def gpus(gres: str, kind: str = "") -> int:
    """GPUs of a node by sinfo's word; of one kind if it is named."""
    return sum(count for types, count in site.gres(gres) if not kind or kind in types.split(":"))


def _preemption(settings: dict[str, str], tell: Tell) -> None:
    mode, kind = settings.get("PreemptMode", "OFF"), settings.get("PreemptType", "")
    if "none" in kind or mode == "OFF":
        tell(Finding("ok", "preemption", "off"))
        return
    told = "preempt_send_user_signal" in settings.get("SlurmctldParameters", "")
    signal = (
        "runs are told by the signal that they know" if told else "runs are told by SIGTERM, which they know"
    )
    level = "ok" if "REQUEUE" in mode or "CANCEL" not in mode else "note"
    more = "" if level == "ok" else "; a preempted run that cannot save in time has to be launched again"
    tell(Finding(level, "preemption", f"{mode}; {signal}{more}"))


def work(run_dir: Path, stop: Callable[[], bool]) -> str:
    """What the tiny job does on a node: look, and leave what it saw in a file."""
    wanted = read_json(run_dir / "planned.json") or {}
    content = look_from_inside(wanted["data"], wanted["local_disk"])
    target = Path(wanted["results"]) / "clusters" / f".probe-{os.environ['SLURM_JOB_ID']}.json"
    target.write_text(json.dumps(content))
    return "done"


def leave(run_dir: Path, state: str, reason: str) -> None:
    """Nothing to leave."""


def look_from_inside(data: str, local_disk: str) -> dict[str, Any]:
    """Called on a node: its name, Python, torch and GPUs, and whether it sees the data and its own disk."""
    found: dict[str, Any] = {"host": os.uname().nodename, "python": sys.version.split()[0]}
    try:
        import torch

        found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}
        if found["gpus"]:
            found["gpu"] = torch.cuda.get_device_name(0)
            found["sum"] = float(torch.ones(8, device="cuda").sum())
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["software"] = site.software()
    found["given"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    found["code"] = str(Path(__file__).parent.parent)
    if data:
        found["data"] = Path(data, "annotations").is_dir()
    if local_disk:
        folder = os.path.expandvars(local_disk)
        try:
            with tempfile.NamedTemporaryFile(dir=folder):
                found["disk"] = shutil.disk_usage(folder).free / 1e9
        except OSError as error:
            found["disk_error"] = f"{folder}: {error.strerror}"
    else:
        found["scratch"] = site.scratch()
    found["clock"] = time.time()
    return found


def send_probe(
    cluster: Cluster, results: Path, code: Path, data: str, patience: float, tell: Tell
) -> dict[str, Any] | None:
    """Submit the tiny job, wait for its file, and tell what it says; None where it never came.

    Raises ClusterError where sbatch refuses.
    """
    check_path(results.absolute())
    (results / "clusters").mkdir(parents=True, exist_ok=True)
    small = cluster.model_copy(update={"parallel": 1})
    resources = cluster.resources("")
    least = max(2, cluster.signal_delay // 60 + 2)
    resources = resources.model_copy(update={"time": str(min(resources.minutes, least)), "nodes": 1})
    folder = results.absolute() / "launches" / f"probe-{os.getpid()}-{int(time.time())}"
    wanted = {"results": str(results.absolute()), "data": data, "local_disk": cluster.local_disk}
    sender = Sender(small, folder, code, 1)
    request = Request("probe", folder / "run", __name__, resources, wanted)
    sent = sender.submit([request])
    if sent.problem:
        shutil.rmtree(folder, ignore_errors=True)
        raise ClusterError(sent.problem)
    job = sent.jobs["probe"]
    tell(Finding("ok", "submission", f"job {job} was accepted; waiting for it, {patience:.0f} s at most"))
    try:
        return _await(job, results, folder, patience, tell)
    finally:
        with suppress(ClusterError):  # it has ended, mostly
            scheduler.cancel([job])
        shutil.rmtree(folder, ignore_errors=True)


def _await(job: str, results: Path, folder: Path, patience: float, tell: Tell) -> dict[str, Any] | None:
    target = results / "clusters" / f".probe-{job}.json"
    deadline, gone = time.monotonic() + patience, 0.0
    waits, absent = "", time.time()
    while time.monotonic() < deadline:
        content = read_json(target)
        if content is not None:
            target.unlink(missing_ok=True)
            # The file was written between these two moments, by the clock of this machine.
            return content | {"clock_here": [absent, time.time()]}
        absent = time.time()
        seen = scheduler.queue([job]).get(job)
        waits = seen.reason if seen is not None and seen.waiting else ""
        if seen is None or not seen.alive:
            gone = gone or time.monotonic()
            if time.monotonic() - gone > FILE_SECONDS or (seen is not None and seen.state != "COMPLETED"):
                break
        time.sleep(1.0)
    else:
        words = f"still {waits or 'waiting'} after {patience:.0f} s; ask with a longer --timeout"
        tell(Finding("problem", "job", words))
        return None
    log = folder / "arrays" / "0" / f"{job}_0_log.out"
    if log.exists():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        words = f"the job ended ({seen.state if seen else 'gone'}) and says: {' / '.join(lines[-3:])}"
    else:
        words = (
            f"the job ended ({seen.state if seen else 'gone'}) and left no file in {folder}: the nodes do "
            "not see this results folder. Choose one on a shared file system"
        )
    tell(Finding("problem", "job", words))
    return None


def conclude(cluster: Cluster, seen: dict[str, Any], results: Path, code: Path, tell: Tell) -> bool:
    """What the tiny job saw, in words; whether runs would work."""
    good = True

    def say(fine: bool, what: str, words: str) -> None:
        nonlocal good
        good &= fine
        tell(Finding("ok" if fine else "problem", what, words))

    say(True, "results", f"{results.absolute()} is shared: {seen['host']} wrote there")
    if "clock" in seen:
        _clock(seen, tell)
    if "software" in seen:
        _software("node", seen["software"], tell, any(MODULE.search(line) for line in cluster.setup))
    say(seen["code"] == str(code), "code", f"jobs run the frozen copy {shlex.quote(seen['code'])}")
    if "error" in seen:
        say(False, "torch", f"does not load on {seen['host']}: {seen['error']}")
        return good
    say(True, "torch", f"{seen['torch']} (CUDA {seen['cuda']}), Python {seen['python']}")
    asked = cluster.resources("").gpus
    if cluster.device == "cpu":
        say(
            True,
            "GPUs",
            f"not looked at: the profile says device = 'cpu' (the job was given {seen['given']})",
        )
    elif asked and seen["gpus"] != asked:
        say(
            False,
            "GPUs",
            f"{asked} were asked for, torch sees {seen['gpus']} (CUDA_VISIBLE_DEVICES={seen['given']}). "
            "Check the driver (nvidia-smi in a job), that torch is a CUDA build, and the container's --nv",
        )
    elif asked:
        say(seen.get("sum") == 8.0, "GPUs", f"{seen['gpus']} x {seen.get('gpu')}, and they add up")
    if "data" in seen:
        words = "is seen from the node" if seen["data"] else "has no annotations/ as seen from the node"
        say(seen["data"], "data", f"the data folder {words}")
    if "disk" in seen:
        say(True, "local disk", f"{seen['disk']:.0f} GB free")
    if seen.get("scratch"):
        disk = seen["scratch"]
        kind = "memory" if disk["kind"] == "tmpfs" else disk["kind"] or "of an unknown kind"
        words = f"not used: the profile has no `local_disk`; {disk['name']} is {disk['folder']}, {kind}"
        tell(Finding("ok", "local disk", f"{words}, {disk['free']:.0f} GB free", disk))
    if "disk_error" in seen:
        say(False, "local disk", f"cannot be written: {seen['disk_error']}")
    return good


def _clock(seen: Mapping[str, Any], tell: Tell) -> None:
    """The node's clock against this machine's, as far as the moment of writing the file is known."""
    first, last = seen["clock_here"]
    ahead, late = seen["clock"] - last, first - seen["clock"]
    least = max(ahead, late, 0.0)
    facts = {"seconds_at_least": least, "seconds_at_most": max(seen["clock"] - first, last - seen["clock"])}
    if least < CLOCK_SECONDS:
        words = f"{seen['host']}'s is this machine's within {facts['seconds_at_most']:.0f} s"
        tell(Finding("ok", "clock", words, facts))
        return
    which = "ahead" if ahead > 0 else "late"
    words = f"{seen['host']}'s is {least:.0f} s {which} or more; times of runs and logs are off by that"
    tell(Finding("note", "clock", words, facts))
