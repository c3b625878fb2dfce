"""Build batches in this process or in others; the batches are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from yolor_core.data.report import DataReport, Note

T = TypeVar("T")
Build = Callable[[int], tuple[T, list[Note]]]
"""Builds the batch of a step, and notes of what was found; depends on nothing but the step."""


class _Steps(Dataset[Any], Generic[T]):
    def __init__(self, build: Build[T]) -> None:
        self.build = build

    def __getitem__(self, step: int) -> tuple[T, list[Note]]:
        return self.build(step)


def _unchanged(item: Any) -> Any:
    return item


def run(build: Build[T], steps: range, workers: int, report: DataReport) -> Iterator[T]:
    """The batches of `steps`, in order. Notes reach the report of this process wherever they were made."""
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
            generator=torch.Generator(),  # else the loader draws a number from the global generator
        )
        results = iter(loader)
    for batch, notes in results:
        report.add(notes)
        yield batch
