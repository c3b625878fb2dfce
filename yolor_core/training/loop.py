"""Train one run from its configuration into its run directory."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from yolor_core.config import RunConfig
from yolor_core.data import Batch, TrainingBatches, data_fingerprint, load_images
from yolor_core.data.annotations import check_same_classes
from yolor_core.device import choose_device
from yolor_core.errors import RunError
from yolor_core.evaluation.coco import evaluate_boxes
from yolor_core.evaluation.detect import detect
from yolor_core.identity import joined_sources, signature
from yolor_core.models import create_model, implicit_priors, implicit_values, sparse_penalty
from yolor_core.runs.directory import RunDirectory, now
from yolor_core.runs.files import write_atomically, write_json
from yolor_core.runs.record import describe_run, job_ids
from yolor_core.training.average import MovingAverage
from yolor_core.training.checkpoint import drop_checkpoints, load_checkpoint, save_checkpoint
from yolor_core.training.loss import DetectionLoss
from yolor_core.training.optimiser import apply_settings, build_optimiser
from yolor_core.training.progress import Progress
from yolor_core.training.schedule import Schedule
from yolor_core.training.start import continue_from
from yolor_core.training.state import Totals, TrainingState


def never() -> bool:
    """The default `stop`: go on."""
    return False


def train(config: RunConfig, run_dir: Path | str, stop: Callable[[], bool] = never) -> str:
    """Train, evaluate and leave the results in `run_dir`; go on where an earlier attempt ended.

    Args:
        config: the full configuration.
        run_dir: the run's directory, made if need be. A finished run is left as it is.
        stop: asked at every step; when it answers True the run saves itself and returns.

    Returns:
        "done", or "preempted" after `stop`.

    Raises:
        RunError: another process trains this run, or the directory belongs to another configuration.
        YolorError: anything wrong with configuration or data. Every failure is left in state.json too.
    """
    run = RunDirectory(run_dir)
    with run.lock():
        if _finished(run, config):
            return "done"
        try:
            return _Training(config, run).run_to_end(stop)
        except KeyboardInterrupt:
            run.write_state("preempted", reason="interrupted; launch again to go on from the last checkpoint")
            raise
        except BaseException as error:
            run.write_state("failed", reason=f"{type(error).__name__}: {error}")
            raise


class _Training:
    """The parts of one run, and its loop."""

    def __init__(self, config: RunConfig, run: RunDirectory) -> None:
        self.config, self.run = config, run
        science, execution = config.science, config.execution
        torch.set_num_threads(execution.threads)
        self.device = choose_device(execution.device)

        self.images = load_images(config.data, "train")
        self.val = load_images(config.data, "val")
        check_same_classes(self.images, self.val)
        self.batches = TrainingBatches(
            self.images,
            size=science.train.size,
            batch=science.train.batch,
            seed=config.seed,
            keep_one_in=science.train.keep_one_in,
            workers=execution.workers,
            cache=execution.cache_images,
        )
        settings = science.train.optimiser
        self.schedule = Schedule(settings, science.train.phases, self.batches.steps, science.train.batch)
        classes = len(self.images.names)
        model = create_model(science.model, classes=classes, seed=config.seed).to(self.device)
        self.loss = DetectionLoss(model.anchors, model.strides, classes, science.train.loss)
        self.state = TrainingState(
            model,
            MovingAverage(model, settings.ema_decay, settings.ema_updates),
            build_optimiser(model, settings, self.schedule.weight_decay),
        )
        self.progress = Progress(run, science.train.epochs, self.batches.steps)

    def run_to_end(self, stop: Callable[[], bool]) -> str:
        """Resume or start, train the missing epochs, evaluate, finish."""
        self._open()
        while self.state.epoch < self.config.science.train.epochs:
            if not self._train_epoch(stop):
                self._save()
                self.progress.beat("preempted", self.state, reason="asked to stop; launch again to go on")
                return "preempted"
            self._finish_epoch()
        if not self._evaluated():  # a finished run whose results were lost is repaired from its checkpoint
            self._evaluate(final=True)
        self._finish()
        return "done"

    def _open(self) -> None:
        """Write run.json and find the state to start from: own checkpoint, another run's, or the seed's."""
        run, earlier, saved = self.run, self._earlier(), load_checkpoint(self.run)
        fingerprint = data_fingerprint(self.config.data)
        report = {"train": self.images.report.as_dict(), "val": self.val.report.as_dict()}
        parameters = sum(p.numel() for p in self.state.model.parameters())
        record = describe_run(self.config, fingerprint, self._device_name(), report, parameters)
        if earlier is not None:
            if earlier.get("run") != record["run"]:
                raise RunError(f"{run.path} holds the run {earlier.get('run')}, not {record['run']}")
            record["jobs"] = list(dict.fromkeys([*earlier["jobs"], *job_ids()]))
            if saved is not None:
                record |= {"started": earlier["started"], "resumes": earlier["resumes"] + 1}
                record["source_hash"] = joined_sources(earlier["source_hash"], record["source_hash"])
                record |= {"continues": earlier["continues"]} if "continues" in earlier else {}
        if saved is not None:
            self.state.restore(saved)
            self.progress.load(run, saved["metrics"])
        elif self.config.execution.start_checkpoint:
            self._continue(RunDirectory(self.config.execution.start_checkpoint), record)
        if self.state.epoch == 0 and saved is None:
            self.progress.history.add(0, implicit_values(self.state.model))
        self.progress.write()
        write_json(run.run, record)
        self.progress.beat("running", self.state)

    def _earlier(self) -> dict[str, Any] | None:
        """run.json of an earlier attempt; one that is damaged is written anew."""
        try:
            return self.run.read_run()
        except RunError as error:
            warnings.warn(f"{error}; it is written anew", stacklevel=2)
            return None

    def _evaluated(self) -> bool:
        try:
            return self.run.read_evaluation() is not None and self.run.detections.is_file()
        except RunError:
            return False

    def _continue(self, source: RunDirectory, record: dict[str, Any]) -> None:
        """Start behind the finished phases of another run; from the seed where its checkpoint is gone."""
        found = continue_from(source, self.config, record["fingerprint"])
        if found is None:
            warnings.warn(f"{source.path} kept no checkpoint; training all phases instead", stacklevel=2)
            return
        saved, first = found
        self.state.restore(saved)
        self.progress.load(source, saved["metrics"])
        record["continues"] = source.path.name
        record["source_hash"] = joined_sources(first["source_hash"], record["source_hash"])

    def _save(self) -> None:
        save_checkpoint(self.run, self.state.save() | {"metrics": self.progress.metrics})

    def _train_epoch(self, stop: Callable[[], bool]) -> bool:
        """The rest of the present epoch; False when asked to stop before its end."""
        state = self.state
        first_epoch, phase = self.schedule.phase(state.epoch)
        if phase.start_from_average and (state.epoch, state.step) == (first_epoch, 0):
            state.start_from_average()
        state.model.train()
        earlier, began = state.seconds, time.monotonic()
        for batch in self.batches.epoch(state.epoch, phase.augment, start_step=state.step):
            if stop():
                return False
            self._train_step(batch)
            state.step += 1
            state.seconds = earlier + time.monotonic() - began
            self.progress.beat_if_due(state)
        return True

    def _train_step(self, batch: Batch) -> None:
        state = self.state
        settings = self.schedule.at(state.epoch, state.step)
        apply_settings(state.optimiser, settings)
        predictions = state.model(batch.images.to(self.device).float() / 255)
        total, *parts = self.loss(predictions, batch.targets.to(self.device))
        terms = dict(zip(("loss/box", "loss/obj", "loss/cls"), parts, strict=True))
        penalty = sparse_penalty(state.model)
        if penalty is not None:
            terms["loss/sparse"] = penalty
            total = total + penalty * len(batch.ids)
        values = _finite_values(terms, state, batch)
        total.backward()
        state.totals.add(len(batch.ids), values)
        state.pending += 1
        if state.pending >= settings.accumulate:
            state.optimiser.step()
            state.optimiser.zero_grad()
            state.average.update(state.model)
            state.pending = 0

    def _finish_epoch(self) -> None:
        state, execution = self.state, self.config.execution
        finished, epochs = state.epoch + 1, self.config.science.train.epochs
        scores: dict[str, float | None] = {}
        if finished == epochs or (execution.evaluate_every and finished % execution.evaluate_every == 0):
            self._save()  # an evaluation that fails must not cost the epoch
            scores = self._evaluate(final=finished == epochs)
        settings = self.schedule.at(state.epoch, max(state.step - 1, 0))
        self.progress.finish_epoch(state, settings, scores, self.device)
        state.epoch, state.step, state.seconds, state.totals = finished, 0, 0.0, Totals()
        self.progress.write()
        if finished == epochs or finished % execution.checkpoint_every == 0:
            self._save()
        self.progress.beat("running", state)

    def _evaluate(self, final: bool) -> dict[str, float | None]:
        """The twelve numbers of the averaged model; the last epoch's stay on disk with their detections."""
        settings, execution = self.config.science.evaluation, self.config.execution
        detections = detect(self.state.average.model, self.val, settings, self.device, execution.workers)
        result = evaluate_boxes(self.val.coco, detections)
        if final:
            detections.write(self.run.detections)
            write_json(self.run.evaluation, result)
        return result["detection"]

    def _finish(self) -> None:
        model = self.state.average.model
        _write_tensors(self.run.weights, model.state_dict())
        _write_tensors(self.run.priors, implicit_priors(model))
        record = self.run.read_run()
        if record is None:
            raise RunError(f"{self.run.run} disappeared while the run was training")
        record["ended"] = now()
        # Files that turned out to be unreadable are only known now.
        record["data_report"] = {"train": self.images.report.as_dict(), "val": self.val.report.as_dict()}
        write_json(self.run.run, record)
        drop_checkpoints(self.run, keep_last=self.config.execution.keep_checkpoint)
        self.progress.beat("done", self.state)

    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"


def _finished(run: RunDirectory, config: RunConfig) -> bool:
    record = run.read_run() if run.complete() else None
    if record is None:
        return False
    return record.get("signature") == signature(config.science) and record.get("seed") == config.seed


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    data = save({name: value.detach().contiguous().cpu() for name, value in tensors.items()})
    write_atomically(path, lambda file: file.write(data))


def _finite_values(terms: dict[str, Tensor], state: TrainingState, batch: Batch) -> dict[str, float]:
    values = {name: float(term.detach()) for name, term in terms.items()}
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise RunError(
            f"{', '.join(wrong)} is not finite at epoch {state.epoch + 1}, step {state.step + 1}; "
            f"images {list(batch.ids)}. The last checkpoint is untouched"
        )
    return values
