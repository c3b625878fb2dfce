"""One attempt at a run: ranks meet, hold the run, say where it starts, and leave a failure in state.json."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from yolor_core.config import RunConfig, Science, leaves
from yolor_core.data import ImageSet, data_fingerprint
from yolor_core.data.batches import summarise
from yolor_core.data.fingerprint import annotation_fingerprint
from yolor_core.device import choose_device, device_name, is_gpu, keep_freed_memory
from yolor_core.errors import ConfigError, DataError, RunError, YolorError, some_of, summary
from yolor_core.identity import describe_run, job_ids, joined_sources, signature
from yolor_core.runs.directory import RunDirectory, write_json
from yolor_core.training.distributed import Ranks, joined, place
from yolor_core.training.progress import Progress
from yolor_core.training.state import TrainingState, load_checkpoint
from yolor_core.training.step import NonFiniteError

FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the quota is used up"}
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
KEPT = "The last checkpoint is untouched, and the same command goes on from it"


@contextmanager
def attempt(config: RunConfig, run: RunDirectory) -> Iterator[Ranks | None]:
    """The ranks, which hold the run while they train it; None where it is finished already."""
    try:
        device = _device(config, run)
        if not is_gpu(device):
            keep_freed_memory()
        with joined(device, config.execution.rank_timeout) as ranks, ExitStack() as held:
            if ranks.lead(lambda: _claim(config, run, held)):
                yield None
                return
            try:
                yield ranks
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
    except Exception as error:
        cause = explained(error, config)
        if cause is error:
            raise
        raise cause from error


def _device(config: RunConfig, run: RunDirectory) -> torch.device:
    here = place()
    try:
        return choose_device(config.execution.device, here.local if here.ranks > 1 else None)
    except ConfigError as error:
        if here.rank == 0:
            with run.lock():
                run.write_state("failed", reason=summary(error))
        raise


def _claim(config: RunConfig, run: RunDirectory, held: ExitStack) -> bool:
    """Lock the run until `held` is closed; whether it is finished already.

    Raises RunError where the folder is another run's, before anything is written there.
    """
    held.enter_context(run.lock())
    earlier = None
    with suppress(RunError):  # a damaged run.json is written anew
        earlier = run.read_run()
    if earlier is None:
        return False
    _check_experiment(run, earlier, config)
    if not run.complete():
        return False
    with suppress(DataError, OSError):  # a finished run outlives its data
        _check_data(run, earlier, config, data_fingerprint(config.data))
    return True


def _leave(run: RunDirectory, ranks: Ranks, state: str, reason: str) -> None:
    """Write how the run ended; that the disk is full must not hide the reason itself."""
    if ranks.main:
        with suppress(OSError):
            run.write_state(state, reason=reason)


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
    runtime = isinstance(error, RuntimeError)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        runtime and "can't allocate memory" in str(error)
    ):
        train = config.science.train
        return RunError(
            f"out of memory at batch {train.batch}, {train.size} pixels ({summary(error)[:200]}). {KEPT}. "
            "To use less: more ranks, fewer runs on one GPU (runs_per_gpu, --jobs), fewer workers, no "
            "execution.cache_images; or, as another experiment, train.batch (gradients accumulate up to the "
            "nominal batch) or numerics.precision=bfloat16"
        )
    if runtime and "DataLoader worker" in str(error):
        return RunError(
            f"a loader process died, mostly of too little memory ({summary(error)[:200]}). {KEPT}. To use "
            "less: fewer execution.workers"
        )
    return error


def start(
    config: RunConfig,
    run: RunDirectory,
    ranks: Ranks,
    state: TrainingState,
    progress: Progress,
    images: ImageSet,
    val: ImageSet,
) -> None:
    """Bring `state` and `progress` to where the run goes on; write run.json and the rest known by then."""
    record = _record(config, ranks, state, images, val)
    before = ranks.lead(lambda: _before(config, run, record["fingerprint"]))
    source = config.execution.start_checkpoint
    other = RunDirectory(source) if source else None
    with warnings.catch_warnings():
        if not ranks.main:
            warnings.simplefilter("ignore")  # rank 0 has said it
        saved = load_checkpoint(run)
        found = _continued(other, config, record["fingerprint"]) if other and saved is None else None
    if saved is not None and saved["signature"] != record["signature"]:
        raise RunError(
            f"{run.checkpoint} is of another configuration; remove the folder {run.path} to run it anew, or "
            "choose another with --results"
        )
    if saved is not None:
        state.restore(saved)
    elif found is not None:
        state.restore(found[0])

    def write() -> None:
        if before is not None:
            record["jobs"] = list(dict.fromkeys([*before["jobs"], *job_ids()]))
        if before is not None and saved is not None:
            record.update(started=before["started"], resumes=before["resumes"] + 1)
            record["source_hash"] = joined_sources(before["source_hash"], record["source_hash"])
            record.update({"continues": before["continues"]} if "continues" in before else {})
        if saved is not None:
            progress.load(run, saved["metrics"])
        elif found is not None and other is not None:
            progress.load(other, found[0]["metrics"])
            record["continues"] = other.path.name
            record["source_hash"] = joined_sources(found[1]["source_hash"], record["source_hash"])
        else:
            progress.look(0, state.model)
        run.nonfinite.unlink(missing_ok=True)
        progress.write()
        size = config.science.evaluation.size
        write_json(run.dataset, {"train": summarise(images, size), "val": summarise(val, size)})
        write_json(run.run, record)
        progress.beat("running", state)
        progress.started(record, state)

    ranks.lead(write)


def _record(
    config: RunConfig, ranks: Ranks, state: TrainingState, images: ImageSet, val: ImageSet
) -> dict[str, Any]:
    """run.json of a run that starts now."""
    report = {"train": images.report.as_dict(), "val": val.report.as_dict()}
    parameters = sum(p.numel() for p in state.model.parameters())
    device = device_name(ranks.device)
    record = describe_run(config, data_fingerprint(config.data), device, report, parameters)
    levels = state.model.describe_levels()
    return record | {"ranks": ranks.ranks, "classes": list(images.names), "levels": levels}


def _before(config: RunConfig, run: RunDirectory, fingerprint: str) -> dict[str, Any] | None:
    """run.json of an earlier attempt; one that is damaged is written anew."""
    try:
        before = run.read_run()
    except RunError as error:
        warnings.warn(f"{error}; it is written anew", stacklevel=2)
        return None
    if before is not None:
        _check_data(run, before, config, fingerprint)
    return before


def _check_experiment(run: RunDirectory, earlier: dict[str, Any], config: RunConfig) -> None:
    """Raises RunError, naming what differs, unless an earlier attempt had this configuration and seed."""
    if (earlier.get("signature"), earlier.get("seed")) == (signature(config.science), config.seed):
        return
    there = dict(leaves(earlier.get("config", {}).get("science", {}))) | {"seed": earlier.get("seed")}
    here = dict(leaves(config.science.model_dump(mode="json"))) | {"seed": config.seed}
    missing = object()
    changed = [
        f"{name} = {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, missing) != here.get(name, missing)
    ]
    raise RunError(
        f"{run.path} holds the run {earlier.get('run')}, which is another one: "
        f"{some_of(changed, 5, '; ') or 'of another version'}. Train this one in another folder"
    )


def _check_data(run: RunDirectory, earlier: dict[str, Any], config: RunConfig, fingerprint: str) -> None:
    """Raises RunError unless the data are those of an earlier attempt."""
    before = earlier.get("fingerprint")
    if before == fingerprint:
        return
    if before == annotation_fingerprint(config.data):
        if run.complete():
            return
        raise RunError(
            f"{run.path}: this run was begun by version 0.1.0, which did not write down its pictures "
            f"(fingerprint {before}, now {fingerprint}). End it with that version, or remove "
            "the folder and start the run anew"
        )
    raise RunError(
        f"{run.path}: annotation files or pictures have changed since this run began (fingerprint "
        f"{before}, now {fingerprint}). Restore them to go on, or start a run of its own on "
        "the new data in another folder"
    )


def _continued(
    source: RunDirectory, config: RunConfig, fingerprint: str
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The checkpoint and run.json of another run that has trained the first phases of `config`.

    Table 8's fine-tuned row goes on from the implicit run, so it costs 150 epochs, not 450. None, and the
    seed's state is taken, where that run kept no checkpoint.

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
    if saved is None:
        warnings.warn(f"{source.path} kept no checkpoint; training all phases instead", stacklevel=2)
        return None
    return saved, record
