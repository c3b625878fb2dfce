"""Table 8: the benefit in a large model, and of fine-tuning it (section 5.8)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import ADD_FA, MUL_PR, P6_LIGHT
from ablations.table import Row, Table

IMPLICIT = P6_LIGHT.plus(ADD_FA, MUL_PR)

TABLE = Table(
    name="8",
    title="Benefit from implicit knowledge",
    section="5.8",
    question="Does implicit knowledge help a four-level model at 1280 pixels, and does fine-tuning add?",
    hypothesis=(
        "With implicit knowledge the model converges better, at every object size; 150 more epochs on a "
        "re-stretched schedule, most of them on mosaics of nine images, add as much again."
    ),
    rows=(
        Row("baseline", P6_LIGHT, "YOLOv4-P6-light without implicit knowledge", 0),
        Row("implicit", IMPLICIT, "+ iFA and × iPR", 2_812),
        Row(
            "fine-tuned implicit", IMPLICIT.finetuned(), "125 epochs of 9-mosaic, 25 of 4-mosaic more", 2_812
        ),
    ),
    remarks=(
        "There is no fine-tuned baseline: what 150 more epochs alone would bring is not known.",
        "The fine-tuned row continues the checkpoint of the implicit row, so it costs 150 epochs, not 450.",
        "Every cell is a single run; comparable detectors vary by 0.2 to 0.3 AP from run to run.",
    ),
    cells=Path(__file__).with_suffix(".csv"),
)
