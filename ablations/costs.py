"""What a model costs, as the paper counts, and the GPU hours of a run to come. Imports torch when called."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ablations.experiments import Experiment
from ablations.plan import runs_folder
from ablations.planned import PlannedRun
from ablations.table import COUNTED, Table
from slurm.tokens import current
from yolor_core.config import DataConfig, ModelConfig, RunConfig, ShapesConfig
from yolor_core.errors import DataError, RunError
from yolor_core.identity import signature
from yolor_core.runs import State
from yolor_core.runs.directory import RunDirectory

CLASSES = 80
LARGE, HALF = 1280, 640  # pixels
BACKWARD = 2.0  # of a forward pass


@dataclass(frozen=True)
class Cost:
    """Costs of a model in evaluation mode, 80 classes, at the paper's test size."""

    parameters: int
    mflops: float  # as the paper counts
    mflops_all_levels: float  # with × iPR counted on every level
    gflops_quadrupled: float | None = None  # of a model at 1280 px: 4 x the figure at 640 px to one decimal
    fused: bool = False  # BatchNorm merged into the convolutions


def model_cost(experiment: Experiment, fused: bool = False) -> Cost:
    """Count at the paper's scale (section 5.7, Tables 7, A1 and A2), whatever the profile."""
    from yolor_core.models import count

    model, size = experiment.science.model, experiment.science.evaluation.size
    counts = count(model, size, CLASSES)
    half = count(model, HALF, CLASSES) if size == LARGE else None
    return Cost(
        parameters=counts.parameters_fused if fused else counts.parameters,
        mflops=round(counts.mflops_paper_fused if fused else counts.mflops_paper, 4),
        mflops_all_levels=round(counts.mflops_fused if fused else counts.mflops, 4),
        gflops_quadrupled=_quadrupled(half.mflops_paper_fused if fused else half.mflops_paper)
        if half
        else None,
        fused=fused,
    )


def _quadrupled(mflops: float) -> float:
    """Table A2's rule: 4 x the GFLOPs at half the size, after those were rounded to one decimal."""
    return round(4 * round(mflops / 1000, 1), 1)


def costs_of(table: Table) -> dict[str, Cost]:
    """Counted on full-size models; torch is imported only for a table that shows counts."""
    if not set(table.metrics) & set(COUNTED):
        return {}
    return {
        row.experiment.slug: model_cost(row.experiment, row.fused)
        for row in table.rows
        if row.experiment is not None
    }


@dataclass(frozen=True)
class Estimate:
    """What a run takes of one GPU (or of one process, where there are none)."""

    seconds: float
    epoch: float  # seconds of one epoch
    measured: bool  # from finished runs in this results folder

    @property
    def hours(self) -> float:
        """GPU hours of the whole run."""
        return self.seconds / 3600


class Estimator:
    """Knows the finished runs of a results folder.

    A run is expected to take as long as finished ones of the same experiment and profile; else as long as
    its FLOPs say at the speed of the finished runs of its profile; else at `tflops` of one device.
    """

    def __init__(self, results: Path, tflops: float) -> None:
        self.tflops = tflops
        self.by_signature: dict[str, list[float]] = {}
        self.by_profile: dict[str, list[float]] = {}
        self.images: dict[DataConfig, tuple[int, int]] = {}
        self.finished = list(_finished(runs_folder(results)))
        for record, seconds in self.finished:
            self.by_signature.setdefault(str(record.get("signature")), []).append(seconds)

    def __call__(self, run: PlannedRun) -> Estimate:
        """Seconds of one device that a run takes."""
        config = run.config
        epochs = _epochs(run)
        total = config.science.train.epochs
        same = self.by_signature.get(signature(config.science))
        if same:
            seconds = statistics.mean(same) * epochs / total
            return Estimate(seconds, seconds / epochs, True)
        flops = self._epoch_flops(config)
        speeds = self._speeds(config.science.profile)
        each = flops * statistics.median(speeds) if speeds else flops / (self.tflops * 1e12)
        return Estimate(each * epochs, each, bool(speeds))

    def _speeds(self, profile: str) -> list[float]:
        """Seconds for one FLOP in the finished runs of a profile."""
        if profile not in self.by_profile:
            found = []
            for record, seconds in self.finished:
                config = _config(record)
                if config is not None and config.science.profile == profile:
                    epochs = config.science.train.epochs
                    found.append(seconds / (self._epoch_flops(config) * epochs))
            self.by_profile[profile] = found
        return self.by_profile[profile]

    def _epoch_flops(self, config: RunConfig) -> float:
        """Training on all images once; evaluations are a few hundredths of it and left out."""
        train = config.science.train
        images, _ = self._images(config.data)
        each = _image_flops(config.science.model, train.size)
        return (1 + BACKWARD) * each * max(1, images // train.keep_one_in)

    def _images(self, data: DataConfig) -> tuple[int, int]:
        if data not in self.images:
            self.images[data] = count_images(data)
        return self.images[data]


@cache
def _image_flops(model: ModelConfig, size: int) -> float:
    from yolor_core.models import count

    return 1e6 * count(model, size, CLASSES).mflops


PUBLISHED = Path(__file__).parent.parent / "results" / "published"


def local_estimates(runs: Sequence[PlannedRun], results: Path) -> tuple[dict[str, Estimate], str]:
    """What each run takes of this machine, by id, and by whose measure; nothing where no run was measured.

    By the finished runs of the results folder; without any of the profile, by those of the published study.
    """
    if not runs:
        return {}, ""
    published = PUBLISHED / runs[0].config.science.profile
    for folder, whose in ((results, "finished runs in this folder"), (published, "the published study")):
        estimator = Estimator(folder, tflops=1.0)
        found = {run.run_id: estimator(run) for run in runs} if estimator.finished else {}
        if found and all(estimate.measured for estimate in found.values()):
            return found, whose
    return {}, ""


def count_images(data: DataConfig) -> tuple[int, int]:
    """Images of the training and the validation split, by their files alone."""
    if isinstance(data, ShapesConfig):
        return data.train_images, data.val_images
    import os

    from yolor_core.data.layout import image_folder

    counts = []
    for split in (data.train, data.val):
        try:
            counts.append(sum(1 for _ in os.scandir(image_folder(Path(data.root), split))))
        except (DataError, OSError):  # only packs may be there
            counts.append(118_287 if split == data.train else 5_000)
    return counts[0], counts[1]


def _epochs(run: PlannedRun) -> int:
    """Those it trains itself; the first phase is another run's where it continues one."""
    phases = run.config.science.train.phases
    return sum(phase.epochs for phase in (phases[1:] if run.after else phases))


def _finished(runs: Path) -> Iterable[tuple[dict[str, Any], float]]:
    """run.json of finished runs, and what they took of one device, in seconds; those on one GPU share it."""
    for path in runs.glob("*/evaluation.json"):
        run = RunDirectory(path.parent)
        try:
            state, record = run.read_state(), run.read_run()
        except RunError:
            continue
        if state is None or record is None or state.get("state") != State.DONE:
            continue
        seconds = state.get("seconds")
        if isinstance(seconds, int | float) and seconds > 0 and "continues" not in record:
            token = current(run.path)
            yield record, float(seconds) * int(record.get("ranks") or 1) / (token.pack if token else 1)


def _config(record: dict[str, Any]) -> RunConfig | None:
    try:
        return RunConfig.model_validate(record.get("config"))
    except ValueError:  # of another version of the suite
        return None
