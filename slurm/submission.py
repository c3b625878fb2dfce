"""Send runs to SLURM: tokens first, then arrays of equal jobs; submitit writes scripts. Nothing here waits.

Jobs run a frozen copy of the code: editing the checkout does not change them.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import submitit

from slurm import ClusterError, scheduler, site
from slurm.cluster import Cluster, Resources
from slurm.files import SCRIPT, replace_json
from slurm.scheduler import UnansweredError, refusal
from slurm.tokens import Token, claim, moment
from slurm.worker import StopFlag, placed

ROOT = Path(__file__).parent.parent
PACKAGES = ("yolor_core", "ablations", "slurm", "analysis")
NO_LIMIT = 10**9  # minutes
KINDS = (".py", ".csv", ".toml", ".json", ".typed", ".html", ".css", ".js")
# What becomes of each run of a pack is decided as soon as its process has ended, while the others go on. The
# shell passes signals on: with `proctrack/cgroup` SLURM sends none but KILL to what is not its own child.
THEN_ENDING = (
    'trap "" USR2 TERM; ending=$1 folder=$2; shift 2; "$@" & child=$!; '
    'trap \'kill -USR2 "$child" 2> /dev/null\' USR2 TERM; wait "$child"; code=$?; '
    'while kill -0 "$child" 2> /dev/null; do wait "$child"; code=$?; done; '
    'trap "" USR2 TERM; exec "$ending" -m slurm.ending "$folder" "$code" "$SLURM_PROCID"'
)
IGNORE = 'trap "" USR2; exec "$@"'  # until the handlers are there, which takes Python a moment
# SLURM sends a signal that a step's node left unanswered again a minute later, to whatever then has the job's
# number and the step's: a step of the next attempt. So no attempt has a step of the same number.
EMPTY_STEPS = """for _ in $(seq 1 "${SLURM_RESTART_COUNT:-0}"); do
  timeout 60 srun --quiet --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=1 --gres=none \\
    true < /dev/null > /dev/null 2>&1 || true
done"""
SBATCH_SECONDS = 120.0  # a busy controller takes long, and giving up leaves open whether it has the job
SENT = re.compile(r"Submitted batch job (\d+)")


@dataclass(frozen=True)
class Request:
    """A run to submit."""

    name: str
    run_dir: Path
    work: str  # the module that knows how (see `slurm.worker`)
    resources: Resources
    planned: Mapping[str, Any] = field(default_factory=dict)  # for planned.json, which `work` reads
    after: str | None = None  # name of another request that must be done first
    after_job: str | None = None  # the same, submitted before: its job
    number: int = 0  # of the run's last submission; 0 where there was none
    hours: float | None = None  # GPU hours it is expected to take
    label: str = ""  # its experiment


@dataclass(frozen=True)
class Array:
    """Requests with equal resources that become one array, or one job."""

    requests: tuple[Request, ...]

    @property
    def resources(self) -> Resources:
        return self.requests[0].resources

    @property
    def waits(self) -> bool:
        """Whether it depends on another job."""
        return bool(self.requests[0].after or self.requests[0].after_job)

    @property
    def per_job(self) -> int:
        """Requests of one job, but for the last job, which may have fewer."""
        return min(self.resources.runs_per_gpu, len(self.requests))

    @property
    def jobs(self) -> int:
        return math.ceil(len(self.requests) / self.per_job)


@dataclass
class Submitted:
    """What became of a launch."""

    launch: str
    folder: Path
    jobs: dict[str, str] = field(default_factory=dict)  # name of a run: its job
    taken: list[str] = field(default_factory=list)  # runs that somebody else submitted at this moment
    left_out: dict[str, str] = field(default_factory=dict)  # runs that could not be sent, and why
    problem: str | None = None  # why the rest was not sent
    notes: list[str] = field(default_factory=list)  # what somebody should know, though it was sent
    signal: int | None = None  # by which somebody ended the launch


def layout(requests: Sequence[Request], longest: int) -> list[Array]:
    """Arrays of requests that ask for the same, of at most `longest` jobs; those that wait are in no array.

    What others wait for comes before them; otherwise the order is kept.
    """
    names = {request.name for request in requests}
    groups: dict[Resources, list[Request]] = {}
    waiting: list[Request] = []
    for request in requests:
        if request.after in names or request.after_job:
            waiting.append(request)
        else:
            groups.setdefault(request.resources, []).append(request)
    arrays = []
    for resources, group in groups.items():
        most = longest * resources.runs_per_gpu
        arrays += [Array(tuple(group[start : start + most])) for start in range(0, len(group), most)]
    return arrays + _jobs_that_wait(waiting, arrays)


def _jobs_that_wait(waiting: list[Request], before: list[Array]) -> list[Array]:
    """A job for each, or for as many as share a GPU and wait for the same job (whose end they share)."""
    jobs: dict[str, object] = {  # name of a request: its job, in any form that tells jobs apart
        request.name: (number, index // array.per_job)
        for number, array in enumerate(before)
        for index, request in enumerate(array.requests)
    }
    packs: list[list[Request]] = []
    last: dict[tuple[Resources, object], int] = {}  # of packs of equal resources behind the same job
    for request in _in_order(waiting):
        kind = request.resources, request.after_job or jobs[str(request.after)]
        if kind not in last or len(packs[last[kind]]) == request.resources.runs_per_gpu:
            last[kind] = len(packs)
            packs.append([])
        packs[last[kind]].append(request)
        jobs[request.name] = (len(before) + last[kind], 0)
    return [Array(tuple(pack)) for pack in packs]


def _in_order(waiting: list[Request]) -> list[Request]:
    by_name = {request.name: request for request in waiting}
    before = {request.name: {request.after} & by_name.keys() for request in waiting}
    try:
        return [by_name[str(name)] for name in TopologicalSorter(before).static_order()]
    except CycleError as error:
        raise ValueError(f"runs wait for each other in a circle: {', '.join(error.args[1])}") from None


@dataclass(frozen=True)
class Sender:
    """Submits on one cluster, into one launch folder, the code of one snapshot."""

    cluster: Cluster
    folder: Path  # <results>/launches/<launch>
    code: Path
    longest: int

    def script(self, array: Array, number: int, dependency: str | None = None) -> str:
        """The text that sbatch gets."""
        executor = self._executor(array, number, dependency)
        if array.jobs > 1:
            executor.parameters["map_count"] = array.jobs
        command = f"{executor.python} -u -m slurm.worker {shlex.quote(str(self._array_folder(number)))}"
        text: str = executor._make_submission_file_text(command, "")
        return text

    def submit(self, requests: Sequence[Request], stop: StopFlag | None = None) -> Submitted:
        """Claim the runs, then send them. A run that somebody else claims meanwhile is left to them.

        When sbatch refuses, or `stop` is set by a signal, `problem` says so, and the runs that were not sent
        are free again. What was sent is written down after each array, for nobody knows how far this comes.
        """
        done = Submitted(self.folder.name, self.folder)
        stop = stop or StopFlag()
        owned: dict[str, Token] = {}
        free: dict[str, Token] = {}  # certainly not sent
        arrays = layout(requests, self.longest)
        try:
            self._write_down(done)
            for number, array in enumerate(arrays):
                for request in array.requests:
                    _go_on(stop)
                    token = self._claim(request, number)
                    if token is None:
                        done.taken.append(request.name)
                    else:
                        owned[request.name] = free[request.name] = token
                        replace_json(request.run_dir / "planned.json", request.planned)
            for number, array in enumerate(arrays):
                _go_on(stop)
                mine = Array(tuple(r for r in array.requests if self._can_be_sent(r, free, done)))
                for request in mine.requests:  # an interruption from here on leaves open whether it was sent
                    del free[request.name]
                if mine.requests:
                    try:
                        self._send(mine, number, owned, done)
                        self._write_down(done)
                    except UnansweredError:
                        raise
                    except ClusterError:
                        free |= {request.name: owned[request.name] for request in mine.requests}
                        raise
        except _Stopped:
            done.problem, done.signal = "the launch was interrupted", stop.signum
        except ClusterError as error:
            done.problem = str(error)
        finally:
            for name, token in free.items():
                why = done.left_out.get(name) or done.problem or "the launch was interrupted"
                token.update(withdrawn=why)
            self._write_down(done)
        return done

    def _claim(self, request: Request, number: int) -> Token | None:
        return claim(
            request.run_dir,
            request.number,
            launch=self.folder.name,
            name=self._name(number),
            cluster=self.cluster.name,
            folder=str(self._array_folder(number)),
            gpus=request.resources.all_gpus or request.resources.ranks,
            hours=request.hours,
            experiment=request.label,
        )

    def _can_be_sent(self, request: Request, free: dict[str, Token], done: Submitted) -> bool:
        """Whether the run is ours and what it waits for was sent."""
        if request.name not in free:
            return False
        if request.after and not request.after_job and request.after not in done.jobs:
            done.left_out[request.name] = f"it needs {request.after}, which somebody else has; launch again"
            return False
        return True

    def _send(self, array: Array, number: int, owned: dict[str, Token], done: Submitted) -> None:
        first, packed = array.requests[0], array.per_job > 1
        needed = dict.fromkeys(done.jobs.get(r.after or "") or r.after_job or "" for r in array.requests)
        folder = self._array_folder(number)
        places = [_place(array, index) if packed else {} for index in range(len(array.requests))]
        about = [
            {
                "run": request.name,
                "run_dir": str(request.run_dir),
                "number": owned[request.name].number,
                "launch": done.launch,
                "requeues": self.cluster.requeues,
                "retries": self.cluster.retries,
                "work": request.work,
                "variables": self.cluster.variables,
                "code": str(self.code),
                **place,
            }
            for request, place in zip(array.requests, places, strict=True)
        ]
        replace_json(folder / "jobs.json", {"jobs": about})
        script = folder / "script.sh"
        script.write_text(
            self.script(array, number, ":".join(filter(None, needed)) or None), encoding="utf-8"
        )
        try:
            answer = scheduler.run(["sbatch", str(script)], SBATCH_SECONDS)
        except UnansweredError:
            raise
        except ClusterError as error:
            raise ClusterError(f"sbatch refused {first.name}: {refusal(str(error))}") from None
        sent = SENT.search(answer)
        if sent is None:
            raise UnansweredError(f"sbatch said {answer.strip()!r}, which names no job")
        for index, request in enumerate(array.requests):
            job = f"{sent[1]}_{index // array.per_job}" if array.jobs > 1 else sent[1]
            done.jobs[request.name] = job
            owned[request.name].update(job=job, **placed(about[index]))

    def _executor(self, array: Array, number: int, dependency: str | None) -> submitit.SlurmExecutor:
        folder, wanted, cluster = self._array_folder(number), array.resources, self.cluster
        python = shlex.quote(cluster.python or sys.executable)
        outer = f"{cluster.container} " if cluster.container and not cluster.of_srun else ""
        # Outside the container, in which there may be no SLURM.
        ending = shlex.quote(sys.executable) if cluster.container else python
        packed = array.per_job > 1
        own = python if cluster.of_srun else ending  # what srun starts is in its container
        prefix = f"sh -c {shlex.quote(THEN_ENDING)} sh {own} {shlex.quote(str(folder))} " if packed else ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            executor = _Executor(
                folder,
                python=f"{prefix}{outer}sh -c {shlex.quote(IGNORE)} sh {python}",
            )
        more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", **cluster.sbatch}
        if wanted.memory_gb is not None:
            more["mem"] = f"{round(1024 * wanted.memory_gb)}M"
        if wanted.gpus:
            more["gres"] = ":".join(
                ["gpu", *([wanted.gpu_type] if wanted.gpu_type else []), str(wanted.gpus)]
            ) + (f",{cluster.sbatch['gres']}" if "gres" in cluster.sbatch else "")
        if packed:  # the file of the first process is that of the first run alone
            more["output"] = str(folder / f"{'%A_%a' if array.jobs > 1 else '%j'}_script_log.out")
        settings: dict[str, Any] = {
            "job_name": self._name(number),
            "partition": wanted.partition or None,
            "account": cluster.account or None,
            "qos": cluster.qos or None,
            "constraint": wanted.constraint or None,
            "exclude": cluster.exclude or None,
            "time": wanted.minutes,
            "nodes": wanted.nodes,
            "ntasks_per_node": array.per_job if packed else wanted.per_node,
            "cpus_per_task": wanted.cpus,
            "signal_delay_s": min(cluster.signal_delay, 30 * wanted.minutes),
            "array_parallelism": cluster.parallel,
            "dependency": f"afterok:{dependency}" if dependency else None,
            "stderr_to_stdout": True,
            # A process that ends badly takes the others of its run along. srun no longer reads sbatch's CPUs.
            "srun_args": [
                *(["--kill-on-bad-exit=0", "--wait=0"] if packed else ["--kill-on-bad-exit=1"]),
                f"--cpus-per-task={wanted.cpus}",
                *(shlex.split(cluster.container) if cluster.of_srun else ()),
            ],
            "setup": [
                f'echo "{SCRIPT}, restart ${{SLURM_RESTART_COUNT:-0}}, on $(hostname)"',
                *(f"export {name}={shlex.quote(value)}" for name, value in cluster.variables.items()),
                *cluster.setup,
                f"export PYTHONPATH={shlex.quote(str(self.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
                "export PYTHONSAFEPATH=1  # or the folder that sbatch was called in would come first",
                f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{wanted.cpus}}}",
                "trap '' TERM  # the last lines below are run even then",
                EMPTY_STEPS,
            ],
            "teardown": [
                "code=$?",
                f"{ending} -m slurm.ending {shlex.quote(str(folder))} $code",
                "exit $?",
            ],
            "additional_parameters": more,
        }
        executor.update_parameters(**{name: value for name, value in settings.items() if value is not None})
        executor.parameters["wckey"] = None  # submitit's own, which some clusters refuse
        return executor

    def _name(self, number: int) -> str:
        return f"ablate-{self.folder.name}-{number}"

    def _array_folder(self, number: int) -> Path:
        return self.folder / "arrays" / str(number)

    def _write_down(self, done: Submitted) -> None:
        record = {
            "launch": done.launch,
            "cluster": self.cluster.model_dump(mode="json"),
            "code": str(self.code),
            "jobs": done.jobs,
            "problem": done.problem,
            "written": moment(),
        }
        replace_json(self.folder / "launch.json", record)


def _place(array: Array, index: int) -> dict[str, int]:
    """Where a run is among the jobs of an array, and how many runs its job has."""
    job, place = divmod(index, array.per_job)
    return {
        "array_job": job,
        "place": place,
        "pack": min(array.per_job, len(array.requests) - job * array.per_job),
    }


class _Stopped(Exception):
    """A signal asked the launch to end."""


def _go_on(stop: StopFlag) -> None:
    if stop():
        raise _Stopped


class _Executor(submitit.SlurmExecutor):
    """submitit's, which can also write scripts where there is no SLURM."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def new_launch(results: Path) -> Path:
    """A folder for one launch, that nobody else has."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = results.absolute() / "launches" / f"{stamp}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


def rehearse(sender: Sender, arrays: Sequence[Array], write: Callable[[str], Path]) -> list[str]:
    """Let sbatch check one script of each kind of resources without submitting it; warnings.

    Raises ClusterError with sbatch's reason and the key of the profile that it is about.
    """
    limits = time_limits()
    configured = scheduler.settings()
    told: dict[str, None] = {}
    for resources in dict.fromkeys(array.resources for array in arrays):
        names = resources.partition.split(",")  # of several, the one where a job can start first
        limit = max((limits.get(name, NO_LIMIT) for name in names), default=NO_LIMIT)
        seen = site.limits(sender.cluster, resources.partition, configured)
        if resources.minutes > limit and not seen.past_the_partition:
            which = f"partition {resources.partition!r} allows" if resources.partition else (
                "the default partition allows, and the profile names no other (`partition`)"
            )  # fmt: skip
            raise ClusterError(
                f"time = {resources.time!r} is longer than {which}: {limit} minutes. Lower the profile's "
                "`time`; a run that needs longer is queued again"
            )
        forbidden = seen.refusal(resources)
        if forbidden:
            raise ClusterError(forbidden)
        array = next(a for a in arrays if a.resources == resources)
        path = write(sender.script(array, 0))
        try:
            scheduler.run(["sbatch", "--test-only", str(path)])
        except ClusterError as error:
            unavailable = _unavailable_nodes(resources.partition)
            # Nodes that are down or drained do not count here; sbatch itself takes the job, which waits.
            if scheduler.NO_SUCH_NODES not in str(error).lower() or not unavailable:
                raise ClusterError(f"the cluster would refuse these jobs: {refusal(str(error))}") from None
            told[
                f"no node can take these jobs now, and some are not available ({unavailable}): sent all the "
                "same, they wait until such nodes are back"
            ] = None
        finally:
            path.unlink(missing_ok=True)
    return list(told)


def time_limits() -> dict[str, int]:
    """The longest job of each partition, in minutes, and of the default one under "".

    sbatch itself takes a longer one, which never starts.
    """
    found = {}
    for line in scheduler.run(["sinfo", "-h", "-o", "%P|%l", "-a"]).splitlines():
        name, _, limit = line.strip().partition("|")
        longest = site.slurms_minutes(limit)
        if longest is not None:
            found[name.rstrip("*")] = longest
            if name.endswith("*"):
                found[""] = longest
    return found


def _unavailable_nodes(partition: str) -> str:
    """Nodes that are down, drained and so on, of one partition or of all, as `n[1-2] drained`."""
    try:
        these = ["-p", partition] if partition else ["-a"]  # sinfo refuses both; -p shows hidden ones too
        text = scheduler.run(["sinfo", "-h", *these, "-t", "down,drain,fail,maint,unk", "-o", "%N %T"])
    except ClusterError:
        return ""
    return ", ".join(line.strip() for line in text.splitlines() if line.strip())


def freeze(results: Path, origin: Mapping[str, Any], root: Path = ROOT) -> Path:
    """Copy the packages to `<results>/code/<hash of their content>`; the same code is copied once.

    `origin` (the commit) is left in its `snapshot.json`, for there is no checkout to ask.
    """
    files = {path.relative_to(root): path.read_bytes() for path in _sources(root)}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.as_posix().encode() + b"\0" + hashlib.sha256(files[name]).digest())
    target = results.absolute() / "code" / digest.hexdigest()[:16]
    if (target / "snapshot.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=".building-"))
    try:
        for name, content in files.items():
            path = building / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        replace_json(building / "snapshot.json", {"hash": digest.hexdigest(), **origin})
        building.chmod(0o755)
        try:
            os.rename(building, target)
        except OSError:
            if not (target / "snapshot.json").is_file():  # else somebody was quicker; theirs is the same
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _sources(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in KINDS and path.is_file() and "__pycache__" not in path.parts:
                yield path
