"""What a run that fails says: the reason, and the way out."""

from __future__ import annotations

import errno

import torch

from yolor_core.config import RunConfig
from yolor_core.errors import RunError, YolorError, summary

FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the quota is used up"}
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
KEPT = "The last checkpoint is untouched, and the same command goes on from it"


def explained(error: BaseException, config: RunConfig) -> BaseException:
    """An error of the machine as a RunError that names the way out; every other error as it is."""
    if isinstance(error, YolorError):
        return error
    if isinstance(error, OSError) and error.errno in FULL:
        return RunError(f"{error.filename or 'a file'}: {FULL[error.errno]}. {KEPT} once there is room")
    if isinstance(error, OSError) and error.errno in CLOSED:
        return RunError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}. Choose another folder with "
            "--results or ABLATE_RESULTS, or get leave to write there"
        )
    if _out_of_memory(error):
        train = config.science.train
        return RunError(
            f"out of memory at batch {train.batch}, {train.size} pixels ({summary(error)[:200]}). {KEPT}. "
            "To use less: more ranks, fewer workers, no execution.cache_images; or, as another experiment, "
            "train.batch (gradients accumulate up to the nominal batch) or numerics.precision=bfloat16"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return RunError(
            f"a loader process died, mostly of too little memory ({summary(error)[:200]}). {KEPT}. To use "
            "less: fewer execution.workers"
        )
    return error


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
