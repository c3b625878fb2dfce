"""Every figure of a study, in the order of the report: what it shows, its data and how it is drawn."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ablations.table import Table
from analysis import curves, differences, pictures, scores
from analysis.catalogue_implicit import KNOWLEDGE, anchor_sizes, of_table
from analysis.drawing import CURVES, DIFFERENCES, SCORES, SECTIONS, Drawing, table_anchor
from analysis.study import Study

__all__ = ["CATALOGUE", "SECTIONS", "Drawing", "drawings"]


def drawings(study: Study) -> tuple[Drawing, ...]:
    """The catalogue, with a figure for every table where all experiments at once would be too many."""
    tables = [table for table in study.tables if table.experiments]
    return (
        *CATALOGUE[:2],
        *(_losses(table) for table in tables),
        *(_ap(table) for table in tables),
        *CATALOGUE[2:],
        *KNOWLEDGE,
        anchor_sizes(study),
        *(drawing for table in tables for drawing in of_table(table)),
        *_differences(study),
    )


CATALOGUE: tuple[Drawing, ...] = (
    Drawing(
        "effects-by-row",
        "Difference in AP of every row to its baseline",
        "Ours with its 95 % interval over seeds where there are several, and the paper's. At a reduced "
        "profile only the signs can be compared.",
        SCORES,
        lambda study: scores.effects_by_row_data(list(study.filled.values())),
        scores.effects_by_row,
    ),
    Drawing(
        "ap-by-run",
        "AP of every run",
        "A ring for each seed, the mean, and its 95 % interval over seeds.",
        SCORES,
        lambda study: scores.ap_by_run_data(study.runs),
        scores.ap_by_run,
    ),
    Drawing(
        "ap-hours",
        "AP over device hours",
        "AP of the averaged weights on the validation images, where it was evaluated during training. A "
        "device is a GPU, or a process where there is none; other work on the machine counts as time.",
        CURVES,
        lambda study: curves.ap_hours_data(study.metrics, study.runs),
        curves.ap_hours,
    ),
    Drawing(
        "learning-rate",
        "Learning rate",
        "At the end of each epoch; the implicit vectors learn at the rate of the weights.",
        CURVES,
        lambda study: curves.learning_rate_data(study.metrics),
        curves.learning_rate,
    ),
    Drawing(
        "speed",
        "Training speed",
        "Images a second, of all processes of a run together. Runs on one machine slow each other down.",
        CURVES,
        lambda study: curves.speed_data(study.metrics),
        curves.speed,
    ),
    Drawing(
        "conflict",
        "Conflict between tasks",
        "Cosine between the gradients of two tasks on the parameters that both train; below 0, what helps "
        "one hurts the other.",
        CURVES,
        lambda study: curves.conflict_data(study.metrics),
        curves.conflict,
    ),
)


def _losses(table: Table) -> Drawing:
    return Drawing(
        f"losses-{table_anchor(table)}",
        f"Losses over epochs, Table {table.name}",
        "Box, objectness and classification loss with and without implicit knowledge (the paper's Fig. 11).",
        CURVES,
        lambda study: curves.losses_data(_of(study, table)),
        curves.losses,
    )


def _ap(table: Table) -> Drawing:
    return Drawing(
        f"ap-{table_anchor(table)}",
        f"AP over epochs, Table {table.name}",
        "AP of the averaged weights on the validation images, where it was evaluated.",
        CURVES,
        lambda study: curves.ap_data(_of(study, table)),
        curves.ap,
    )


def _differences(study: Study) -> tuple[Drawing, ...]:
    """Of the row whose AP differs most from its baseline's."""

    def scored(study: Study) -> pd.DataFrame:
        a, b, comparison = study.compared
        return differences.scores_data(comparison, a.name, b.name)

    def changed(study: Study) -> pd.DataFrame:
        a, b, comparison = study.compared
        return pictures.changed_data(comparison, a, b)

    def draw(data: pd.DataFrame) -> Figure:
        return pictures.changed(data, pictures.photographs(study.compared[0], data["image"].unique()))

    which = "A run of the row whose AP differs most (B) and the same seed of its baseline (A)"
    return (
        Drawing(
            "differences",
            "Where two runs differ: scores and classes",
            f"{which}, with 95 % intervals over the images. `ablate compare` does this for any two runs.",
            DIFFERENCES,
            scored,
            differences.scores,
        ),
        Drawing(
            "changed-images",
            "Where two runs differ: the images that changed most",
            f"{which}: detections with a score of 0.3 or more, and the true boxes.",
            DIFFERENCES,
            changed,
            draw,
        ),
    )


def _of(study: Study, table: Table) -> pd.DataFrame:
    return study.metrics[study.metrics["experiment"].isin([each.slug for each in table.experiments])]
