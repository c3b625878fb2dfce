"""What SLURM would refuse, and which key of a profile its words are about."""

from __future__ import annotations

from pathlib import Path

from slurm import scheduler
from slurm.errors import ClusterError


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
