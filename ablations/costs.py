"""Parameters and FLOPs of an experiment's full-size model as the paper counts. Imports torch when called."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.experiments import Experiment
from ablations.table import COUNTED, Table

CLASSES = 80
LARGE, HALF = 1280, 640  # pixels


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
