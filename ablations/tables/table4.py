"""Table 4: the operators (section 5.5)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import ADD_FA, ADD_PR, CAT_FA, CSP_FAST, MUL_FA, MUL_PR
from ablations.table import Row, Table

TABLE = Table(
    name="4",
    title="Operators",
    section="5.5",
    question="How should explicit and implicit knowledge be combined: add, multiply or concatenate?",
    hypothesis=(
        "The operator should fit the meaning. Alignment of features is a shift, so addition and "
        "concatenation suit it and scaling harms it; refinement of anchors is a scale, so multiplication "
        "suits the prediction best."
    ),
    rows=(
        Row("baseline", CSP_FAST, "YOLOv4-CSP-fast without implicit knowledge", 0),
        Row("+ iFA", CSP_FAST.plus(ADD_FA), "a vector added to the features", 1_792),
        Row("× iFA", CSP_FAST.plus(MUL_FA), "a vector multiplied onto the features", 1_792),
        Row(
            "⊕ iFA",
            CSP_FAST.plus(CAT_FA),
            "a vector concatenated to the features; the predictor widens",
            458_752,
        ),
        Row("+ iPR", CSP_FAST.plus(ADD_PR), "a vector added to the prediction", 765),
        Row("× iPR", CSP_FAST.plus(MUL_PR), "a vector multiplied onto the prediction", 765),
    ),
    remarks=(
        "Concatenation to the prediction is left out, as in the paper: it would change the size of the "
        "output.",
        "× iFA is below the baseline in every column but APL; × iPR, best in AP, is below it in APS and APL.",
        "Every cell is a single run; comparable detectors vary by 0.2 to 0.3 AP from run to run.",
    ),
    cells=Path(__file__).with_suffix(".csv"),
)
