"""Train one run from its configuration into its run directory."""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from yolor_core.config import RunConfig, Science, leaves
from yolor_core.data import ImageSet, TrainingBatches, data_fingerprint, load_images
from yolor_core.data.batches import reference_images, summarise
from yolor_core.data.check import check_boxes
from yolor_core.data.fingerprint import annotation_fingerprint
from yolor_core.data.images import check_identities
from yolor_core.device import Numerics, choose_device, keep_freed_memory
from yolor_core.errors import ConfigError, RunError, YolorError, summary
from yolor_core.evaluation.predict import Predictions, evaluate, predict
from yolor_core.identity import describe_run, job_ids, joined_sources, signature
from yolor_core.models import create_model, implicit_priors
from yolor_core.runs.directory import RunDirectory, now, write_atomically, write_json
from yolor_core.tasks.base import build_losses
from yolor_core.training.distributed import Ranks, joined, place
from yolor_core.training.progress import Progress, Watch
from yolor_core.training.schedule import Schedule
from yolor_core.training.state import (
    MovingAverage,
    TrainingState,
    build_optimiser,
    drop_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from yolor_core.training.step import NonFiniteError, TrainingStep, check_shares, measured_steps


def never() -> bool:
    """The default `stop`: go on."""
    return False


def train(
    config: RunConfig, run_dir: Path | str, stop: Callable[[], bool] = never, watch: Watch | None = None
) -> str:
    """Train, evaluate and leave the results in `run_dir`; go on where an earlier attempt ended.

    Where `torchrun` or `srun` has started several processes, each calls this and they train together; rank 0
    alone writes.

    Args:
        config: the full configuration.
        run_dir: the run's directory, made if need be. A finished run is left as it is.
        stop: asked at every step; when it answers True on any rank the run saves itself and returns.
        watch: told how the run goes on, on rank 0 only.

    Returns:
        "done", or "preempted" after `stop`.

    Raises:
        RunError: another process trains this run; the directory belongs to another configuration or other
            data; the loss is not finite; memory or disk are full; another rank failed.
        YolorError: anything wrong with configuration or data. Every failure is left in state.json too.
    """
    try:
        return _train(config, RunDirectory(run_dir), stop, watch)
    except Exception as error:
        cause = explained(error, config)
        if cause is error:
            raise
        raise cause from error


def _train(config: RunConfig, run: RunDirectory, stop: Callable[[], bool], watch: Watch | None) -> str:
    here, execution = place(), config.execution
    try:
        device = choose_device(execution.device, here.local if here.ranks > 1 else None)
    except ConfigError as error:
        if here.rank == 0:
            with run.lock():
                run.write_state("failed", reason=summary(error))
        raise
    if device.type == "cpu":
        keep_freed_memory()
    with joined(device, execution.rank_timeout) as ranks, ExitStack() as held:
        if ranks.lead(lambda: _claim(run, config, held)):
            return "done"
        try:
            return _Training(config, run, ranks, watch).run_to_end(stop)
        except KeyboardInterrupt:
            _leave(run, ranks, "preempted", "interrupted; launch again to go on from the last checkpoint")
            raise
        except BaseException as error:
            cause = explained(ranks.report(error), config)
            if isinstance(cause, NonFiniteError) and ranks.main:
                write_json(run.nonfinite, cause.record)
            _leave(run, ranks, "failed", summary(cause))
            if cause is error:
                raise
            raise cause from error


def _claim(run: RunDirectory, config: RunConfig, held: ExitStack) -> bool:
    """Lock the run until `held` is closed; whether it is finished already."""
    held.enter_context(run.lock())
    return _finished(run, config)


def _leave(run: RunDirectory, ranks: Ranks, state: str, reason: str) -> None:
    """Write how the run ended; that the disk is full must not hide the reason itself."""
    if ranks.main:
        with suppress(OSError):
            run.write_state(state, reason=reason)


class _Training:
    """The parts of one run, and its loop."""

    def __init__(
        self, config: RunConfig, run: RunDirectory, ranks: Ranks, watch: Watch | None = None
    ) -> None:
        self.config, self.run, self.ranks = config, run, ranks
        science, execution = config.science, config.execution
        check_shares(science.train, ranks.ranks)
        torch.set_num_threads(execution.threads)

        self.images = load_images(config.data, "train")
        self.val = load_images(config.data, "val").with_classes(self.images.names, self.images.report.source)
        check_boxes({"train": self.images.report, "val": self.val.report})
        if "embedding" in science.model.tasks:
            check_identities(self.images, self.val)
        self.batches = TrainingBatches(
            self.images,
            size=science.train.size,
            batch=science.train.batch,
            seed=config.seed,
            keep_one_in=science.train.keep_one_in,
            workers=execution.workers,
            cache=execution.cache_images,
            rank=ranks.rank,
            ranks=ranks.ranks,
            group=science.train.batch_norm_images,
            pin=ranks.device.type == "cuda",
        )
        settings = science.train.optimiser
        self.schedule = Schedule(settings, science.train.phases, self.batches.steps, science.train.batch)
        self.numerics = Numerics(science.numerics, ranks.device)
        classes, identities = len(self.images.names), self.images.identity_count
        model = self.numerics.model(
            create_model(science.model, classes, config.seed, None, identities, science.train.tasks)
        )
        self.losses = build_losses(model, science.train)
        self.state = TrainingState(
            model,
            MovingAverage(model, settings.ema_decay, settings.ema_updates),
            build_optimiser(model, settings, self.schedule.weight_decay),
            self.numerics.scaler(),
        )
        self.progress = Progress(
            run,
            science.train.epochs,
            self.batches.steps,
            reference_images(self.val, science.evaluation.size, max(model.strides)),
            tensorboard=execution.tensorboard and ranks.main,
            watch=watch if ranks.main else None,
        )

    def run_to_end(self, stop: Callable[[], bool]) -> str:
        """Resume or start, train the missing epochs, evaluate, finish."""
        self._open()
        train = self.config.science.train
        self.step = TrainingStep(self.state, self.losses, train, self.numerics, self.ranks, self.config.seed)
        together = len(self.state.model.tasks) > 1
        wanted = self.config.execution.conflict_steps if together else 0
        self.measured = measured_steps(self.batches.steps, wanted) if wanted else set()
        while self.state.epoch < train.epochs:
            if not self._train_epoch(stop):
                self._save()
                self._beat("preempted", reason="asked to stop; launch again to go on")
                return "preempted"
            self._finish_epoch()
        if not self.ranks.lead(self._evaluated):  # a finished run that lost its results is repaired
            self._evaluate(final=True)
        if self.ranks.main:
            self._finish()
        return "done"

    def _open(self) -> None:
        """Find the state to start from: own checkpoint, another run's, or the seed's; write run.json."""
        record = self._record()
        earlier = self.ranks.lead(lambda: self._earlier(record))
        with warnings.catch_warnings():
            if not self.ranks.main:
                warnings.simplefilter("ignore")  # rank 0 has said it
            saved = load_checkpoint(self.run)
            source = self.config.execution.start_checkpoint
            found = self._other(RunDirectory(source), record) if source and saved is None else None
        if saved is not None:
            if saved["signature"] != record["signature"]:
                raise RunError(
                    f"{self.run.checkpoint} is of another configuration; remove the folder {self.run.path} "
                    "to run it anew, or choose another with --results"
                )
            self.state.restore(saved)
        elif found is not None:
            self.state.restore(found[0])
        self.ranks.lead(lambda: self._begin(record, earlier, saved, found))

    def _record(self) -> dict[str, Any]:
        """run.json of a run that starts now."""
        fingerprint = data_fingerprint(self.config.data)
        report = {"train": self.images.report.as_dict(), "val": self.val.report.as_dict()}
        parameters = sum(p.numel() for p in self.state.model.parameters())
        device = self.ranks.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        record = describe_run(self.config, fingerprint, name, report, parameters)
        return record | {
            "ranks": self.ranks.ranks,
            "classes": list(self.images.names),
            "levels": self.state.model.describe_levels(),
        }

    def _earlier(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """run.json of an earlier attempt; one that is damaged is written anew."""
        try:
            earlier = self.run.read_run()
        except RunError as error:
            warnings.warn(f"{error}; it is written anew", stacklevel=2)
            return None
        if earlier is not None:
            check_same_run(self.run, earlier, record)
        return earlier

    def _other(
        self, source: RunDirectory, record: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The finished phases of another run; None, and the seed's state, where its checkpoint is gone."""
        found = continue_from(source, self.config, record["fingerprint"])
        if found is None:
            warnings.warn(f"{source.path} kept no checkpoint; training all phases instead", stacklevel=2)
        return found

    def _begin(
        self,
        record: dict[str, Any],
        earlier: dict[str, Any] | None,
        saved: dict[str, Any] | None,
        found: tuple[dict[str, Any], dict[str, Any]] | None,
    ) -> None:
        """Write the files of a run that now starts or goes on."""
        run = self.run
        if earlier is not None:
            record["jobs"] = list(dict.fromkeys([*earlier["jobs"], *job_ids()]))
            if saved is not None:
                record |= {"started": earlier["started"], "resumes": earlier["resumes"] + 1}
                record["source_hash"] = joined_sources(earlier["source_hash"], record["source_hash"])
                record |= {"continues": earlier["continues"]} if "continues" in earlier else {}
        if saved is not None:
            self.progress.load(run, saved["metrics"])
        elif found is not None:
            source = RunDirectory(str(self.config.execution.start_checkpoint))
            self.progress.load(source, found[0]["metrics"])
            record["continues"] = source.path.name
            record["source_hash"] = joined_sources(found[1]["source_hash"], record["source_hash"])
        else:
            self.progress.look(0, self.state.model)
        run.nonfinite.unlink(missing_ok=True)
        self.progress.write()
        size = self.config.science.evaluation.size
        write_json(run.dataset, {"train": summarise(self.images, size), "val": summarise(self.val, size)})
        write_json(run.run, record)
        self.progress.beat("running", self.state)
        self.progress.started(record, self.state)

    def _evaluated(self) -> bool:
        try:
            found = self.run.detections.is_file() or not self.config.science.model.detection
            return found and self.run.read_evaluation() is not None
        except RunError:
            return False

    def _save(self) -> None:
        if self.ranks.main:
            content = self.state.save() | {"metrics": self.progress.metrics}
            save_checkpoint(self.run, content | {"signature": signature(self.config.science)})

    def _beat(self, state: str, reason: str | None = None) -> None:
        if self.ranks.main:
            self.progress.beat(state, self.state, reason)

    def _train_epoch(self, stop: Callable[[], bool]) -> bool:
        """The rest of the present epoch; False when asked to stop before its end."""
        state = self.state
        first_epoch, phase = self.schedule.phase(state.epoch)
        if phase.start_from_average and (state.epoch, state.step) == (first_epoch, 0):
            state.start_from_average()
        state.model.train()
        earlier, began = state.seconds, time.monotonic()
        batches = self.batches.epoch(state.epoch, phase.augment, start_step=state.step)
        while state.step < self.batches.steps:
            if self.ranks.any(stop()):
                return False
            asked = time.monotonic()
            batch = next(batches)
            self.images.report.require_readable(len(self.batches.positions), all_read=False)
            state.waited += time.monotonic() - asked
            self.step(batch, self.schedule.at(state.epoch, state.step), state.step in self.measured)
            state.step += 1
            state.seconds = earlier + time.monotonic() - began
            if self.ranks.main:
                self.progress.beat_if_due(state)
        return True

    def _finish_epoch(self) -> None:
        state, execution = self.state, self.config.execution
        self._require_readable(self.images, len(self.batches.positions))
        finished, epochs = state.epoch + 1, self.config.science.train.epochs
        scores: dict[str, float | None] = {}
        if finished == epochs or (execution.evaluate_every and finished % execution.evaluate_every == 0):
            self._save()  # an evaluation that fails must not cost the epoch
            scores = self._evaluate(final=finished == epochs)
        settings = self.schedule.at(state.epoch, max(state.step - 1, 0))
        extra = {"data_seconds": round(state.waited, 3), **state.norms.means(), **state.conflicts.means()}
        if state.model.task.learnt:
            extra |= {f"weight/{task}": value for task, value in state.model.task.factors().items()}
        if self.ranks.main:
            self.progress.finish_epoch(state, settings, scores, self.ranks.device, extra)
        state.next_epoch()
        if self.ranks.main:
            self.progress.write()
        if finished == epochs or finished % execution.checkpoint_every == 0:
            self._save()
        self._beat("running")

    def _evaluate(self, final: bool) -> dict[str, float | None]:
        """Scores of the averaged model in every task; the last epoch's stay on disk with their detections."""
        settings, ranks = self.config.science.evaluation, self.ranks
        workers, model = self.config.execution.workers, self.state.average.model
        watch = self.progress.evaluating
        found = predict(model, self.val, settings, ranks.device, workers, ranks.rank, ranks.ranks, watch)
        self._require_readable(self.val, len(self.val))
        parts = ranks.gather(found)
        return ranks.lead(lambda: self._score(Predictions.merge(parts), final))

    def _require_readable(self, images: ImageSet, count: int) -> None:
        """Raises DataError on every rank when too many of `count` images cannot be decoded."""
        found = self.ranks.gather(images.report.findings["unreadable"].keys)
        images.report.require_readable(count, set[int]().union(*found))

    def _score(self, predictions: Predictions, final: bool) -> dict[str, float | None]:
        result = evaluate(predictions, self.val, official=final)
        if final:
            if predictions.detections is not None:
                predictions.detections.write(self.run.detections)
            write_json(self.run.evaluation, result)
        scores: dict[str, float | None] = dict(result.get("detection", {}))
        for task in ("classification", "embedding"):
            numbers = result.get(task, {}).items()
            scores |= {f"{task}/{k}": v for k, v in numbers if v is None or isinstance(v, float)}
        return scores

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


def _finished(run: RunDirectory, config: RunConfig) -> bool:
    record = run.read_run() if run.complete() else None
    if record is None:
        return False
    return record.get("signature") == signature(config.science) and record.get("seed") == config.seed


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    data = save({name: value.detach().contiguous().cpu() for name, value in tensors.items()})
    write_atomically(path, lambda file: file.write(data))


def continue_from(
    source: RunDirectory, config: RunConfig, fingerprint: str
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The state that `config` itself would have had after its first phases, and run.json of its maker.

    None when that run has dropped its checkpoint.

    Raises:
        RunError: when the other run is not finished, or is not the same experiment, seed and data up to its
            own end.
    """
    record, state = source.read_run(), source.read_state()
    if record is None or state is None or state["state"] != "done":
        raise RunError(f"{source.path} is not a finished run, so {config.experiment} cannot continue it")
    science = Science.model_validate(record["config"]["science"])
    count = len(science.train.phases)
    shortened = config.science.train.model_copy(update={"phases": config.science.train.phases[:count]})
    expected = config.science.model_copy(update={"train": shortened})
    if science != expected or record["seed"] != config.seed or record["fingerprint"] != fingerprint:
        raise RunError(
            f"{source.path} is not the first {count} phase(s) of {config.experiment} with seed {config.seed} "
            "on the same data, so it cannot be continued"
        )
    saved = load_checkpoint(source)
    return None if saved is None else (saved, record)


def check_same_run(run: RunDirectory, earlier: dict[str, Any], record: dict[str, Any]) -> None:
    """Raises RunError, naming what differs, unless the run.json of an earlier attempt is of the same run."""
    if earlier.get("run") == record["run"]:
        return
    if earlier.get("signature") == record["signature"] and earlier.get("seed") == record["seed"]:
        before = earlier.get("fingerprint")
        if before == annotation_fingerprint(RunConfig.model_validate(record["config"]).data):
            raise RunError(
                f"{run.path}: this run was begun by version 0.1.0, which did not write down its pictures "
                f"(fingerprint {before}, now {record['fingerprint']}). End it with that version, or remove "
                "the folder and start the run anew"
            )
        raise RunError(
            f"{run.path}: annotation files or pictures have changed since this run began (fingerprint "
            f"{before}, now {record['fingerprint']}). Restore them to go on, or start a run of its own on "
            "the new data in another folder"
        )
    there, here = (dict(leaves(_science(r))) | {"seed": r.get("seed")} for r in (earlier, record))
    missing = object()
    changed = [
        f"{name} = {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, missing) != here.get(name, missing)
    ]
    differences = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
    raise RunError(
        f"{run.path} holds the run {earlier.get('run')}, not {record['run']}: {differences or 'other data'}. "
        "Train this one in another folder"
    )


def _science(record: dict[str, Any]) -> Any:
    return record.get("config", {}).get("science", {})


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
