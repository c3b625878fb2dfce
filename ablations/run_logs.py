"""Which files hold what a run has printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slurm.tokens import Token


def log_files(run_dir: Path, token: Token | None, rank: int = 0) -> list[Path]:
    """The log of a run's last job, or those of its last start on this machine.

    Args:
        run_dir: the run's folder.
        token: of its last submission to a cluster; None where there was none.
        rank: of the job's processes.
    """
    log = token.log if token else None
    if log is not None:
        mine = log.with_name(log.name.replace("_0_log", f"_{rank}_log"))
        # Before its processes start, the job's script writes into the first one's file.
        return [mine] if mine.exists() else []
    return last_start(run_dir)


def last_start(run_dir: Path) -> list[Path]:
    """The non-empty logs of a run's last start on this machine."""
    starts = sorted(path for path in (run_dir / "logs").glob("*") if path.is_dir())
    return sorted(path for path in starts[-1].glob("*_log.*") if path.stat().st_size) if starts else []
