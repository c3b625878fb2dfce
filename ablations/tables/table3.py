"""Table 3: joint learning of several tasks (section 5.4)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import ADD_FA, CLASSIFICATION, CSP, EMBEDDING
from ablations.table import CLASSIFICATION as CLASSIFICATION_SCORES
from ablations.table import DETECTION, Row, Table
from ablations.table import EMBEDDING as EMBEDDING_SCORES

TABLE = Table(
    name="3",
    title="Multi-task joint learning",
    section="5.4",
    question="Does an implicit representation per task repair what sharing one representation costs?",
    hypothesis=(
        "Tasks trained together on one representation disturb each other. A learnt vector in front of each "
        "task's branch lets every task select its own features from the shared ones, and detection recovers "
        "or gains."
    ),
    rows=(
        Row("baseline", CSP, "YOLOv4-CSP, detection alone", 0),
        Row("JDC", CSP.joint(CLASSIFICATION, "jdc"), "with multi-label image classification", 82_000),
        Row(
            "+ iJDC",
            CSP.joint_implicit(CLASSIFICATION, ADD_FA, "jdc"),
            "JDC with a vector added in front of each task's predictor",
            2_816,
            against="JDC",
        ),
        Row(
            "JDE",
            CSP.joint(EMBEDDING, "jde"),
            "with feature embedding of object identities; a classifier of them in training is not counted",
            4_130_304,
        ),
        Row(
            "+ iJDE",
            CSP.joint_implicit(EMBEDDING, ADD_FA, "jde"),
            "JDE with a vector added in front of each task's predictor",
            2_688,
            against="JDE",
        ),
    ),
    remarks=(
        "Differences of the implicit rows are against JDC and JDE, which they change in the implicit part "
        "alone.",
        "The text says that + iJDC surpasses the single-task model; it does in AP, AP50 and APS only.",
        "The text says that + iJDE surpasses JDE in all indices; APS ties at 30.7.",
        "No working head of either task was published; how they are built is this project's reading "
        "(docs/tasks.md).",
        "The paper scores detection alone. The other tasks' scores are printed beside it because a gain of "
        "detection says little when it is paid for by the other task; Table 3x compares each with the task "
        "alone.",
        "Every cell is a single run; comparable detectors vary by 0.2 to 0.3 AP from run to run.",
    ),
    metrics=(*DETECTION, *CLASSIFICATION_SCORES, *EMBEDDING_SCORES),
    cells=Path(__file__).with_suffix(".csv"),
)
