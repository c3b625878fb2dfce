"""The catalogue's figures of implicit knowledge."""

from __future__ import annotations

import pandas as pd

from ablations.table import Table
from analysis import alignment, effects, geometry, implicit, projection, spectra
from analysis.drawing import IMPLICIT, Drawing, table_anchor
from analysis.study import Study

KNOWLEDGE: tuple[Drawing, ...] = (
    Drawing(
        "learned",
        "What prediction refinement learned",
        "g(z) behind the predictor after the last epoch, a line for each pyramid level (the paper's Fig. 9).",
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
        lambda study: geometry.geometry_data(study.effects, study.layouts),
        geometry.centre_offsets,
    ),
    Drawing(
        "projection",
        "Features along the learned direction",
        "Our reading of the paper's Fig. 3, which is a drawing: inner product of real features with the unit "
        "vector learned at FA (a, or g - 1), cells with an object against others. An AUC inside the brackets "
        "is no better than random vectors; adding a constant cannot change the effective dimension.",
        IMPLICIT,
        lambda study: projection.projection_data(study.features, study.implicit),
        projection.projection,
    ),
    Drawing(
        "alignment",
        "Alignment of the levels' predictions",
        "Our reading of the paper's Fig. 4, which is a drawing: raw predictions of anchors with an object, "
        "without and with implicit knowledge, in the plane of their first two principal components. The "
        "number is the mean distance between the levels' centroids over the spread inside levels.",
        IMPLICIT,
        lambda study: alignment.alignment_data(study.features),
        alignment.alignment,
    ),
    Drawing(
        "spectra",
        "Singular values of the matrices of wi and ic",
        "Relative to the largest, beside those of a random matrix: what the network form (W) and the "
        "factorisation (Z) have learned.",
        IMPLICIT,
        lambda study: spectra.spectra_data(study.spectra),
        spectra.spectra,
    ),
)


def anchor_sizes(study: Study) -> Drawing:
    """Over the boxes that the study was trained on."""
    return Drawing(
        "anchor-sizes",
        "Predicted box sizes without and with a site",
        "What each anchor predicts for the mean feature of its level, without the site and with it, in "
        "pixels of the training size. The mean feature is mostly background, and a factor acts inside the "
        "sigmoid, so it cannot move a raw value of 0.",
        IMPLICIT,
        lambda study: geometry.geometry_data(study.effects, study.layouts),
        lambda data: geometry.anchor_sizes(data, study.training_data),
    )


def of_table(table: Table) -> tuple[Drawing, ...]:
    """Figures with a panel for each row."""

    def effects_of(study: Study) -> pd.DataFrame:
        rows = {experiment.slug for experiment in table.experiments}
        return study.effects[study.effects["experiment"].isin(rows)]

    return (
        Drawing(
            f"effects-{table_anchor(table)}",
            f"Effect on every raw output, Table {table.name}",
            "What implicit knowledge adds to the raw outputs (logits) at a level's mean feature, by "
            "dimension as in Fig. 9: for + iFA it is W a. Here seeds, operators and forms can be compared.",
            IMPLICIT,
            lambda study: effects.dimensions_data(effects_of(study)),
            implicit.learned,
        ),
        Drawing(
            f"anchors-{table_anchor(table)}",
            f"Effect by anchor, Table {table.name}",
            "The same, as means over the outputs of a block.",
            IMPLICIT,
            lambda study: effects.anchors_data(effects_of(study)),
            effects.anchors,
        ),
    )
