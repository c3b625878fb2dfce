"""Parameters and MFLOPs of an experiment's full-size model as Table 7 counts. Imports torch when called."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.experiments import Experiment

PAPER_LEVELS = 3  # levels of × iPR that Table 7's MFLOPs include; P6-light has a fourth


@dataclass(frozen=True)
class Cost:
    """Costs of a model in evaluation mode, not fused, 80 classes, at the paper's test size."""

    parameters: int
    mflops: float  # as the paper counts
    mflops_all_levels: float  # with × iPR counted on every level


def model_cost(experiment: Experiment) -> Cost:
    """Count at the paper's scale (section 5.7, Table 7), whatever the profile.

    Raises NotBuiltError for a model that cannot be built yet.
    """
    from yolor_core.models import count
    from yolor_core.models.architectures import ARCHITECTURES

    model, size, classes = experiment.science.model, experiment.science.evaluation.size, 80
    counts = count(model, size, classes)
    uncounted = 0
    if any((part.site, part.operator) == ("pr", "multiply") for part in model.implicit):
        architecture = ARCHITECTURES[model.architecture]
        outputs = architecture.anchors_per_level * (5 + classes)
        uncounted = sum(outputs * (size // stride) ** 2 for stride in architecture.strides[PAPER_LEVELS:])
    return Cost(
        parameters=counts.parameters,
        mflops=round(counts.mflops - uncounted / 1e6, 4),
        mflops_all_levels=round(counts.mflops, 4),
    )
