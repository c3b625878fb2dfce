"""Cluster profiles: what a job asks SLURM for, and what happens to it there. One TOML file each."""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from slurm import ClusterError

FOLDER = Path(__file__).parent / "clusters"
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")
ONE_WORD = re.compile(r"[A-Za-z0-9_.,:@/+-]*")  # what SLURM's own names are made of
CONSTRAINT = re.compile(r"[A-Za-z0-9_.,:@/+&|\[\]()*-]*")
OPTION = re.compile(r"[a-z][a-z-]+")  # a short one would not be found in OURS
FURTHER = re.compile(r"[^\n\r\"'`$\\]*")
OF_THE_PROFILE = {  # options of sbatch that have a key of their own
    "partition account qos nodes time constraint exclude": "{}",
    "mem mem-per-cpu mem-per-gpu": "memory_gb",
    "gpus gpus-per-node gpus-per-task tres-per-task": "gpus` and `gpu_type",
    "ntasks ntasks-per-node tasks-per-node ntasks-per-gpu": "gpus` or `processes",
    "cpus-per-task": "cpus",
    "signal": "signal_delay",
}
OF_A_LAUNCH = {  # or are the suite's
    "array dependency output error job-name requeue no-requeue open-mode": "a launch sets it",
    "kill-on-invalid-dep wrap chdir workdir export test-only": "a launch sets it",
    "parsable quiet": "a launch reads sbatch's usual answer",
    "help usage version": "sbatch would send nothing",
    "uid gid": "a job is sent by the user who launches",
    "wait": "a launch would not return before the job has ended",
    "hold": "the job would not start by itself",
    "clusters cluster-constraint": "nobody would find the jobs in another cluster; launch on its login node",
    "input": "a run reads nothing",
}
OURS = {name: why for names, why in OF_A_LAUNCH.items() for name in names.split()} | {
    name: f"use the profile's `{key.format(name)}`"
    for names, key in OF_THE_PROFILE.items()
    for name in names.split()
}

Name = Annotated[str, Field(pattern=f"^{ONE_WORD.pattern}$")]


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # else pydantic reads true as 1
        raise ValueError("a number is needed")
    return value


Natural = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Memory = Annotated[float, BeforeValidator(_number), Field(ge=0.1, allow_inf_nan=False)]
Time = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Model):
    """What one run asks for; equal ones can share an array."""

    partition: Name = ""
    nodes: Natural = 1
    gpus: Whole = 1  # per node, one process each; 0: the processor trains
    gpu_type: Name = ""
    processes: Natural = 1  # per node where there are no GPUs
    runs_per_gpu: Natural = 1  # runs of one process that share a job, its GPU and its memory
    cpus: Natural = 8  # per process
    memory_gb: Memory | None = None  # per node, whatever runs there; None: the partition's default
    time: Time = "24:00:00"  # as sbatch takes it: minutes, HH:MM:SS or D-HH:MM:SS
    constraint: Annotated[str, Field(pattern=f"^{CONSTRAINT.pattern}$")] = ""

    @field_validator("time")
    @classmethod
    def _a_time(cls, value: str) -> str:
        if minutes(value) < 1:
            raise ValueError("at least one minute is needed")
        return value

    @field_validator("runs_per_gpu")
    @classmethod
    def _of_one_process(cls, value: int, info: ValidationInfo) -> int:
        nodes, gpus, processes = (info.data.get(name) for name in ("nodes", "gpus", "processes"))
        if value > 1 and (nodes, gpus, processes) != (1, 1, 1):
            raise ValueError(
                f"runs that share a GPU are of one process, and need nodes, gpus and processes = 1; "
                f"here they are {nodes}, {gpus} and {processes}"
            )
        return value

    @property
    def per_node(self) -> int:
        """Processes (ranks) on each node."""
        return self.gpus or self.processes

    @property
    def ranks(self) -> int:
        """Processes that train one run together."""
        return self.nodes * self.per_node

    @property
    def all_gpus(self) -> int:
        """GPUs of one run."""
        return self.nodes * self.gpus

    @property
    def all_cpus(self) -> int:
        """CPUs of a job, which several runs may share."""
        return self.cpus * self.ranks * self.runs_per_gpu

    @property
    def minutes(self) -> int:
        return minutes(self.time)


class Override(_Model):
    """Other resources for the experiments of which a pattern is true."""

    experiments: str  # as in "p6*": shell pattern over the names of `ablate list`
    partition: Name | None = None
    nodes: Natural | None = None
    gpus: Whole | None = None
    gpu_type: Name | None = None
    processes: Natural | None = None
    runs_per_gpu: Natural | None = None
    cpus: Natural | None = None
    memory_gb: Memory | None = None
    time: Time | None = None
    constraint: str | None = None


class Cluster(Resources):
    """A profile: resources for every run, the account they are on, and how jobs live and end."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "cluster"
    account: Name = ""
    qos: Name = ""
    exclude: Annotated[str, Field(pattern=f"^{CONSTRAINT.pattern}$")] = ""  # nodes, as node[07-09]
    setup: tuple[str, ...] = ()  # shell lines before the run, as `module load cuda`
    environment: str = ""  # a virtual environment on the cluster; the one that launches if empty
    # A command that runs another one in a container, as `apptainer exec --nv image.sif`; or options of srun
    # for one, as `--container-image=/shared/image.sqsh`.
    container: str = ""
    sbatch: dict[str, str | int | bool] = {}  # further options of sbatch, as tmp = "200G"; gres is added to
    variables: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    parallel: Natural = 64  # runs of an array at a time
    max_array: Natural | None = None  # longest array; None: what the cluster allows
    signal_delay: Annotated[Natural, Field(ge=10)] = 120  # seconds before the limit: a run saves and goes
    requeues: Whole = 100  # restarts of a run by preemption, time limit or lost nodes
    retries: Whole = 2  # restarts of a run after crashes
    results: str = ""  # folder on a file system that all nodes share; --results goes before it
    data: str = ""  # folder in COCO's layout; --data goes before it
    local_disk: str = ""  # folder on a node's own disk, as $SLURM_TMPDIR; packed data are copied to it
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda)$")] = "auto"
    tflops: Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)] = (
        20.0  # one GPU (or process) really does in training, to estimate
    )
    override: tuple[Override, ...] = ()

    def resources(self, experiment: str) -> Resources:
        """What a run of this experiment asks for: the profile's, with the overrides that match, in order."""
        chosen = {name: getattr(self, name) for name in Resources.model_fields}
        for override in self.override:
            if fnmatch.fnmatchcase(experiment, override.experiments):
                chosen |= override.model_dump(exclude={"experiments"}, exclude_none=True)
        return _validated(Resources, chosen, f"cluster profile {self.name!r}, override for {experiment!r}")

    @field_validator("sbatch", mode="before")
    @classmethod
    def _further(cls, value: Any) -> Any:
        for name, what in value.items() if isinstance(value, dict) else ():
            if name in OURS:
                raise ValueError(f"{name} is not a further option: {OURS[name]}")
            if len(name) == 1:
                raise ValueError(f"{name} = {what!r}: write an option's long name, as tmp = '200G'")
            known = OPTION.fullmatch(name) and isinstance(what, str | int) and what is not False
            if not known or not FURTHER.fullmatch(str(what)):
                raise ValueError(f"{name} = {what!r} is no option, as tmp = '200G' or exclusive = true")
            if name == "gres" and not _other_than_gpus(what):
                raise ValueError(f"gres = {what!r}: name what else is needed, as 'lscratch:200'; GPUs have "
                                 "the profile's `gpus` and `gpu_type`")  # fmt: skip
        return value

    @property
    def of_srun(self) -> bool:
        """Whether srun itself starts the container, by the plugin pyxis."""
        return self.container.startswith("--")

    @field_validator("environment", "results", "data")
    @classmethod
    def _expanded(cls, value: str) -> str:
        return os.path.expandvars(os.path.expanduser(value))

    @cached_property
    def python(self) -> str:
        """The interpreter of the environment; empty for the one that launches."""
        return str(Path(self.environment) / "bin" / "python") if self.environment else ""


def _other_than_gpus(gres: Any) -> bool:
    """Whether each part of a value of `--gres` names something, and none of them GPUs."""
    names = [part.strip().removeprefix("gres/") for part in str(gres).split(",")]
    return isinstance(gres, str) and all(names) and not any(re.match(r"gpu([:=]|$)", n) for n in names)


def minutes(text: str) -> int:
    """A time limit as sbatch reads it -> whole minutes, rounded up. Raises ValueError for anything else.

    "90" is minutes, "90:00" minutes and seconds, "1:30:00" hours; after days, "1-12" is hours.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time limit; allowed: minutes, HH:MM:SS or D-HH:MM:SS")
    parts = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minute, second = [*parts, 0, 0][:3]
        hours += 24 * int(match["days"])
    elif len(parts) == 3:
        hours, minute, second = parts
    else:
        hours, (minute, second) = 0, [*parts, 0][:2]
    return 60 * hours + minute + (second > 0)


def known_clusters() -> dict[str, Path]:
    """The profiles that come with the suite, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_cluster(name: str) -> Cluster:
    """The profile of that name, or in the file of that path.

    Raises ClusterError when there is none, or naming the field, the value and what is allowed.
    """
    known = known_clusters()
    path = known.get(name, Path(name))
    if name not in known and not (path.suffix == ".toml" or "/" in name):
        listed = ", ".join(known)
        raise ClusterError(f"unknown cluster {name!r}; allowed: {listed}, or the path of a TOML file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ClusterError(
            f"{path}: {error.strerror}; --cluster takes a name or the path of a file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path} is not TOML: {error}") from None
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem)  # a file's name may have spaces
    cluster: Cluster = _validated(Cluster, {"name": stem} | content, str(path))
    for override in cluster.override:
        chosen = {field: getattr(cluster, field) for field in Resources.model_fields}
        changed = override.model_dump(exclude={"experiments"}, exclude_none=True)
        _validated(Resources, chosen | changed, f"{path}, override for {override.experiments!r}")
    return cluster


def _validated(model: type[Any], content: dict[str, Any], where: str) -> Any:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ClusterError(f"{where}: {'; '.join(_sentences(model, error))}") from None


def _sentences(model: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            owner = Override if item["loc"][0] == "override" else model
            lines.append(f"unknown key {field!r}; known: {', '.join(owner.model_fields)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{field} = {item['input']!r}: {message}")
    return lines
