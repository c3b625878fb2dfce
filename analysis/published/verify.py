"""Making every number of a published folder again, and comparing it with what is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ablations.published import MANIFEST
from analysis.published.checks import Check
from analysis.published.manifest import (
    Made,
    PublishError,
    code_hash,
    contents,
    read_manifest,
)
from analysis.published.run_checks import RunChecks, check_run
from analysis.published.text_checks import check_texts
from analysis.published.workers import submitting
from analysis.study import Costs


def verify(folder: Path, costs: Costs, processes: int | None = None) -> Iterator[Check]:
    """Check a published folder; yields every kind of check when it is finished, in a fixed order.

    Where the code is the one that published, other words are differences too. Another version may word
    captions and notes otherwise, so there they are told apart from numbers (`Check.wording`).

    Args:
        folder: written by `analysis.published.build.publish`.
        costs: counts the parameters and FLOPs of a table; a function of a module, for other processes.
        processes: that share the work; by default as many as there are cores.

    Raises:
        PublishError: the folder is no published one, or a process was ended from outside.
    """
    made, files = read_manifest(folder)
    yield _files(folder, files)
    paths = sorted(path for path in (folder / "runs").glob("*") if path.is_dir())
    try:
        with submitting(len(paths), processes) as submit:
            texts = submit(check_texts, folder, made, costs)  # first, because it takes longest
            runs = [submit(check_run, path) for path in paths]
            for check in _joined(runs):
                yield check
            for check in texts.result():
                if same_code(made):
                    check.strict()
                yield check
    except BrokenProcessPool:
        raise PublishError(
            "a process of the check was ended from outside, perhaps for want of memory; nothing is decided"
        ) from None


def same_code(made: Made) -> bool:
    """Whether this is the code that published a folder."""
    return made.sources is not None and made.sources == code_hash()


def _files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Check:
    check = Check(f"files, by hash and size ({MANIFEST})")
    found = contents(folder)
    for name in sorted({*files, *found}):
        if name not in found:
            check.fail(f"{name} is missing")
        elif name not in files:
            check.fail(f"{name} is not in {MANIFEST}")
        else:
            check.done += 1
            if dict(files[name]) != found[name]:
                said = _other(files[name], found[name])
                check.differences.append(f"{name} is not what {MANIFEST} says: {said}")
    return check


def _other(published: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    sizes = published.get("bytes"), found["bytes"]
    return "its bytes are others" if sizes[0] == sizes[1] else f"{sizes[1]} bytes, not {sizes[0]}"


def _joined(runs: Sequence[Future[RunChecks]]) -> tuple[Check, ...]:
    """The checks of all runs, in their order."""
    total = RunChecks()
    for run in runs:
        for check, one in zip(total.all, run.result().all, strict=True):
            check.join(one)
    return total.all
