"""One training, from a configuration to the files of its run directory: `train`, and its parts below."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from yolor_core.config import RunConfig
from yolor_core.data import ImageSet, TrainingBatches, load_images
from yolor_core.data.batches import box_sizes, kept, reference_images
from yolor_core.data.images import check_identities
from yolor_core.data.load import check_boxes
from yolor_core.device import Numerics, is_gpu
from yolor_core.errors import RunError
from yolor_core.evaluation.predict import Predictions, evaluate, predict
from yolor_core.identity import signature
from yolor_core.models import create_model, implicit_priors
from yolor_core.runs.directory import RunDirectory, now, write_atomically, write_json
from yolor_core.tasks.base import build_losses
from yolor_core.training.attempt import attempt, start
from yolor_core.training.distributed import Ranks
from yolor_core.training.progress import Progress, Watch
from yolor_core.training.schedule import Schedule
from yolor_core.training.state import (
    MovingAverage,
    TrainingState,
    build_optimiser,
    drop_checkpoints,
    save_checkpoint,
)
from yolor_core.training.step import TrainingStep, check_shares, measured_steps


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
    run, science, execution = RunDirectory(run_dir), config.science, config.execution
    recipe = science.train
    with attempt(config, run) as ranks:
        if ranks is None:
            return "done"  # by an earlier attempt
        check_shares(science, ranks.ranks)
        torch.set_num_threads(execution.threads)

        # Data. Each rank has its share of every batch; pixels are decoded and augmented when a batch is due.
        images, val = load_data(config)
        batches = training_batches(config, images, ranks)

        # The model and all that is trained with it, as the seed gives it.
        numerics = Numerics(science.numerics, ranks.device)
        schedule = Schedule(recipe.optimiser, recipe.phases, batches.steps, recipe.batch)
        state = initial_state(config, images, schedule, numerics, ranks.ranks)
        model = state.model
        reference = reference_images(val, science.evaluation.size, max(model.strides))
        progress = Progress(run, ranks, recipe.epochs, batches.steps, reference, execution.tensorboard, watch)

        # The place to start from: this run's checkpoint, the finished phases of another run, or step 0.
        start(config, run, ranks, state, progress, images, val)
        losses = build_losses(model, recipe)  # of the anchors that an earlier attempt has found
        step = TrainingStep(state, losses, recipe, numerics, ranks, config.seed)  # may compile the model
        measured = measured_steps(batches.steps, execution.conflict_steps if len(model.tasks) > 1 else 0)

        while state.epoch < recipe.epochs:
            # An epoch, or what is left of it. A phase may start from the averaged weights.
            first_epoch, phase = schedule.phase(state.epoch)
            if phase.start_from_average and (state.epoch, state.step) == (first_epoch, 0):
                state.start_from_average()
            model.train()
            earlier, began = state.seconds, time.monotonic()
            stream = batches.epoch(state.epoch, phase.augment, start_step=state.step)
            while state.step < batches.steps:
                if ranks.any(stop()):
                    _save(config, run, ranks, state, progress)
                    progress.beat("preempted", state, "asked to stop; launch again to go on")
                    return "preempted"
                asked = time.monotonic()
                batch = next(stream)
                images.report.require_readable(len(batches.positions), all_read=False)
                state.waited += time.monotonic() - asked
                # Forward, losses, backward, and after enough images the optimiser and the moving average.
                step(batch, schedule.at(state.epoch, state.step), state.step in measured)
                state.step += 1
                state.seconds = earlier + time.monotonic() - began
                progress.beat_if_due(state)
            del stream  # and with it its loader processes, before evaluation starts others
            _require_readable(images, len(batches.positions), ranks)

            # Scores of the moving average, at the end and where asked for. A failure must not cost the epoch.
            finished = state.epoch + 1
            last = finished == recipe.epochs
            scores: dict[str, float | None] = {}
            if last or (execution.evaluate_every and finished % execution.evaluate_every == 0):
                _save(config, run, ranks, state, progress)
                scores = _evaluate(config, run, ranks, state, progress, val, final=last)

            # The epoch's line in metrics.jsonl, its implicit values, and the checkpoint that makes it last.
            progress.finish_epoch(state, schedule.at(state.epoch, max(state.step - 1, 0)), scores)
            state.next_epoch()
            if last or finished % execution.checkpoint_every == 0:
                _save(config, run, ranks, state, progress)
            progress.beat("running", state)

        # Results: weights of the average, scores, detections. A finished run that lost its own is repaired.
        if not ranks.lead(lambda: _evaluated(config, run)):
            _evaluate(config, run, ranks, state, progress, val, final=True)
        if ranks.main:
            _finish(config, run, state, images, val)
        progress.beat("done", state)
        if ranks.main:
            with suppress(OSError):  # only now: until the run is done, an attempt that follows needs them
                drop_checkpoints(run, keep_last=execution.keep_checkpoint)
        return "done"


def load_data(config: RunConfig) -> tuple[ImageSet, ImageSet]:
    """The images of training and validation, the latter in the classes of the former.

    Raises DataError where boxes, or identities for the embedding task, cannot be used.
    """
    images = load_images(config.data, "train")
    val = load_images(config.data, "val").with_classes(images.names, images.report.source)
    check_boxes({"train": images.report, "val": val.report})
    if "embedding" in config.science.model.tasks:
        check_identities(images, val)
    return images, val


def training_batches(config: RunConfig, images: ImageSet, ranks: Ranks) -> TrainingBatches:
    """This rank's share of the batches of every epoch."""
    recipe, execution = config.science.train, config.execution
    return TrainingBatches(
        images,
        size=recipe.size,
        batch=recipe.batch,
        seed=config.seed,
        keep_one_in=recipe.keep_one_in,
        workers=execution.workers,
        cache=execution.cache_images,
        rank=ranks.rank,
        ranks=ranks.ranks,
        group=recipe.batch_norm_images,
        pin=is_gpu(ranks.device),
    )


def initial_state(
    config: RunConfig, images: ImageSet, schedule: Schedule, numerics: Numerics, ranks: int = 1
) -> TrainingState:
    """A run before its first step: the model that the seed gives, its average, its optimiser.

    Raises DataError where anchors are to be found by k-means and there are too few boxes.
    """
    science, settings = config.science, config.science.train.optimiser
    classes, identities = len(images.names), images.identity_count
    model = create_model(science.model, classes, config.seed, None, identities, science.train.tasks)
    if science.model.anchors == "kmeans":
        from yolor_core.data.anchors import kmeans_anchors

        sizes = box_sizes(images, science.train.size, kept(images.ids, science.train.keep_one_in))
        found = kmeans_anchors(sizes, model.levels, model.anchors_per_level)
        model.anchors.copy_(torch.from_numpy(found))
    model = numerics.model(model)
    return TrainingState(
        model,
        MovingAverage(model, settings.ema_decay, settings.ema_updates),
        build_optimiser(model, settings, schedule.weight_decay),
        numerics.scaler(ranks),
        ranks,
    )


def _save(
    config: RunConfig, run: RunDirectory, ranks: Ranks, state: TrainingState, progress: Progress
) -> None:
    if ranks.main:
        content = state.save() | {"metrics": progress.metrics, "signature": signature(config.science)}
        save_checkpoint(run, content)


def _require_readable(images: ImageSet, count: int, ranks: Ranks) -> None:
    """Raises DataError on every rank when too many of `count` images cannot be decoded."""
    found = ranks.gather(images.report.findings["unreadable"].keys)
    images.report.require_readable(count, set[int]().union(*found))


def _evaluate(
    config: RunConfig,
    run: RunDirectory,
    ranks: Ranks,
    state: TrainingState,
    progress: Progress,
    val: ImageSet,
    final: bool,
) -> dict[str, float | None]:
    """Scores of the averaged model in every task; the last epoch's stay on disk with their detections."""
    settings, workers = config.science.evaluation, config.execution.workers
    model, watch = state.average.model, progress.watch
    told = watch.evaluating if watch else None
    recipe = config.science.train
    found = predict(model, val, settings, ranks.device, workers, ranks.rank, ranks.ranks, told, recipe)
    _require_readable(val, len(val), ranks)
    parts = ranks.gather(found)

    def score() -> dict[str, float | None]:
        predictions = Predictions.merge(parts)
        result = evaluate(predictions, val, official=final)
        if final:
            if predictions.detections is not None:
                predictions.detections.write(run.detections)
            write_json(run.evaluation, result)
        scores: dict[str, float | None] = dict(result.get("detection", {}))
        for task in ("classification", "embedding"):
            numbers = result.get(task, {}).items()
            scores |= {f"{task}/{k}": v for k, v in numbers if v is None or isinstance(v, float)}
        return scores | predictions.losses()

    return ranks.lead(score)


def _evaluated(config: RunConfig, run: RunDirectory) -> bool:
    """Whether the results of the last evaluation are there."""
    try:
        found = run.detections.is_file() or not config.science.model.detection
        return found and run.read_evaluation() is not None
    except RunError:
        return False


def _finish(
    config: RunConfig, run: RunDirectory, state: TrainingState, images: ImageSet, val: ImageSet
) -> None:
    """The last files of a run."""
    model = state.average.model
    _write_tensors(run.weights, model.state_dict())
    _write_tensors(run.priors, implicit_priors(model))
    record = run.read_run()
    if record is None:
        raise RunError(f"{run.run} disappeared while the run was training")
    # Files that turned out to be unreadable are only known now.
    report = {"train": images.report.as_dict(), "val": val.report.as_dict()}
    write_json(run.run, record | {"ended": now(), "data_report": report})


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    data = save({name: value.detach().contiguous().cpu() for name, value in tensors.items()})
    write_atomically(path, lambda file: file.write(data))
