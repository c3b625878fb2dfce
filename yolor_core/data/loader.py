"""Build batches in this process or in others; the batches are the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from yolor_core.data.jpeg import agrees
from yolor_core.data.report import DataReport, Note
from yolor_core.errors import YolorError

T = TypeVar("T")
# A forked worker shares the arrays of annotations and the cached images instead of receiving copies of them.
# (macOS has the method too, but its system libraries do not survive it.)
START_METHOD = "fork" if sys.platform == "linux" else None
Build = Callable[[int], tuple[T, list[Note]]]
"""Builds the batch of a step, and notes of what was found; depends on nothing but the step."""


class _Steps(Dataset[Any], Generic[T]):
    def __init__(self, build: Build[T]) -> None:
        self.build = build

    def __getitem__(self, step: int) -> tuple[T, list[Note]] | YolorError:
        try:
            return self.build(step)
        except YolorError as error:
            return error  # raised by the process that asked, without the traceback of this one


def _unchanged(item: Any) -> Any:
    return item


def run(build: Build[T], steps: range, workers: int, report: DataReport, pin: bool = False) -> Iterator[T]:
    """The batches of `steps`, in order. Notes reach the report of this process wherever they were made.

    `pin` moves batches to page-locked memory by their method `pin_memory`, if there is a GPU to profit.
    """
    pin = pin and torch.cuda.is_available()
    if workers == 0:
        results: Iterator[tuple[T, list[Note]] | YolorError] = map(build, steps)
    else:
        agrees()  # loads the decoder, which workers then inherit instead of loading it each
        # One item is one batch: a step is all that a worker needs to know. (`steps` is a valid sampler.)
        loader: DataLoader[Any] = DataLoader(
            _Steps(build),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin,
            multiprocessing_context=START_METHOD,
            generator=torch.Generator(),  # else the loader draws a number from the global generator
        )
        results = iter(loader)
    for result in results:
        if isinstance(result, YolorError):
            raise result
        batch, notes = result
        report.add(notes)
        yield batch.pin_memory() if pin and not workers else batch  # type: ignore[attr-defined]
