"""Table 7: what implicit knowledge costs (section 5.7)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import ADD_FA, CSP_FAST, MUL_PR, P6_LIGHT
from ablations.table import Row, Table

TABLE = Table(
    name="7",
    title="Models with and without implicit knowledge",
    section="5.7",
    question="What do alignment and refinement together cost in parameters and operations?",
    hypothesis=(
        "Implicit knowledge is a constant at inference: less than one parameter and one operation in ten "
        "thousand buy a gain in AP and a faster fall of the losses (Fig. 11)."
    ),
    rows=(
        Row("baseline 1", CSP_FAST, "YOLOv4-CSP-fast at 640", 0, against="baseline 1"),
        Row("implicit 1", CSP_FAST.plus(ADD_FA, MUL_PR), "+ iFA and × iPR", 2_557, against="baseline 1"),
        Row("baseline 2", P6_LIGHT, "YOLOv4-P6-light at 1280", 0, against="baseline 2"),
        Row("implicit 2", P6_LIGHT.plus(ADD_FA, MUL_PR), "+ iFA and × iPR", 2_812, against="baseline 2"),
    ),
    remarks=(
        "Parameters and MFLOPs are those of the full-size models, unfused, whatever the profile.",
        "The MFLOPs of implicit 2 count × iPR on P3 to P5 only; with P6 it is 0.1020 more, likely an "
        "erratum.",
        "Folding the representations into the predictor (section 4.4) removes even these costs.",
        "Every AP is a single run; comparable detectors vary by 0.2 to 0.3 AP from run to run.",
    ),
    metrics=("AP", "parameters", "MFLOPs"),
    cells=Path(__file__).with_suffix(".csv"),
)
