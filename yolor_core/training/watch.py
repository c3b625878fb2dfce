"""What a run tells somebody who watches it, while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Moment:
    """Where a run is, between two steps."""

    epoch: int  # epochs finished
    epochs: int
    step: int  # steps taken in the present epoch
    steps: int  # steps of an epoch
    seconds: float = 0.0  # spent training in the present epoch, over all resumes
    images: int = 0  # seen in the present epoch
    losses: Mapping[str, float] = field(default_factory=dict)  # means over the present epoch


class Watch(Protocol):
    """Somebody who is told how a run goes on, in the training process: each answer has to be quick."""

    def started(self, record: Mapping[str, Any], now: Moment, metrics: list[dict[str, Any]]) -> None:
        """Training begins or goes on.

        Args:
            record: the content of run.json.
            now: where it starts; not at the beginning when it resumes.
            metrics: records of the epochs finished before, as in metrics.jsonl.
        """

    def stepped(self, now: Moment) -> None:
        """Some steps were taken; called a few times a second at most."""

    def evaluating(self, done: int, total: int) -> None:
        """So many of the validation images are evaluated; 0 when it begins."""

    def epoch_finished(self, record: Mapping[str, Any]) -> None:
        """An epoch ended, evaluated or not: its record of metrics.jsonl."""


class Unwatched:
    """Nobody watches."""

    def started(self, record: Mapping[str, Any], now: Moment, metrics: list[dict[str, Any]]) -> None:
        """Nothing to do."""

    def stepped(self, now: Moment) -> None:
        """Nothing to do."""

    def evaluating(self, done: int, total: int) -> None:
        """Nothing to do."""

    def epoch_finished(self, record: Mapping[str, Any]) -> None:
        """Nothing to do."""
