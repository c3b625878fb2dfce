"""The catalogue's figures of implicit knowledge."""

from __future__ import annotations

import pandas as pd

from analysis import effects, geometry, implicit, spectra
from analysis.drawing import IMPLICIT, Drawing
from analysis.nothing import NothingToShow
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
        lambda study: implicit.evolution_data(_first_history(study)),
        implicit.heat_map,
    ),
    Drawing(
        "trajectories",
        "The values that moved most",
        "Of the same run, over its epochs.",
        IMPLICIT,
        lambda study: implicit.evolution_data(_first_history(study)),
        implicit.trajectories,
    ),
    Drawing(
        "effects-by-anchor",
        "Effect on the predictions by anchor",
        "Mean change of an anchor's raw outputs (logits) by implicit knowledge, at a level's mean feature.",
        IMPLICIT,
        lambda study: effects.anchors_data(study.effects),
        effects.anchors,
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
        "anchor-sizes",
        "Size of the anchors before and after",
        "In pixels of the training size, with the change in percent.",
        IMPLICIT,
        lambda study: geometry.geometry_data(study.effects, study.layouts),
        geometry.anchor_sizes,
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


def _first_history(study: Study) -> pd.DataFrame:
    if study.implicit.empty:
        raise NothingToShow("No run with implicit knowledge has begun; Table 1 has some.")
    return study.history(str(study.implicit["run"].iloc[0]))
