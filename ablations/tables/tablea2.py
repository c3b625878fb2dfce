"""Table A2: large models with implicit knowledge (appendix A)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import Y4_P6, YOLOR_D6, YOLOR_E6, YOLOR_P6, YOLOR_W6
from ablations.table import DETECTION, Row, Table

V5 = "YOLOv5 release 5 with a fourth level"

TABLE = Table(
    name="A2",
    title="Large models with implicit knowledge",
    section="A",
    question="How do accuracy, size and speed of four-level models with implicit knowledge trade off?",
    hypothesis=(
        "With implicit knowledge wider and deeper models keep gaining AP, and no model of another family "
        "reaches the AP of any of them as fast."
    ),
    rows=(
        Row("YOLOR-P6", YOLOR_P6, "the light model of Table 8 with SiLU", against="YOLOR-P6"),
        Row("YOLOR-W6", YOLOR_W6, "wider", against="YOLOR-W6"),
        Row("YOLOR-E6", YOLOR_E6, "wider still, CSP down-sampling", against="YOLOR-E6"),
        Row("YOLOR-D6", YOLOR_D6, "as E6, deeper", against="YOLOR-D6"),
        Row("Y4-P6", Y4_P6, "ScaledYOLOv4-P6, no implicit knowledge", against="Y4-P6", fused=True),
        Row("U5R5-S6", None, f"{V5}, size s", against="U5R5-S6"),
        Row("U5R5-M6", None, f"{V5}, size m", against="U5R5-M6"),
        Row("U5R5-L6", None, f"{V5}, size l", against="U5R5-L6"),
        Row("U5R5-X6", None, f"{V5}, size x", against="U5R5-X6"),
    ),
    remarks=(
        "The paper mixes ways of counting: the YOLOR rows are not fused, P6 and W6 with the blocks of the "
        "authors' main branch, E6 and D6 with those of their paper branch; Y4-P6 is fused. Each row is "
        "counted here as the paper counted it.",
        "The printed GFLOPs are 4 times the figure at 640 px after that was rounded to one decimal, except "
        "for P6, whose figure at 1280 px is cut after one decimal. Ours are counted at 1280 px, with × iPR "
        "on P3 to P5 as in Table 7.",
        "YOLOR models train 300 + 125 + 25 epochs, the published schedule; for Y4-P6 it is 300 + 150 without "
        "9-mosaic, this project's reading of the recipe of ScaledYOLOv4.",
        "FPS are the paper's, on a Titan RTX at batch 32; `ablate speed` measures this machine.",
        "Rows that are quoted are other people's models; nothing here trains them.",
        "Every AP is a single run; comparable detectors vary by 0.2 to 0.3 AP from run to run.",
    ),
    metrics=("FPS", "GFLOPs", "parameters", *DETECTION),
    cells=Path(__file__).with_suffix(".csv"),
)
