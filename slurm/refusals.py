"""What sbatch would refuse, found before anything is sent, and which key of a profile its words are about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from slurm import scheduler
from slurm.cluster import minutes
from slurm.errors import ClusterError

if TYPE_CHECKING:
    from slurm.submission import Array, Sender


def check_path(path: Path) -> None:
    """Raises ClusterError for a path that SLURM would read as a pattern or that would break its script."""
    bad = [sign for sign in "%\\\n\r\t\"':" if sign in str(path)]
    if bad:
        raise ClusterError(
            f"{str(path)!r} has {bad[0]!r} in it, which sbatch or Python would read as something else; "
            "choose another folder"
        )


ADVICE = {
    "invalid partition": "the profile's `partition`; `sinfo -s` lists those there are",
    "invalid account": "the profile's `account` and `partition`; "
    "`sacctmgr show assoc user=$USER format=account,partition,qos` lists yours",
    "invalid qos": "the profile's `qos`; `sacctmgr show assoc user=$USER format=account,qos` lists yours",
    "time limit": "the profile's `time`; `sinfo -o '%P %l'` lists the longest of each partition",
    "node configuration is not available": "no nodes have so many GPUs, CPUs or so much memory: the "
    "profile's `nodes`, `gpus`, `gpu_type`, `cpus`, `memory_gb`, `constraint`; "
    "`sinfo -N -o '%N %G %c %m %f'` lists theirs",
    "generic resource": "the profile's `gpus` and `gpu_type`; `sinfo -o '%N %G'` lists what nodes have",
    "job violates accounting": "a limit of the account or QOS; fewer runs at a time may do",
    "memory specification": "the profile's `memory_gb`; `sinfo -N -o '%N %m'` lists what nodes have",
    "more processors": "the profile's `nodes`, `gpus` and `cpus`",
}


def refusal(text: str) -> str:
    """sbatch's words, and which key of the profile they are about."""
    wrong = [line for line in text.splitlines() if "error" in line.lower() or "fail" in line.lower()]
    words = scheduler.said("\n".join(wrong)) or scheduler.said(text)
    hints = [hint for sign, hint in ADVICE.items() if sign in text.lower()]
    return f"{words}. See {hints[0]}" if hints else words


def rehearse(sender: Sender, arrays: Sequence[Array], write: Callable[[str], Path]) -> None:
    """Let sbatch check one script of each kind of resources without submitting it.

    Raises ClusterError with sbatch's reason and the key of the profile that it is about.
    """
    limits = time_limits()
    for resources in dict.fromkeys(array.resources for array in arrays):
        limit = limits.get(resources.partition)
        if limit is not None and resources.minutes > limit:
            raise ClusterError(
                f"time = {resources.time!r} is longer than partition {resources.partition!r} allows: {limit} "
                "minutes. Lower the profile's `time`; a run that needs longer is queued again"
            )
        array = next(a for a in arrays if a.resources == resources)
        path = write(sender.script(array, 0))
        try:
            scheduler.run(["sbatch", "--test-only", str(path)])
        except ClusterError as error:
            raise ClusterError(f"the cluster would refuse these jobs: {refusal(str(error))}") from None
        finally:
            path.unlink(missing_ok=True)


def time_limits() -> dict[str, int]:
    """The longest job of each partition, in minutes; sbatch itself takes a longer one, which never starts."""
    found = {}
    for line in scheduler.run(["sinfo", "-h", "-o", "%R|%l"]).splitlines():
        name, _, limit = line.strip().partition("|")
        with suppress(ValueError):  # infinite
            found[name] = minutes(limit if "-" in limit or limit.count(":") == 2 else f"0:{limit}")
    return found
