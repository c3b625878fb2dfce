"""Table 9: comparison with the state of the art (section 5.8)."""

from __future__ import annotations

from pathlib import Path

from ablations.experiments import Y4_P7, YOLOR_D6
from ablations.table import Row, Table

TABLE = Table(
    name="9",
    title="Comparison with the state of the art",
    section="5.8",
    question="How does a large detector with implicit knowledge compare with others, in AP and in speed?",
    hypothesis=(
        "Implicit knowledge lets a large model reach the accuracy of ScaledYOLOv4 at about twice its speed, "
        "without additional training data or annotations."
    ),
    rows=(
        Row("YOLOR (ours)", YOLOR_D6, "YOLOR-D6 at 1280 px", against="YOLOR (ours)"),
        Row("ScaledYOLOv4", Y4_P7, "YOLOv4-P7 at 1536 px", against="ScaledYOLOv4"),
        Row("EfficientDet", None, "with pre-training", against="EfficientDet"),
        Row("SwinTransformer", None, "with pre-training and masks for training", against="SwinTransformer"),
        Row("CenterNet2", None, "with pre-training and additional images", against="CenterNet2"),
        Row("CopyPaste", None, "with pre-training, masks and additional images", against="CopyPaste"),
    ),
    remarks=(
        "The paper names neither model; both are inferred. The authors' list of models has the second row's "
        "AP and speed beside YOLOv4-P7. For the first row only the speed and the 55.4 AP that Table A2 gives "
        "YOLOR-D6 agree: the list itself has newer figures for that model.",
        "FPS are the paper's, on a V100, one image at a time; `ablate speed` measures this machine.",
        "Rows that are quoted are other people's models; nothing here trains them.",
    ),
    notes=(
        "The paper's cells are measured on COCO test-dev, whose annotations are not public; ours on "
        "validation images.",
    ),
    metrics=("AP", "AP50", "AP75", "FPS"),
    cells=Path(__file__).with_suffix(".csv"),
)
