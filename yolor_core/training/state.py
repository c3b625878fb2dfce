"""What training carries from one step to the next: weights, average, optimiser, sums; and its checkpoints."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from yolor_core.config import OptimiserConfig
from yolor_core.errors import RunError
from yolor_core.models import Detector, parameter_groups
from yolor_core.runs.directory import RunDirectory, write_atomically
from yolor_core.training.schedule import Settings

Model = TypeVar("Model", bound=nn.Module)


class MovingAverage(Generic[Model]):
    """EMA of all floating-point state, BatchNorm statistics too; integer buffers are copied.

    The decay rises with the number of updates: d = decay * (1 - exp(-updates / ramp)).
    """

    def __init__(self, model: Model, decay: float, ramp: float) -> None:
        self.model = copy.deepcopy(model)
        self.model.eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp
        self.updates = 0
        self._source: nn.Module | None = None  # of the tensors below, which are looked up once
        self._floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._counters: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`, once per optimiser step. Its tensors must stay the same ones."""
        if self._source is not model:
            self._pair(model)
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp))
        torch._foreach_lerp_(*self._floats, 1 - decay)
        for ours, theirs in self._counters:
            ours.copy_(theirs)

    def _pair(self, model: nn.Module) -> None:
        source = model.state_dict()
        pairs = [(value, source[name].detach()) for name, value in self.model.state_dict().items()]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._floats = ([ours for ours, _ in floats], [theirs for _, theirs in floats])
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._source = model


def build_optimiser(model: Detector, config: OptimiserConfig, weight_decay: float) -> SGD:
    """Groups in the order no_decay (BatchNorm weights, implicit knowledge), decay (convolutions), bias.

    With a `predictor_bias_rate` above 1 the biases of detection's predictors are a fourth, predictor_bias.
    """
    groups = parameter_groups(model)
    decays = {"no_decay": 0.0, "decay": weight_decay, "bias": 0.0}
    if config.predictor_bias_rate > 1:
        own = {id(predictor.bias) for predictor in model.predictors().values()}
        groups["predictor_bias"] = [p for p in groups["bias"] if id(p) in own]
        groups["bias"] = [p for p in groups["bias"] if id(p) not in own]
        decays["predictor_bias"] = 0.0
    return SGD(
        [
            {
                "params": groups[name],
                "name": name,
                "weight_decay": decay,
                "further": config.predictor_bias_rate - 1 if name == "predictor_bias" else 0.0,
            }
            for name, decay in decays.items()
        ],
        lr=config.lr0,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        foreach=True,  # on the CPU too, where `fused` errs if a gradient has other strides than its parameter
    )


def apply_settings(optimiser: SGD, settings: Settings) -> None:
    """Set learning rates and momentum for one iteration."""
    for group in optimiser.param_groups:
        bias = group["name"] in ("bias", "predictor_bias")
        own = settings.bias if bias else settings.weights
        group["lr"] = own + group["further"] * settings.weights
        group["momentum"] = settings.momentum


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
    ranks: int = 1  # by which the scale is divided, see `Numerics.scaler`
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
            "scaler": _scaled(self.scaler.state_dict(), self.ranks),
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
        self.scaler.load_state_dict(_scaled(saved["scaler"], 1 / self.ranks))
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


def _scaled(scaler: dict[str, Any], factor: float) -> dict[str, Any]:
    """The state of a scaler, empty where it is not used, with its scale times `factor`."""
    return scaler | {"scale": scaler["scale"] * factor} if scaler else scaler


def save_checkpoint(run: RunDirectory, content: dict[str, Any]) -> None:
    """Write checkpoint.pt; the one before becomes checkpoint.previous.pt.

    checkpoint.sha256, in the format of sha256sum, is written before the files move and then lists every
    whole file, so that a crash at any moment leaves one that can be trusted. A damaged checkpoint.pt is
    overwritten instead of pushing out the whole one before it.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    listed = _listed(run)
    whole = {path: digest for path in _files(run) if (digest := _digest(path)) in listed}
    pending = run.path / ".checkpoint.pending"
    write_atomically(pending, lambda file: file.write(data))
    lines = [f"{hashlib.sha256(data).hexdigest()}  {run.checkpoint.name}\n"]
    lines += [f"{digest}  {run.previous_checkpoint.name}\n" for digest in whole.values()]
    write_atomically(run.checksums, lambda file: file.write("".join(lines).encode()))
    if run.checkpoint in whole:
        os.replace(run.checkpoint, run.previous_checkpoint)
    os.replace(pending, run.checkpoint)


def load_checkpoint(run: RunDirectory) -> dict[str, Any] | None:
    """The newest whole checkpoint of a run, or None where there is none.

    A damaged file is passed over with a warning.

    Raises:
        RunError: when there are checkpoints and none is whole.
    """
    damaged: list[Path] = []
    for path in _files(run):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() in _listed(run):
            if damaged:
                warnings.warn(f"{damaged[0]} is damaged; going on from the older {path.name}", stacklevel=2)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        damaged.append(path)
    if damaged:
        names = ", ".join(str(path) for path in damaged)
        raise RunError(
            f"no whole checkpoint: {names} do not match {run.checksums.name}; delete them to start anew"
        )
    return None


def drop_checkpoints(run: RunDirectory, keep_last: bool) -> None:
    """Remove the checkpoints of a finished run, all or all but the last."""
    run.previous_checkpoint.unlink(missing_ok=True)
    if not keep_last:
        run.checkpoint.unlink(missing_ok=True)
        run.checksums.unlink(missing_ok=True)


def _files(run: RunDirectory) -> list[Path]:
    return [path for path in (run.checkpoint, run.previous_checkpoint) if path.exists()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(run: RunDirectory) -> list[str]:
    if not run.checksums.exists():
        return []
    lines = run.checksums.read_text(errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip()]
