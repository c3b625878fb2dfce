"""Table A1: implicit knowledge in light models (appendix A)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import ADD_FA, MUL_PR, U5R5_S, Y4_SSS, Y4_SSSS
from ablations.table import DETECTION, Row, Table

TABLE = Table(
    name="A1",
    title="Light models with implicit knowledge",
    section="A",
    question="Does implicit knowledge help models of a few million parameters, and what does it cost them?",
    hypothesis=(
        "Aligned features and refined predictions are worth half a point of AP in light models too, at less "
        "than one parameter in a thousand and a few images per second."
    ),
    rows=(
        Row("Y4-SSS", Y4_SSS, "half-width YOLOv4-CSP behind two rearrangements", 0, "Y4-SSS", fused=True),
        Row("Y4-SSS, YOLOR", Y4_SSS.plus(ADD_FA, MUL_PR), "+ iFA and × iPR", 1_661, "Y4-SSS", fused=True),
        Row("Y4-SSSS", Y4_SSSS, "the same behind three rearrangements", 0, "Y4-SSSS", fused=True),
        Row("Y4-SSSS, YOLOR", Y4_SSSS.plus(ADD_FA, MUL_PR), "+ iFA and × iPR", 1_661, "Y4-SSSS", fused=True),
        Row("U5R5-S", U5R5_S, "YOLOv5 release 5, size s", 0, "U5R5-S", fused=True),
        Row("U5R5-S, YOLOR", U5R5_S.plus(ADD_FA, MUL_PR), "+ iFA and × iPR", 1_661, "U5R5-S", fused=True),
    ),
    remarks=(
        "Parameters and GFLOPs are counted with BatchNorm merged into the convolutions: only so do the "
        "parameters, and the GFLOPs of U5R5-S, round to what is printed.",
        "Whether the printed models start with wavelets or with rearranged pixels cannot be told from these "
        "counts, both are free of parameters; these runs rearrange pixels.",
        "The recipe is the released one for light models (translate 0.1, scale 0.5), for U5R5-S too; the "
        "paper names none.",
        "With implicit knowledge U5R5-S loses APS in the paper, every other cell of the pairs gains.",
        "FPS are the paper's, on a Titan RTX at batch 32; `ablate speed` measures this machine.",
        "Every AP is a single run; comparable detectors vary by 0.2 to 0.3 AP from run to run.",
    ),
    metrics=("FPS", "GFLOPs", "parameters", *DETECTION),
    cells=Path(__file__).with_suffix(".csv"),
)
