"""Questions to SLURM and orders for it. Every one has a time limit, and none is asked once per run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slurm import ClusterError

NO_SUCH_NODES = "node configuration is not available"
SECONDS = 20.0  # for an order, or a question without which nothing goes on
AT_ONCE = 500  # job ids of one command line
WAITING = {
    "PENDING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "CONFIGURING",
    "RESV_DEL_HOLD",
}
UNCLEAR = "UNCLEAR"  # ours: nobody who should know answers
# A job in any other state than these is there: newer versions have words that older ones did not.
OVER = {
    "",
    UNCLEAR,
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
ADVICE = {
    "accounting/qos policy": "the limits of your account and QOS on jobs, size and time: send fewer runs at "
    "once, or change the profile's `qos`, `account`, `time`; `sacctmgr show qos` lists them",
    "job submit limit": "your account's and QOS's limits on jobs: send fewer runs at a time",
    "invalid feature": "the profile's `constraint`; `sinfo -o '%N %f'` lists what nodes have",
    "invalid partition": "the profile's `partition`; `sinfo -s` lists those there are",
    "invalid account": "the profile's `account` and `partition`; "
    "`sacctmgr show assoc user=$USER format=account,partition,qos` lists yours",
    "invalid qos": "the profile's `qos`; `sacctmgr show assoc user=$USER format=account,qos` lists yours",
    "time limit": "the profile's `time`; `sinfo -o '%P %l'` lists the longest of each partition",
    NO_SUCH_NODES: "the profile's `nodes`, `gpus`, `gpu_type`, `cpus`, `memory_gb`, `constraint`: no nodes "
    "have so many GPUs, CPUs or so much memory; `sinfo -N -o '%N %G %c %m %f'` lists theirs",
    "generic resource": "the profile's `gpus` and `gpu_type`; `sinfo -o '%N %G'` lists what nodes have",
    "memory specification": "the profile's `memory_gb`; `sinfo -N -o '%N %m'` lists what nodes have",
    "more processors": "the profile's `nodes`, `gpus` and `cpus`",
}
# Reasons for which a job waits that do not pass by themselves, and what they are about.
FOREVER = {
    "PartitionTimeLimit": "`time` is longer than the partition allows",
    "PartitionNodeLimit": "`nodes` are more than the partition allows",
    "MaxWallDuration": "`time` is longer than the account or QOS allows",
    "MaxCpuPerJob": "`cpus` are more than the account or QOS allows",
    "MaxCpuPerNode": "`cpus` are more than the account or QOS allows",
    "MaxNodePerJob": "`nodes` are more than the account or QOS allows",
    "MaxGRESPerJob": "`gpus` are more than the account or QOS allows",
    "MaxMemoryPerJob": "`memory_gb` is more than the account or QOS allows",
    "MaxMemPerJob": "`memory_gb` is more than the account or QOS allows",
    "BadConstraints": "no node has what the profile asks for",
    "InvalidAccount": "the account is not there any more",
    "InvalidQOS": "the QOS is not there any more",
    "AccountNotAllowed": "the account may not use the partition",
    "QOSNotAllowed": "the QOS may not be used in the partition",
    "DependencyNeverSatisfied": "the run that it continues did not end well",
    "JobHeldAdmin": "an administrator has to release it",
    "JobHeldUser": "`scontrol release JOB` lets it start",
    "JobHoldMaxRequeue": "`scontrol release JOB` lets it start",
    "requeued held": "`scontrol release JOB` lets it start",
    "requeued_held": "`scontrol release JOB` lets it start",
}
# Read by sbatch, srun, squeue and so on as options; within a job SLURM sets more of its own.
OPTIONS = ("SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_", "SLURM_")
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")  # where the cluster is, and who asks
WHOLE_LISTS = {"SLURM_BITSTR_LEN": "0"}  # of an array's jobs, which SLURM else cuts short
TASKS = re.compile(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]")


class UnansweredError(ClusterError):
    """An order that may have been carried out, or not: nobody said."""


@dataclass(frozen=True)
class Seen:
    """A job as the scheduler, or its accounting, describes it."""

    job: str
    state: str  # SLURM's word, as PENDING
    node: str = ""
    reason: str = ""
    seconds: float = 0.0  # of the present attempt; of all of them in the accounting
    gpu_seconds: float = 0.0  # of all attempts; accounting only

    @property
    def waiting(self) -> bool:
        """Whether it will start by itself."""
        return self.state in WAITING

    @property
    def alive(self) -> bool:
        """Whether it runs or will run."""
        return self.state not in OVER


def available() -> bool:
    """Whether this machine can submit jobs."""
    return all(shutil.which(program) for program in ("sbatch", "srun", "squeue"))


def require() -> None:
    """Raises ClusterError where this machine is no part of a SLURM cluster."""
    if not available():
        raise ClusterError(
            "no SLURM here: sbatch, srun and squeue are not on the PATH. Call this on a login node of the "
            "cluster; without --cluster the runs are trained on this machine"
        )


def foreign(environment: Mapping[str, str] | None = None) -> list[str]:
    """Variables that SLURM's commands would take for options, and that are kept from them."""
    names = os.environ if environment is None else environment
    return sorted(name for name in names if name.startswith(OPTIONS) and name not in KEPT)


def run(command: Sequence[str], seconds: float = SECONDS) -> str:
    """What a command prints, in a session of its own, so that Ctrl-C does not end it half done.

    The user's options in the environment, as SBATCH_PARTITION, are kept from it, and from the job of an
    sbatch. Raises ClusterError with the command's own words, UnansweredError where it took too long.
    """
    left_out = foreign()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in left_out} | WHOLE_LISTS,
        )
    except FileNotFoundError:
        raise ClusterError(f"{command[0]} is not on the PATH") from None
    except subprocess.TimeoutExpired:
        raise UnansweredError(f"{command[0]} did not answer within {seconds:g} s") from None
    if done.returncode:
        words = said(done.stderr or done.stdout) or f"{command[0]} ended with {done.returncode}"
        # The controller may have done it all the same.
        lost = any(sign in words for sign in ("Socket timed out", "Zero Bytes were transmitted"))
        raise (UnansweredError if lost else ClusterError)(words)
    return done.stdout


def said(text: str) -> str:
    """The words of an error message of SLURM's, in one line without the program's name."""
    lines = [re.sub(r"^\w+: (?:error|fatal): ", "", line.strip()) for line in text.splitlines()]
    return "; ".join(line for line in lines if line)


def queue(jobs: Iterable[str], seconds: float = SECONDS) -> dict[str, Seen]:
    """Jobs that wait, run, or ended a few minutes ago, by id, asked for with one command.

    Raises ClusterError where squeue is absent, fails or takes too long.
    """
    found: dict[str, Seen] = {}
    for some in _chunks(_arrays(jobs)):
        found |= _queue(["-j", ",".join(some)], seconds)
    return found


def queue_named(names: Iterable[str], seconds: float = SECONDS) -> dict[str, Seen]:
    """The same by the jobs' names: {id: Seen}, with the name as the reason."""
    found: dict[str, Seen] = {}
    for some in _chunks(sorted(set(names))):
        found |= _queue(["-n", ",".join(some)], seconds, reason="%j")
    return found


def _queue(which: list[str], seconds: float, reason: str = "%r") -> dict[str, Seen]:
    form = "%i|%T|%N|%M|" + reason
    try:
        text = run(["squeue", "-h", "-r", "-a", "-t", "all", *which, "-o", form], seconds)
    except ClusterError as error:
        if "Invalid job id" in str(error):  # the scheduler has forgotten all of them
            return {}
        raise
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 4)
        if len(parts) == 5:
            job, state, node, clock, why = parts
            found[job] = Seen(job, state, node, "" if why == "None" else why, _seconds(clock))
    return found


def history(jobs: Iterable[str], seconds: float = SECONDS, exact: bool = False) -> dict[str, Seen]:
    """Jobs as the accounting remembers them, all attempts together, by id.

    With `exact` the time of an attempt is that of its script: one that had ended when somebody requeued it by
    hand counts, in the accounting, up to that moment.

    Raises ClusterError where sacct is absent, switched off or takes too long.
    """
    found: dict[str, Seen] = {}
    form = "JobID,State,ElapsedRaw,AllocTRES,NodeList"
    for some in _chunks(_arrays(jobs)):
        steps = [] if exact else ["-X"]
        text = run(["sacct", *steps, "-n", "-P", "-D", "-j", ",".join(some), "-o", form], seconds)
        rows = [parts for line in text.splitlines() if len(parts := line.split("|")) == 5]
        for (name, state, elapsed, tres, node), after in zip(rows, [*rows, [""] * 5][1:], strict=True):
            length = float(elapsed or 0)
            if after[0] == f"{name}.batch" and state == "REQUEUED":
                length = min(length, float(after[2] or 0))
            word = state.split(" ")[0]
            for job in _ids(name):
                before = found.get(job, Seen(job, ""))
                spent, devices = before.seconds + length, _devices(tres)
                found[job] = Seen(job, word, node, state, spent, before.gpu_seconds + length * devices)
    return found


def look(jobs: Iterable[str], seconds: float) -> tuple[dict[str, Seen] | None, dict[str, Seen] | None]:
    """Queue and accounting at the same time; None for the one that does not answer within the time.

    A job that squeue does not list, and of which the accounting does not say that it has ended, is asked for
    once more, with scontrol: what squeue prints may be cut short, and the accounting may lag or be off. Where
    that does not answer, the job's state is `UNCLEAR`.
    """
    jobs = list(jobs)
    if not jobs:
        return {}, {}

    def ask(question: Callable[[list[str], float], dict[str, Seen]]) -> dict[str, Seen] | None:
        try:
            return question(jobs, seconds)
        except ClusterError:
            return None

    with ThreadPoolExecutor(2) as pool:
        queued, past = pool.map(ask, (queue, history))
    if queued is not None:
        known = past or {}
        unclear = [j for j in jobs if j not in queued and (j not in known or known[j].alive)]
        for array in _arrays(unclear):
            there = _shown(array, seconds)
            for job in (job for job in unclear if job.split("_")[0] == array):
                if there is None:
                    queued[job] = Seen(job, UNCLEAR)
                elif job in there:
                    queued[job] = there[job]
    return queued, past


def _shown(array: str, seconds: float) -> dict[str, Seen] | None:
    """The jobs of an array (or the job) by scontrol's word; None where it does not answer."""
    try:
        text = run(["scontrol", "show", "job", "--oneliner", array], seconds)
    except ClusterError as error:
        return {} if "Invalid job id" in str(error) else None
    found = {}
    for line in text.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split())
        task = words.get("ArrayTaskId")
        name = words.get("JobId", "") if task is None else f"{array}_{task}" if task.isdecimal() else ""
        ids = _ids(name or f"{array}_[{task}]")
        for job in ids:
            found[job] = Seen(
                job, words.get("JobState", ""), words.get("NodeList", ""), words.get("Reason", "")
            )
    return found


def cancel(jobs: Iterable[str]) -> None:
    """End jobs, whether they wait or run."""
    for some in _chunks(list(jobs)):
        run(["scancel", *some])


def requeue(job: str) -> None:
    """Send a running job back to the queue."""
    run(["scontrol", "requeue", job])


@dataclass(frozen=True)
class Own:
    """The job that asks, as the scheduler sees it."""

    state: str  # SLURM's word; while a job ends it is COMPLETING, whatever comes next
    restarts: int  # more than its own count: SLURM has put it back in the queue


def own(job: str) -> Own | None:
    """What SLURM says of the job that asks; None where it does not say."""
    try:
        text = run(["scontrol", "show", "job", job])
    except ClusterError:
        return None
    state, restarts = re.search(r"JobState=(\w+)", text), re.search(r"Restarts=(\d+)", text)
    return Own(state[1], int(restarts[1]) if restarts else 0) if state else None


def settings(seconds: float = SECONDS) -> dict[str, str]:
    """The cluster's configuration, by SLURM's names. Raises ClusterError."""
    pairs = (line.partition("=") for line in run(["scontrol", "show", "config"], seconds).splitlines())
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def hides_jobs(seconds: float = SECONDS) -> bool:
    """Whether a user sees no jobs but their own. Where nobody says, they may be hidden."""
    try:
        return "jobs" in settings(seconds).get("PrivateData", "").split(",")
    except ClusterError:
        return True


def longest_array(found: dict[str, str] | None = None) -> int:
    """Jobs that one array may have. SLURM's MaxArraySize bounds the index, max_array_tasks their number."""
    found = settings() if found is None else found
    value = found.get("MaxArraySize", "")
    own = re.search(r"\bmax_array_tasks=(\d+)", found.get("SchedulerParameters", ""))
    most = int(value) if value.isdecimal() else 1000
    return max(1, min(most, int(own[1])) if own else most)


def _arrays(jobs: Iterable[str]) -> list[str]:
    """An array is asked for as a whole, which costs the scheduler no more than one of its jobs."""
    return sorted({job.split("_")[0] for job in jobs}, key=int)


def _chunks(values: list[str]) -> list[list[str]]:
    return [values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE)]


def _ids(name: str) -> list[str]:
    """`7`, `7_2` -> itself; `7_[0-2,5]` -> the four jobs; `7_[1-9:4]` -> 1, 5 and 9."""
    match = TASKS.fullmatch(name)
    if match is None:
        return [name] if re.fullmatch(r"\d+(_\d+)?", name) else []
    found = []
    for part in match[2].split(","):
        numbers, _, step = part.partition(":")
        first, _, last = numbers.partition("-")
        found += [f"{match[1]}_{k}" for k in range(int(first), int(last or first) + 1, int(step or 1))]
    return found


def _devices(tres: str) -> int:
    """GPUs of an allocation `cpu=8,gres/gpu=2,...`, whose types alone may be given."""
    match = re.search(r"gres/gpu=(\d+)", tres)
    return int(match[1]) if match else sum(map(int, re.findall(r"gres/gpu:[^=,]+=(\d+)", tres)))


def _seconds(clock: str) -> float:
    """`1-02:03:04`, `02:03:04` or `03:04` -> seconds."""
    days, _, rest = clock.rpartition("-")
    total = 0
    for part in rest.split(":"):
        if not part.isdecimal():
            return 0.0
        total = 60 * total + int(part)
    return float(total + 86400 * int(days or 0))


def check_path(path: Path) -> None:
    """Raises ClusterError for a path that SLURM would read as a pattern or that would break its script."""
    bad = [sign for sign in "%\\\n\r\t\"':" if sign in str(path)]
    if bad:
        raise ClusterError(
            f"{str(path)!r} has {bad[0]!r} in it, which sbatch or Python would read as something else; "
            "choose another folder"
        )


def refusal(text: str) -> str:
    """sbatch's words, and which key of the profile they are about."""
    words = said(text)
    hints = [hint for sign, hint in ADVICE.items() if sign in text.lower()]
    return f"{words}. See {hints[0]}" if hints else words


def forever(reason: str) -> str:
    """Why a job that waits for this reason will not start by itself; empty where it will."""
    return next((words for sign, words in FOREVER.items() if sign.lower() in reason.lower()), "")
