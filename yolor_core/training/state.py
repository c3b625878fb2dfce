"""Everything that training carries from one step to the next, and how it is saved and restored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from yolor_core.models import Detector
from yolor_core.training.average import MovingAverage


@dataclass
class Totals:
    """Sums of an epoch's quantities, for their means."""

    count: int = 0
    terms: dict[str, float] = field(default_factory=dict)

    def add(self, count: int, terms: dict[str, float]) -> None:
        """Add means over `count` things."""
        self.count += count
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value * count

    def means(self) -> dict[str, float]:
        """Mean of every quantity."""
        return {name: value / max(self.count, 1) for name, value in self.terms.items()}

    def save(self) -> dict[str, Any]:
        """Plain values."""
        return {"count": self.count, "terms": dict(self.terms)}


@dataclass
class TrainingState:
    """A run between two steps. `epoch` and `step` name the next step to take, counted from 0."""

    model: Detector
    average: MovingAverage[Detector]
    optimiser: SGD
    scaler: GradScaler
    epoch: int = 0
    step: int = 0
    pending: int = 0  # iterations whose gradients wait for an optimiser step
    seconds: float = 0.0  # of this epoch, before the last restart
    waited: float = 0.0  # of those, for batches
    totals: Totals = field(default_factory=Totals)  # loss terms, by image
    norms: Totals = field(default_factory=Totals)  # gradient norms, by optimiser step
    conflicts: Totals = field(default_factory=Totals)  # cosines between tasks' gradients, by measured step

    def save(self) -> dict[str, Any]:
        """Tensors and plain values, enough to go on bit for bit. Random numbers need none: they are keyed."""
        gradients = {}
        if self.pending:
            gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "gradients": gradients,
            "epoch": self.epoch,
            "step": self.step,
            "pending": self.pending,
            "seconds": self.seconds,
            "waited": self.waited,
            "totals": self.totals.save(),
            "norms": self.norms.save(),
            "conflicts": self.conflicts.save(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to what `save` returned."""
        self.model.load_state_dict(saved["model"])
        self.average.model.load_state_dict(saved["average"])
        self.average.updates = saved["average_updates"]
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scaler.load_state_dict(saved["scaler"])
        parameters = dict(self.model.named_parameters())
        for name, gradient in saved["gradients"].items():
            parameters[name].grad = gradient.to(parameters[name].device)
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.pending, self.seconds, self.waited = saved["pending"], saved["seconds"], saved["waited"]
        self.totals, self.norms = Totals(**saved["totals"]), Totals(**saved["norms"])
        self.conflicts = Totals(**saved["conflicts"])

    def next_epoch(self) -> None:
        """Go to the first step of the next epoch, its sums empty."""
        self.epoch, self.step, self.seconds, self.waited = self.epoch + 1, 0, 0.0, 0.0
        self.totals, self.norms, self.conflicts = Totals(), Totals(), Totals()

    @torch.no_grad()
    def start_from_average(self) -> None:
        """Let training go on from the averaged weights, as the published fine-tuning does."""
        self.model.load_state_dict(self.average.model.state_dict())
