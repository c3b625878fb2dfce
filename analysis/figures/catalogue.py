"""Every figure of a study, in the order of the report: what it shows, its data and how it is drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ablations.table import Row, Table
from analysis.errors import NothingToShow
from analysis.figures import curves, effects, features, implicit, pictures, scores
from analysis.study import Study

SCORES, CURVES = "Scores", "Training"
IMPLICIT, DIFFERENCES = "Implicit knowledge", "Differences"
SECTIONS = (SCORES, IMPLICIT, CURVES, DIFFERENCES)  # in the order of the report
RUNS = ("run", "run_a", "run_b")  # columns with ids of runs
EXPERIMENTS = ("experiment", "series", "a", "b")  # columns with slugs, to which a word is added: `csp seed 0`


@dataclass(frozen=True)
class Drawing:
    """A figure: `data` of a study gives the frame that `draw` draws.

    Both raise NothingToShow where there is nothing to show. `name` is that of its files. Figures that draw
    the same frame share a file of data: `data_of` names the one that it is named after.
    """

    name: str
    title: str
    caption: str
    section: str
    data: Callable[[Study], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    data_of: str | None = None

    @property
    def csv(self) -> str:
        """The file of its data, below a report or a published folder."""
        return f"figures/{self.data_of or self.name}.csv"


def table_anchor(table: Table) -> str:
    """What a table's figures, files and part of a page are named after: letters, digits and `-`.

    Names that differ give names that differ, whatever signs they have.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", table.name.lower()).strip("-")
    if plain == table.name.lower():
        return f"table-{plain}"
    return f"table-{plain}-{hashlib.sha256(table.name.encode()).hexdigest()[:6]}"


def drawings(study: Study) -> tuple[Drawing, ...]:
    """The catalogue, with a figure for every table where all experiments at once would be too many.

    Figures call experiments by their rows, `+ iFA`, and by table and row where there are several tables,
    `1: + iFA`; the data beside them have slugs and ids of runs.
    """
    tables = [table for table in study.tables if table.experiments]
    rows = {table.name: [(row.label, row) for row in table.rows] for table in tables}
    everywhere = [(f"{table}: {label}", row) for table, own in rows.items() for label, row in own]

    def own(drawing: Callable[[Table], Drawing]) -> list[Drawing]:
        return [_named(study, rows[table.name], [drawing(table)])[0] for table in tables]

    effect_figures = zip(own(EFFECTS), own(ANCHORS), strict=True)
    return (
        *_named(study, everywhere, FINAL),
        *own(LOSSES),
        *own(AP),
        *_named(study, everywhere, [*TRAINING, *KNOWLEDGE, _anchor_sizes(study)]),
        *(each for pair in effect_figures for each in pair),
        *_named(study, everywhere, [_detections(study), COMPARED, _changed_images(study)]),
    )


def _named(study: Study, rows: Iterable[tuple[str, Row]], drawn: Iterable[Drawing]) -> list[Drawing]:
    """Figures in which the experiments of these rows, the first of each, have the rows' labels."""
    labels: dict[str, str] = {}
    for label, row in rows:
        if row.slug is not None:
            labels.setdefault(row.slug, label)
    known = study.runs[study.runs["experiment"].isin(list(labels))]
    names = known["experiment"].map(labels).astype(str) + ", seed " + known["seed"].astype(str)
    runs = dict(zip(known["run"], names.where(~names.duplicated(keep=False), known["run"]), strict=True))

    def renaming(draw: Callable[[pd.DataFrame], Figure]) -> Callable[[pd.DataFrame], Figure]:
        return lambda data: draw(_renamed(data, labels, runs))

    return [replace(each, draw=renaming(each.draw)) for each in drawn]


def _renamed(data: pd.DataFrame, labels: Mapping[str, str], runs: Mapping[str, str]) -> pd.DataFrame:
    def label(name: object) -> object:
        slug, space, rest = str(name).partition(" ")
        return f"{labels[slug]}{space}{rest}" if slug in labels else name

    found = {column: data[column].map(label) for column in EXPERIMENTS if column in data}
    found |= {column: data[column].map(lambda run: runs.get(run, run)) for column in RUNS if column in data}
    return data.assign(**found)


FINAL = (
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
)

TRAINING = (
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

KNOWLEDGE = (
    Drawing(
        "learned",
        "What prediction refinement learned",
        "g(z) after the predictor at the last epoch, a line for each pyramid level (the paper's Fig. 9).",
        IMPLICIT,
        lambda study: implicit.learned_data(study.implicit),
        implicit.learned,
    ),
    Drawing(
        "evolution",
        "How one run's representation changed",
        "Change of every value since the start, over the epochs of the first run with implicit knowledge.",
        IMPLICIT,
        lambda study: implicit.evolution_data(study.first_history),
        implicit.heat_map,
    ),
    Drawing(
        "trajectories",
        "The values that moved most",
        "Of the same run, over its epochs.",
        IMPLICIT,
        lambda study: implicit.evolution_data(study.first_history),
        implicit.trajectories,
        data_of="evolution",
    ),
    Drawing(
        "settling",
        "When the representation settled",
        "Of the same run: direction and length of the change since the start, beside the last one.",
        IMPLICIT,
        lambda study: implicit.settling_data(study.first_history),
        implicit.settling,
    ),
    Drawing(
        "effects-by-class",
        "Effect on the predictions by class",
        "Change of a class's logit against how often the class occurs and how well it is detected.",
        IMPLICIT,
        lambda study: effects.classes_data(study.effects, study.class_boxes, study.class_scores),
        effects.classes,
    ),
    Drawing(
        "similarity",
        "Similarity of the effects",
        "Cosines between what seeds and experiments do to the raw predictions.",
        IMPLICIT,
        lambda study: effects.similarity_data(study.effects),
        effects.similarity,
    ),
    Drawing(
        "components",
        "Principal components of the effects",
        "Every run in the plane of the first two components; the number is its seed.",
        IMPLICIT,
        lambda study: effects.components_data(study.effects),
        effects.components,
    ),
    Drawing(
        "centre-offsets",
        "Shift of the boxes' centres",
        "By anchor and level, in pixels of the training size.",
        IMPLICIT,
        lambda study: effects.geometry_data(study.effects, study.outputs),
        effects.centre_offsets,
    ),
    Drawing(
        "projection",
        "Features along the learned direction",
        "Our reading of the paper's Fig. 3, which is a drawing: inner product of real features with the unit "
        "vector learned at FA (a, or g - 1), cells with an object against others. An AUC inside the brackets "
        "is no better than random vectors; adding a constant cannot change the effective dimension.",
        IMPLICIT,
        lambda study: features.projection_data(study.features, study.implicit),
        features.projection,
    ),
    Drawing(
        "alignment",
        "Alignment of the levels' predictions",
        "Our reading of the paper's Fig. 4, which is a drawing: raw predictions of anchors with an object, "
        "without and with implicit knowledge, in the plane of their first two principal components. The "
        "number is the mean distance between the levels' centroids over the spread inside levels.",
        IMPLICIT,
        lambda study: features.alignment_data(study.features),
        features.alignment,
    ),
    Drawing(
        "spectra",
        "Singular values of the matrices of wi and ic",
        "Relative to the largest, beside those of a random matrix: what the network form (W) and the "
        "factorisation (Z) have learned.",
        IMPLICIT,
        lambda study: implicit.spectra_data(study.spectra),
        implicit.spectra,
    ),
)


def _anchor_sizes(study: Study) -> Drawing:
    """Over the boxes that the study was trained on."""
    return Drawing(
        "anchor-sizes",
        "Predicted box sizes without and with a site",
        "What each anchor predicts for the mean feature of its level, without the site and with it, in "
        "pixels of the training size. The mean feature is mostly background, and a factor acts inside the "
        "sigmoid, so it cannot move a raw value of 0.",
        IMPLICIT,
        lambda study: effects.geometry_data(study.effects, study.outputs),
        lambda data: effects.anchor_sizes(data, study.training_data),
    )


def _by_table(
    name: str,
    title: str,
    caption: str,
    section: str,
    data: Callable[[Study, Callable[[pd.DataFrame], pd.DataFrame]], pd.DataFrame],
    draw: Callable[[pd.DataFrame], Figure],
) -> Callable[[Table], Drawing]:
    """A figure of every table; `data` is given a function that leaves the table's experiments of a frame."""

    def of(table: Table) -> Drawing:
        slugs = [each.slug for each in table.experiments]

        def own(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["experiment"].isin(slugs)]

        return Drawing(
            f"{name}-{table_anchor(table)}",
            f"{title}, Table {table.name}",
            caption,
            section,
            lambda study: data(study, own),
            draw,
        )

    return of


LOSSES = _by_table(
    "losses",
    "Losses over epochs",
    "Box, objectness and classification loss with and without implicit knowledge (the paper's Fig. 11).",
    CURVES,
    lambda study, own: curves.losses_data(own(study.metrics)),
    curves.losses,
)
AP = _by_table(
    "ap",
    "AP over epochs",
    "AP of the averaged weights on the validation images, where it was evaluated.",
    CURVES,
    lambda study, own: curves.ap_data(own(study.metrics)),
    curves.ap,
)
EFFECTS = _by_table(
    "effects",
    "Effect on every raw output",
    "What implicit knowledge adds to the raw outputs (logits) at a level's mean feature, by "
    "dimension as in Fig. 9: for + iFA it is W a. Here seeds, operators and forms can be compared.",
    IMPLICIT,
    lambda study, own: effects.dimensions_data(own(study.effects)),
    implicit.learned,
)
ANCHORS = _by_table(
    "anchors",
    "Effect by anchor",
    "The same, as means over the outputs of a block.",
    IMPLICIT,
    lambda study, own: effects.anchors_data(own(study.effects)),
    effects.anchors,
)


PAIR = "A run of the row whose AP differs most (B) and the same seed of its baseline (A)"


def _differences_data(study: Study) -> pd.DataFrame:
    a, b, comparison = study.compared
    return scores.differences_data(comparison, a.name, b.name)


def _changed_data(study: Study) -> pd.DataFrame:
    a, b, comparison = study.compared
    return pictures.changed_data(comparison, a, b)


COMPARED = Drawing(
    "differences",
    "Where two runs differ: scores and classes",
    f"{PAIR}, with 95 % intervals over the images. `ablate compare` does this for any two runs.",
    DIFFERENCES,
    _differences_data,
    scores.differences,
)


def _shown_run(study: Study) -> Path:
    """The first seed of the first table's baseline that has finished; of any row, where none of it has."""
    done = study.runs[study.runs["state"] == "done"]
    slugs = [each.slug for table in study.tables for each in table.experiments]
    known = done[done["experiment"].isin(slugs)]
    if known.empty:
        raise NothingToShow("No run has finished yet.")
    order = known["experiment"].map(slugs.index)
    return Path(known.assign(order=order).sort_values(["order", "seed", "run"])["path"].iloc[0])


def _detections(study: Study) -> Drawing:
    """With the photographs of the study's run."""
    return Drawing(
        "detections",
        "What a run finds",
        "True boxes, and detections with a score of 0.3 or more, in the first validation images that have "
        "objects, not chosen by what was found. A detection is right that has the class of a true box and "
        "overlaps it by an IoU of 0.5 or more.",
        DIFFERENCES,
        lambda of: pictures.found_data(_shown_run(of)),
        lambda data: pictures.found(data, pictures.photographs(_shown_run(study), data["image"].unique())),
    )


def _changed_images(study: Study) -> Drawing:
    """With the photographs of the study's run."""
    return Drawing(
        "changed-images",
        "Where two runs differ: the images that changed most",
        f"{PAIR}: detections with a score of 0.3 or more, and the true boxes.",
        DIFFERENCES,
        _changed_data,
        lambda data: pictures.changed(data, pictures.photographs(study.compared[0], data["image"].unique())),
    )
