"""One training iteration: forward, loss, backward, checks, optimiser, moving average."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from yolor_core.config import Science, TrainConfig
from yolor_core.data import Batch
from yolor_core.data.batches import Draw, generator
from yolor_core.device import Numerics
from yolor_core.errors import RunError
from yolor_core.models import sparse_penalty
from yolor_core.tasks.base import TaskLoss, with_tensors
from yolor_core.training.distributed import GroupStatistics, Ranks, synchronise
from yolor_core.training.schedule import Settings
from yolor_core.training.state import TrainingState, apply_settings


def measured_steps(steps: int, wanted: int) -> set[int]:
    """`wanted` steps spread evenly over an epoch of `steps`; all where there are fewer."""
    return {int((i + 0.5) * steps / wanted) for i in range(wanted)} if wanted < steps else set(range(steps))


class Conflict:
    """Cosines between the gradients of tasks, over the parameters that both of them train.

    A cosine below 0 means that a step which helps one task hurts the other, to first order. The gradients are
    of the whole batch: `add` is called for each of its parts, then `cosines` once on all ranks.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.gradients: dict[str, list[Tensor | None]] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Losses (scalars) by task, of one part of the batch. Their graphs stay usable."""
        for task, loss in losses.items():
            found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
            known = self.gradients.get(task)
            if known is None:
                self.gradients[task] = [None if g is None else g.float() for g in found]
                continue
            for index, gradient in enumerate(found):
                before = known[index]
                if gradient is not None:
                    known[index] = gradient.float() if before is None else before + gradient

    def cosines(self, ranks: Ranks) -> dict[str, float]:
        """`conflict/<task>-<other>` for every pair of tasks; pairs without a direction are left out."""
        whole = {task: self._over_ranks(gradients, ranks) for task, gradients in self.gradients.items()}
        result = {}
        for (one, first), (other, second) in itertools.combinations(whole.items(), 2):
            pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
            if not pairs:
                continue
            a, b = (torch.cat([gradient.flatten() for gradient in side]) for side in zip(*pairs, strict=True))
            length, other_length, product = torch.stack([a.norm(), b.norm(), a @ b]).tolist()
            scale = length * other_length
            cosine = product / scale if scale > 0 else float("nan")
            if -2 < cosine < 2:  # neither NaN nor what an overflow leaves
                result[f"conflict/{one}-{other}"] = max(-1.0, min(1.0, cosine))
        return result

    def _over_ranks(self, gradients: list[Tensor | None], ranks: Ranks) -> list[Tensor | None]:
        return [None if g is None else ranks.add_up(g.contiguous()) for g in gradients]


SMALLEST_SCALE = 2.0**-10  # a float16 run whose gradients still overflow at this scale has diverged


class NonFiniteError(RunError):
    """A loss or gradient is NaN or infinite. `record` says where: epoch, step, images, values."""

    def __init__(self, message: str, record: dict[str, object]) -> None:
        super().__init__(message)
        self.record = record


class TrainingStep:
    """Takes a run from one step to the next.

    Ranks, and the groups that BatchNorm sees, share a batch so that the result is that of one process with
    the whole batch, up to the rounding of sums: losses are weighted by counts over the whole batch, gradients
    are summed.

    Args:
        state: the model and all that is trained with it, on the ranks' device; compiled and wrapped here.
        losses: of the model's tasks, by task.
        config: the training recipe.
        seed: of the run; keys the sizes of `multi_scale`.
    """

    def __init__(
        self,
        state: TrainingState,
        losses: Mapping[str, TaskLoss],
        config: TrainConfig,
        numerics: Numerics,
        ranks: Ranks,
        seed: int,
    ) -> None:
        self.state, self.losses, self.config = state, losses, config
        self.numerics, self.ranks, self.seed = numerics, ranks, seed
        self.group = config.batch_norm_images
        self.statistics = GroupStatistics(state.model) if self.group else None
        self.pending_images: list[int] = []
        self.parameters = list(state.model.parameters())  # walking the modules takes as long as a small layer
        model: nn.Module = state.model
        if not self.group:
            model = synchronise(model, ranks)
        numerics.use_kernels(model)
        numerics.compile(model)
        self.wrapped: nn.Module = model
        if not ranks.alone:
            # Every rank has the same buffers already, or `GroupStatistics` gives it the same.
            self.wrapped = DistributedDataParallel(model, broadcast_buffers=False)

    def __call__(self, batch: Batch, settings: Settings, measure_conflict: bool = False) -> dict[str, float]:
        """Train on this rank's share of a batch; the loss terms of the whole batch.

        With `measure_conflict` the angles between the tasks' gradients are added to the state's sums.
        Raises NonFiniteError, on all ranks, before a wrong value reaches the weights or their average.
        """
        state, ranks = self.state, self.ranks
        apply_settings(state.optimiser, settings)
        conflict = Conflict(self._trunk()) if measure_conflict else None
        names, sums = self._forward_and_backward(batch, conflict)
        if conflict is not None:
            state.conflicts.add(1, conflict.cosines(ranks))
        ranks.add_up(sums)
        state.pending += 1
        self.pending_images += batch.ids
        complete = state.pending >= settings.accumulate
        norm = self._gradient_norm() if complete else sums.new_zeros(())
        # The one wait for the GPU that tests find without one, among the operators called and in the backward
        # pass. Whether CUDA's kernels wait inside, only a GPU shows.
        *values, norm_value = torch.cat([sums, norm[None]]).tolist()
        terms = dict(zip(names, values, strict=True))
        self._check(terms, norm_value)
        state.totals.add(batch.total, terms)
        if complete:
            self._update(norm_value)
        return terms

    def _forward_and_backward(self, batch: Batch, conflict: Conflict | None) -> tuple[list[str], Tensor]:
        """Names of the loss terms, and their values for this rank's share."""
        ranks = self.ranks
        images = self._resized(self.numerics.images(batch.images))
        height, width = images.shape[2:]
        wanted = {
            task: loss.wanted(batch.targets, (height, width), len(images), batch.first, batch.total)
            for task, loss in self.losses.items()
        }
        for of_task in wanted.values():
            of_task.counts = ranks.add_up(self.numerics.send(of_task.counts))
        sums: dict[str, Tensor] = {}
        if self.statistics:
            self.statistics.begin()
        parts = list(self._parts(len(images)))
        for begin, end in parts:
            last = end == len(images)
            with self._exchange(last):
                with self.numerics.autocast():
                    predictions = self._predict(images[begin:end])
                here = wanted if len(parts) == 1 else {k: w.part(begin, end) for k, w in wanted.items()}
                here = with_tensors(here, self.numerics.send)
                terms = {task: loss(predictions[task], here[task]) for task, loss in self.losses.items()}
                losses = {task: torch.stack(list(found.values())).sum() for task, found in terms.items()}
                if conflict is not None:
                    conflict.add({task: self.state.scaler.scale(loss) for task, loss in losses.items()})
                total, penalty = self._combined(losses, last)
                # DDP takes the mean over the ranks, but losses are parts of a sum.
                self.state.scaler.scale(total * (batch.total * ranks.ranks)).backward()
            if self.statistics and end > begin:
                self.statistics.group_done()
            for name, term in [item for found in terms.values() for item in found.items()] + penalty:
                sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        if self.statistics:
            self.statistics.end(-(-batch.total // self.group), ranks)
        return list(sums), torch.stack(list(sums.values()))

    def _combined(self, losses: Mapping[str, Tensor], last: bool) -> tuple[Tensor, list[tuple[str, Tensor]]]:
        """What is minimised, and the penalty as a term of its own.

        What belongs to the batch as a whole is added once, in the last part, by every rank in equal shares.
        """
        share = 1 / self.ranks.ranks if last else 0.0
        total = self.state.model.task.combine(losses, share)
        penalty = sparse_penalty(self.state.model) if last else None
        if penalty is None:
            return total, []
        return total + penalty * share, [("loss/sparse", penalty * share)]

    def _trunk(self) -> list[nn.Parameter]:
        """What the tasks share, and their own heads; not implicit knowledge, branches and loss weights."""
        own = ("branches.", "implicit.", "task.")
        return [p for name, p in self.state.model.named_parameters() if not name.startswith(own)]

    def _predict(self, images: Tensor) -> dict[str, Any]:
        """Raw predictions by task. A rank without a group of its own takes part, but leaves no statistics."""
        idle = self.statistics is not None and not len(images)
        with self.statistics.left_alone() if self.statistics and idle else nullcontext():
            predictions = self.wrapped(images)
        return predictions if isinstance(predictions, dict) else {self.state.model.tasks[0]: predictions}

    def _parts(self, count: int) -> Iterator[tuple[int, int]]:
        """The images that go through the network together; one empty part for a rank that has none."""
        size = self.group or count
        for begin in range(0, count, size) if count else (0,):
            yield begin, min(begin + size, count)

    def _exchange(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged once a batch."""
        if last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()

    def _resized(self, images: Tensor) -> Tensor:
        """The batch at its size of this step; all ranks draw the same one."""
        spread = self.config.multi_scale
        if not spread:
            return images
        state, stride = self.state, max(self.state.model.strides)
        draw = generator(Draw.MULTI_SCALE, self.seed, state.epoch, state.step)
        cells = self.config.size / stride * draw.uniform(1 - spread, 1 + spread)
        size = max(int(np.round(cells)), 1) * stride
        if size == images.shape[2]:
            return images
        if not len(images):
            return images.new_zeros(0, 3, size, size)
        return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)

    def _gradient_norm(self) -> Tensor:
        """Norm of all gradients as the optimiser will see them, a scalar."""
        self.state.scaler.unscale_(self.state.optimiser)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).float()

    def _update(self, norm: float) -> None:
        state = self.state
        if math.isfinite(norm):  # as `scaler.step` asks, which would wait for the GPU once more
            state.optimiser.step()
            state.norms.add(1, {"grad_norm": norm})
            state.average.update(state.model)
        state.scaler.update()
        state.optimiser.zero_grad()
        state.pending, self.pending_images = 0, []

    def _check(self, terms: dict[str, float], norm: float) -> None:
        state = self.state
        wrong = [name for name, value in terms.items() if not math.isfinite(value)]
        if not wrong and not math.isfinite(norm):
            scale = state.scaler.get_scale() * self.ranks.ranks
            overflow = state.scaler.is_enabled() and scale > SMALLEST_SCALE
            wrong = [] if overflow else ["the gradient"]
        if not wrong:
            return
        images = sorted(set().union(*self.ranks.gather(self.pending_images)))
        record: dict[str, object] = {
            "epoch": state.epoch + 1,
            "step": state.step + 1,
            "not_finite": wrong,
            "images": images,
            "terms": {name: repr(value) for name, value in terms.items()},
            "gradient_norm": repr(norm),
            "learning_rates": {g["name"]: g["lr"] for g in state.optimiser.param_groups},
        }
        raise NonFiniteError(
            f"{', '.join(wrong)} is not finite at epoch {state.epoch + 1}, step {state.step + 1}; images "
            f"{images}. The last checkpoint is untouched",
            record,
        )


def check_shares(science: Science, ranks: int) -> None:
    """Raises RunError where some rank would never have an image to train on, or compiling is not possible."""
    config = science.train
    if science.numerics.compile and ranks > 1 and not config.batch_norm_images:
        raise RunError(
            f"numerics.compile on {ranks} ranks: BatchNorm over all of them (SyncBN) exchanges statistics in "
            "the middle of what would be compiled; allowed: one rank, or train.batch_norm_images above 0"
        )
    units = -(-config.batch // config.batch_norm_images) if config.batch_norm_images else config.batch
    if ranks > units:
        what = "BatchNorm groups" if config.batch_norm_images else "images"
        raise RunError(
            f"{ranks} ranks, but a batch has only {units} {what}; at most {units} ranks are of use"
        )
