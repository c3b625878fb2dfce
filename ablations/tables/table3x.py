"""Table 3, extended: every task's own score, the tasks alone, and the Markov chain (sections 4.2 and 5.4)."""

from __future__ import annotations

from ablations.experiments import ADD_FA, ADD_FA_MARKOV, CLASSIFICATION, CSP, EMBEDDING
from ablations.table import CLASSIFICATION as CLASSIFICATION_SCORES
from ablations.table import CONFLICT, Row, Table
from ablations.table import EMBEDDING as EMBEDDING_SCORES
from ablations.tables.table3 import TABLE as TABLE3
from yolor_core.config import BranchConfig


def with_vector(branch: BranchConfig) -> BranchConfig:
    """The branch with a vector of its own in front of its predictor."""
    return branch.model_copy(update={"implicit": ADD_FA})


TABLE = Table(
    name="3x",
    title="Multi-task joint learning, every task's score",
    section="5.4",
    question="Does joint training hurt each task, and does an implicit representation per task heal it?",
    hypothesis=(
        "Gradients of different tasks on one trunk oppose each other, so every task scores less than it does "
        "alone on the same trunk. A representation of its own in front of each predictor takes part of the "
        "conflict away; a Markov chain (section 4.2) lets the representations share what is common to them."
    ),
    rows=(
        Row("baseline", CSP, "YOLOv4-CSP, detection alone", 0),
        Row("C alone", CSP.alone(CLASSIFICATION), "multi-label image classification alone"),
        Row(
            "C alone + i",
            CSP.alone(with_vector(CLASSIFICATION)),
            "C alone with a vector added in front of its predictor",
            1_024,
            against="C alone",
        ),
        Row("E alone", CSP.alone(EMBEDDING), "feature embedding alone"),
        Row(
            "E alone + i",
            CSP.alone(with_vector(EMBEDDING)),
            "E alone with a vector added in front of its predictor, one per level",
            896,
            against="E alone",
        ),
        Row(
            "JDC",
            CSP.joint(CLASSIFICATION, "jdc"),
            "detection with multi-label image classification",
            82_000,
            against=("baseline", "C alone"),
        ),
        Row(
            "+ iJDC",
            CSP.joint_implicit(CLASSIFICATION, ADD_FA, "jdc"),
            "JDC with a vector added in front of each task's predictor",
            2_816,
            against="JDC",
        ),
        Row(
            "+ iJDC Markov",
            CSP.joint_implicit(CLASSIFICATION, ADD_FA, "jdc", further=ADD_FA_MARKOV),
            "as + iJDC, with classification's vector following from detection's, z' = A z + b",
            1_048_576,
            against="+ iJDC",
        ),
        Row(
            "JDE",
            CSP.joint(EMBEDDING, "jde"),
            "detection with feature embedding of object identities",
            4_130_304,
            against=("baseline", "E alone"),
        ),
        Row(
            "+ iJDE",
            CSP.joint_implicit(EMBEDDING, ADD_FA, "jde"),
            "JDE with a vector added in front of each task's predictor",
            2_688,
            against="JDE",
        ),
        Row(
            "+ iJDE Markov",
            CSP.joint_implicit(EMBEDDING, ADD_FA, "jde", further=ADD_FA_MARKOV),
            "as + iJDE, with embedding's vectors following from detection's, z' = A z + b",
            688_128,
            against="+ iJDE",
        ),
    ),
    remarks=(
        "C is classification, E is embedding. Each score of JDC and of JDE is compared with the model that "
        "has its task alone, each score of an implicit row with the same tasks without implicit knowledge, "
        "and the Markov rows with the vectors that they replace.",
        "The paper prints the detection of five of these rows and no score of another task; the controls, "
        "the other scores and the Markov rows are this project's.",
        "In front of a linear predictor without padding a vector is no more than a bias: what the + i rows "
        "show of a task alone is optimisation, and only what a joint row gains beyond it is about sharing.",
    ),
    metrics=("AP", "AP50", *CLASSIFICATION_SCORES, *EMBEDDING_SCORES, *CONFLICT),
    cells=TABLE3.cells,
    extends="3",
)
