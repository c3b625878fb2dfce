"""Build batches in this process or in others; the batches are the same."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from yolor_core.data.report import DataReport, Note

T = TypeVar("T")
# A forked worker shares the arrays of annotations and the cached images instead of receiving copies of them.
START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
Build = Callable[[int], tuple[T, list[Note]]]
"""Builds the batch of a step, and notes of what was found; depends on nothing but the step."""


class _Steps(Dataset[Any], Generic[T]):
    def __init__(self, build: Build[T]) -> None:
        self.build = build

    def __getitem__(self, step: int) -> tuple[T, list[Note]]:
        return self.build(step)


def _unchanged(item: Any) -> Any:
    return item


def run(build: Build[T], steps: range, workers: int, report: DataReport, pin: bool = False) -> Iterator[T]:
    """The batches of `steps`, in order. Notes reach the report of this process wherever they were made.

    `pin` moves batches to page-locked memory by their method `pin_memory`, if there is a GPU to profit.
    """
    pin = pin and torch.cuda.is_available()
    if workers == 0:
        results: Iterator[tuple[T, list[Note]]] = map(build, steps)
    else:
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
    for batch, notes in results:
        report.add(notes)
        yield batch.pin_memory() if pin and not workers else batch  # type: ignore[attr-defined]
