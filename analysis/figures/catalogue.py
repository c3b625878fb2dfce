"""Every figure of a study, in the order of the report: what it shows, its data and how it is drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ablations.experiments import ADD_FA, ADD_PR, CAT_FA, CSP_FAST, MUL_FA, MUL_PR
from ablations.registry import resolve
from ablations.table import Table
from analysis.design import VAL_LOSS
from analysis.errors import NothingToShow
from analysis.figures import agreement, curves, effects, features, implicit, pictures, scores
from analysis.study import Study
from yolor_core.errors import some_of

SCORES, PAPER, CURVES = "Scores", "The paper's figures", "Training"
IMPLICIT, DIFFERENCES = "Implicit knowledge", "Differences"
SECTIONS = (SCORES, PAPER, IMPLICIT, CURVES, DIFFERENCES)  # in the order of the report
RUNS = ("run", "run_a", "run_b")  # columns with ids of runs
EXPERIMENTS = ("experiment", "series", "a", "b")  # columns with slugs, to which a word is added: `csp seed 0`
ABSENT = 12  # rows without a difference that are named
ADDED = CSP_FAST.plus(ADD_PR)
CURVES_OF = {CSP_FAST.slug: "baseline", CSP_FAST.plus(ADD_FA, MUL_PR).slug: "implicit knowledge"}
OPERATORS = {
    CSP_FAST.plus(ADD_FA).slug: "(a) addition",
    CSP_FAST.plus(MUL_FA).slug: "(b) multiplication",
    CSP_FAST.plus(CAT_FA).slug: "(c) concatenation",
}


RISE = (
    "Objectness can rise while boxes get better: its target where an object is, the overlap (CIoU) of the "
    "box predicted there, grows with them, and it starts near 0 everywhere, so that cells without an object "
    "cost nothing yet."
)
SHARED = (
    " Only epochs that both have are compared, so a row that goes on longer than its baseline is shown as "
    "far as that, and a fine-tuned one is there the run that it continues."
)
JUMP = (
    " The jump at fine-tuning is no loss of skill: these are losses of the augmented training images, and "
    "fine-tuning has harder ones (mosaics of nine, more scaling, mixup)."
)


@dataclass(frozen=True)
class Drawing:
    """A figure: `data` of a study gives the frame that `draw` draws.

    Both raise NothingToShow where there is nothing to show. `name` is that of its files. `draw` also takes
    `width`: "column" by default, or "page".
    """

    name: str
    title: str
    caption: str
    section: str
    data: Callable[[Study], pd.DataFrame]
    draw: Callable[..., Figure]

    @property
    def csv(self) -> str:
        """The file of its data, below a report or a published folder."""
        return f"figures/{self.name}.csv"


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
    rows = {table.name: [(row.label, row.slug) for row in table.rows] for table in tables}
    everywhere = [(f"{table}: {label}", slug) for table, own in rows.items() for label, slug in own]

    def own(drawing: Callable[[Study, Table], Drawing]) -> list[Drawing]:
        return [_named(study, rows[table.name], [drawing(study, table)])[0] for table in tables]

    return (
        *_named(study, everywhere, [_effects_by_row(study), *FINAL]),
        *own(_ap_differences),
        *_named(study, [("+ iPR", ADDED.slug)], FIGURE_9),
        *_named(study, [(label, slug) for slug, label in OPERATORS.items()], FIGURE_10),
        *_named(study, [(label, slug) for slug, label in CURVES_OF.items()], FIGURE_11),
        *own(_effects),
        *_named(study, everywhere, [*KNOWLEDGE, _anchor_sizes(study)]),
        *own(_losses),
        *(own(_val_loss_differences) if VAL_LOSS in study.metrics else ()),
        *_named(study, everywhere, TRAINING),
        *_named(study, everywhere, [_detections(study), COMPARED, _changed_images(study)]),
    )


def _named(study: Study, rows: Iterable[tuple[str, str | None]], drawn: Iterable[Drawing]) -> list[Drawing]:
    """Figures in which experiments, by slug, have the labels given, the first of each."""
    labels: dict[str, str] = {}
    for label, slug in rows:
        if slug is not None:
            labels.setdefault(slug, label)
    known = study.runs[study.runs["experiment"].isin(list(labels))]
    names = known["experiment"].map(labels).astype(str) + ", seed " + known["seed"].astype(str)
    runs = dict(zip(known["run"], names.where(~names.duplicated(keep=False), known["run"]), strict=True))

    def renaming(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        return lambda data, **options: draw(_renamed(data, labels, runs), **options)

    return [replace(each, draw=renaming(each.draw)) for each in drawn]


def _renamed(data: pd.DataFrame, labels: Mapping[str, str], runs: Mapping[str, str]) -> pd.DataFrame:
    """A frame with labels for slugs, in the order of the labels."""

    def label(name: object) -> object:
        slug, space, rest = str(name).partition(" ")
        return f"{labels[slug]}{space}{rest}" if slug in labels else name

    found = {column: data[column].map(label) for column in EXPERIMENTS if column in data}
    found |= {column: data[column].map(lambda run: runs.get(run, run)) for column in RUNS if column in data}
    renamed = data.assign(**found)
    ordered = next((column for column in ("series", "a") if column in data), None)
    if ordered is None:
        return renamed
    places = {slug: place for place, slug in enumerate(labels)}
    order = data[ordered].map(lambda name: places.get(str(name).partition(" ")[0], len(places)))
    return renamed.iloc[np.argsort(order.to_numpy(), kind="stable")]


def _effects_by_row(study: Study) -> Drawing:
    """The caption says which rows are not in the figure."""
    rows: dict[tuple[str | None, str | None], tuple[str, bool]] = {}
    for name, filled in study.filled.items():
        for cell, base in filled.variants:
            rows.setdefault((cell.experiment, base.slug), (f"{name}: {cell.row}", cell.delta is None))
    absent = [label for label, silent in rows.values() if silent]
    caption = (
        "Ours with the 95 % interval of the tables where there are several seeds, and the paper's. At a "
        "reduced profile only the signs can be compared."
    )
    if absent:
        named = some_of(absent, ABSENT, "; ")
        caption += f" Not drawn, for want of runs: {len(absent)} of {len(rows)} rows ({named})."
    if study.refused:
        caption += f" Not filled, so not drawn: Table {', '.join(study.refused)}."
    return Drawing(
        "effects-by-row",
        "Difference in AP of every row to its baseline",
        caption,
        SCORES,
        lambda of: scores.effects_by_row_data(list(of.filled.values())),
        scores.effects_by_row,
    )


FINAL = (
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
        "cost",
        "Time and speed of training",
        "A ring for each run: device minutes or hours of training, evaluation not counted, and images a "
        "second of all its processes together. A device is a GPU, or a process where there is none. Runs on "
        "one machine slow each other down, and other work on it counts as time.",
        CURVES,
        lambda study: curves.cost_data(study.metrics, study.runs),
        curves.cost,
    ),
    Drawing(
        "learning-rate",
        "Learning rate",
        "At the end of each epoch; the implicit vectors learn at the rate of the weights. The biases of the "
        "predictor may have another multiple of it (predictor_bias_rate), which is not drawn.",
        CURVES,
        lambda study: curves.learning_rate_data(study.metrics),
        curves.learning_rate,
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

FIGURE_9 = (
    Drawing(
        "figure-9",
        "Figure 9: what prediction refinement learned",
        "g(z) of + iPR after the predictor at the last epoch, a line for each pyramid level; 0 changes "
        "nothing.",
        PAPER,
        lambda study: implicit.learned_data(_only(study.implicit, [ADDED.slug], "2")),
        implicit.learned,
    ),
)
FIGURE_10 = (
    Drawing(
        "figure-10",
        "Figure 10: the operators, by what they do",
        "The paper's figure is a drawing of the three operators. Here is what each of them, before the "
        "predictor (FA), adds to the raw outputs (logits) for the mean feature of a level.",
        PAPER,
        lambda study: effects.dimensions_data(_only(study.effects, OPERATORS, "4")),
        implicit.learned,
    ),
)
FIGURE_11 = (
    Drawing(
        "figure-11",
        "Figure 11: losses with and without implicit knowledge",
        f"YOLOv4-CSP-fast, without and with + iFA and × iPR (Table 7). {RISE}",
        PAPER,
        lambda study: curves.losses_data(_only(study.metrics, CURVES_OF, "7", every=True)),
        curves.losses,
    ),
)


def _only(frame: pd.DataFrame, slugs: Collection[str], table: str, every: bool = False) -> pd.DataFrame:
    """The rows of some experiments, in their order.

    Raises NothingToShow where none of them has any; with `every`, where one of them has none.
    """
    found = frame[frame["experiment"].isin(list(slugs))]
    missing = [slug for slug in slugs if slug not in set(found["experiment"])]
    if missing and (every or found.empty):
        raise NothingToShow(
            f"It shows {some_of(list(slugs), 3)}, and of {some_of(missing, 3)} there is nothing yet: "
            f"launch Table {table}."
        )
    order = {slug: place for place, slug in enumerate(slugs)}
    return found.sort_values("experiment", key=lambda column: column.map(order), kind="stable")


def _evolution_data(study: Study) -> pd.DataFrame:
    """The effects of the first row with implicit knowledge, of every seed at every epoch."""
    known = set(study.effects["experiment"])
    shown = next((each.slug for each in study.experiments if each.slug in known), None)
    if shown is None:
        raise NothingToShow("No run with implicit knowledge has begun; Table 1 has some.")
    history = study.effects_over_epochs(shown)
    return implicit.evolution_data(history.assign(value=history["effect"]))


KNOWLEDGE = (
    Drawing(
        "evolution-by-seed",
        "How the effect came about, seed by seed",
        "Change of the effect on every raw output (logits) since the start, of the first row of the study "
        "that has implicit knowledge. Channels before a predictor have no common order; the outputs have.",
        IMPLICIT,
        _evolution_data,
        lambda data, **options: implicit.heat_map(data, "change of the effect (logits)", **options),
    ),
    Drawing(
        "distance-left",
        "When the representations settled",
        "How far a representation still is from its last value: 1 at the start, 0 at the end.",
        IMPLICIT,
        lambda study: implicit.settling_data(study.implicit_over_epochs),
        implicit.settling,
    ),
    Drawing(
        "effects-by-block",
        "Effect on boxes, objectness and classes",
        "Mean over anchors and seeds of what implicit knowledge adds to the raw outputs (logits), by pyramid "
        "level. Grey: the model has no such level, or the row adds nothing there.",
        IMPLICIT,
        lambda study: effects.blocks_data(study.effects),
        effects.blocks,
    ),
    Drawing(
        "effects-by-class",
        "Effect on the predictions by class",
        "Mean change of a class's logit, the rarest class first.",
        IMPLICIT,
        lambda study: effects.classes_data(study.effects, study.class_boxes, study.class_scores),
        effects.classes,
    ),
    Drawing(
        "similarity",
        "Similarity of the effects",
        "Mean cosine between what the seeds of two experiments do to the raw predictions; on the diagonal "
        "between the seeds of one. Grey: models with other outputs, and a single run.",
        IMPLICIT,
        lambda study: effects.similarity_data(study.effects),
        effects.similarity,
    ),
    Drawing(
        "agreement",
        "Does every seed learn the same?",
        "Cosines between the seeds of a row: of the learnt values g(z), of what they do to the raw outputs, "
        "and of that by kind of output. In the grey, seeds agree no better than shuffled dimensions; where "
        "the cross is as far, the row has learned what the others have too.",
        IMPLICIT,
        lambda study: agreement.reproducibility_data(study.implicit, study.effects),
        agreement.agreement,
    ),
    Drawing(
        "anchor-factors",
        "Is what is learned of the anchors what the data ask for?",
        "For every anchor and side: how much larger than the anchor the boxes are that training assigns to "
        "it, against what iPR does to the predicted side (open) and the predicted side itself (full), for "
        "the mean feature of a level, which is mostly background.",
        IMPLICIT,
        lambda study: agreement.anchor_factors_data(study.effects, study.outputs, study.boxes),
        agreement.anchors,
    ),
    Drawing(
        "components",
        "Principal components of the effects",
        "The effects of all runs in the plane of their first two components: where the seeds of a row lie.",
        IMPLICIT,
        lambda study: effects.components_data(study.effects),
        effects.components,
    ),
    Drawing(
        "centre-offsets",
        "Shift of the boxes' centres",
        "In pixels of the training size. That next to nothing moves is the result: of all raw outputs, those "
        "of the centre are changed least.",
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
    """Over the boxes that each row was trained on."""
    return Drawing(
        "anchor-sizes",
        "Predicted box sizes without and with a site",
        "What each anchor predicts for the mean feature of its level, without the site and with it, in "
        "pixels of the training size. The mean feature is mostly background, and a factor acts inside the "
        "sigmoid, so it cannot move a raw value of 0.",
        IMPLICIT,
        lambda study: effects.geometry_data(study.effects, study.outputs),
        lambda data, **options: effects.anchor_sizes(data, study.boxes, **options),
    )


def _phases(study: Study, table: Table) -> dict[int, str]:
    """The epochs with which later phases of the table's trainings begin, and what these are."""
    found: dict[int, str] = {}
    for each in table.experiments:
        phases = resolve(each, study.profile, study.overrides).train.phases
        for place, phase in enumerate(phases[1:], 1):
            kind = "fine-tuning" if phase.start_from_average else f"phase {place + 1}"
            start = sum(before.epochs for before in phases[:place]) + 1
            found[start] = f"{kind} on mosaics of {phase.augment.mosaic_images}"
    return dict(sorted(found.items()))


def _baselines(table: Table) -> dict[str, str]:
    """Slugs of the rows and of those that they are compared with in AP."""
    pairs = {row.slug: table.baseline(row, "AP").slug for row in table.rows if row.slug is not None}
    return {slug: base for slug, base in pairs.items() if base is not None}


def _ap_differences(study: Study, table: Table) -> Drawing:
    baselines, phases = _baselines(table), _phases(study, table)
    return Drawing(
        f"ap-differences-{table_anchor(table)}",
        f"Difference in AP over epochs, Table {table.name}",
        "AP of each row less that of its baseline, of the averaged weights on the validation images, paired "
        "by seed. After the last epoch of a baseline that has finished its last AP counts.",
        SCORES,
        lambda of: curves.ap_differences_data(
            of.metrics, baselines, set(of.runs.loc[of.runs["state"] == "done", "run"])
        ),
        lambda data, **options: curves.ap_differences(data, phases, **options),
    )


def _losses(study: Study, table: Table) -> Drawing:
    phases = _phases(study, table)
    slugs = [each.slug for each in table.experiments]
    return Drawing(
        f"losses-{table_anchor(table)}",
        f"Losses over epochs, Table {table.name}",
        f"Box, objectness and classification loss on the training images. {RISE}{JUMP if phases else ''}",
        CURVES,
        lambda of: curves.losses_data(of.metrics[of.metrics["experiment"].isin(slugs)]),
        lambda data, **options: curves.losses(data, phases, **options),
    )


def _val_loss_differences(study: Study, table: Table) -> Drawing:
    baselines, phases = _baselines(table), _phases(study, table)
    return Drawing(
        f"val-loss-differences-{table_anchor(table)}",
        f"Difference in validation loss over epochs, Table {table.name}",
        "Loss of the averaged weights on the validation images, relative to the row's baseline (%), with the "
        "95 % interval of the study's design. Above each panel the same of the mean over the epochs, in "
        "logarithms: the test of the claim of Fig. 11 that losses fall faster, which an interval below 0 "
        f"bears out, uncorrected for the number of rows.{SHARED if phases else ''}",
        CURVES,
        lambda of: curves.val_loss_differences_data(of.val_losses, baselines),
        lambda data, **options: curves.val_loss_differences(data, phases, **options),
    )


def _effects(study: Study, table: Table) -> Drawing:
    slugs = [each.slug for each in table.experiments]
    return Drawing(
        f"effects-{table_anchor(table)}",
        f"Effect on every raw output, Table {table.name}",
        "What implicit knowledge adds to the raw outputs (logits) at a level's mean feature, by "
        "dimension as in Fig. 9: for + iFA it is W a. Here seeds, operators and forms can be compared.",
        IMPLICIT,
        lambda of: effects.dimensions_data(of.effects[of.effects["experiment"].isin(slugs)]),
        implicit.learned,
    )


PAIR = (
    "A run of the row whose AP differs most (B), which may train for longer (Table 8), and the same seed of "
    "its baseline (A)"
)


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
        lambda data, **options: pictures.found(
            data, pictures.photographs(_shown_run(study), data["image"].unique()), **options
        ),
    )


def _changed_images(study: Study) -> Drawing:
    """With the photographs of the study's run."""
    return Drawing(
        "changed-images",
        "Where two runs differ: the images that changed most",
        f"{PAIR}: detections with a score of 0.3 or more, and the true boxes.",
        DIFFERENCES,
        _changed_data,
        lambda data, **options: pictures.changed(
            data, pictures.photographs(study.compared[0], data["image"].unique()), **options
        ),
    )
