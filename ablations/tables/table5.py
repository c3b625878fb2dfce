"""Table 5: operators with a physical meaning (section 5.5)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import CSP_FAST, MUL_FA_CLUSTER, MUL_PR_WH
from ablations.table import Row, Table

TABLE = Table(
    name="5",
    title="Operators with a physical meaning",
    section="5.5",
    question="Does multiplication help where a scale has a meaning?",
    hypothesis=(
        "Multiplying all features of a level mixes what belongs to different anchors: given one vector per "
        "anchor cluster, alignment by multiplication should work after all. Multiplying only width and "
        "height is a search for the size of the anchors, which is what a scale on the prediction means."
    ),
    rows=(
        Row("baseline", CSP_FAST, "YOLOv4-CSP-fast without implicit knowledge", 0),
        Row(
            "× iFA*", CSP_FAST.plus(MUL_FA_CLUSTER), "a vector per anchor multiplied onto the features", 5_376
        ),
        Row(
            "× iPR*", CSP_FAST.plus(MUL_PR_WH), "two numbers per anchor multiplied onto width and height", 18
        ),
    ),
    remarks=(
        "× iFA* is below the baseline in AP75; × iPR* has no gain in AP75 and APS and loses 0.1 in APL.",
        "Neither row has a published implementation; both are this project's reading of the text.",
        "Every cell is a single run; comparable detectors vary by 0.2 to 0.3 AP from run to run.",
    ),
    cells=Path(__file__).with_suffix(".csv"),
)
