"""The paper's training recipes, as far as they are known.

The paper names no hyper-parameter file. Its ablation baselines (47.8 AP for YOLOv4-CSP-fast, 48.0 for
YOLOv4-CSP) sit next to the 47.8 AP of ScaledYOLOv4-csp in its state of 2020-12, whose values are taken for
the CSP models; the P6 models use the released `hyp.scratch.1280`, and `hyp.finetune.1280` for fine-tuning.
The light models of Table A1 use the released `hyp.scratch.s`. The large models of Tables 9 and A2 follow the
published 300 + 150 epochs; ScaledYOLOv4's have no stretch of 9-mosaic.
"""

from __future__ import annotations

from yolor_core.config import (
    AugmentConfig,
    EvaluationConfig,
    ImplicitConfig,
    LossConfig,
    ModelConfig,
    NumericsConfig,
    OptimiserConfig,
    PhaseConfig,
    Science,
    TrainConfig,
)

SCRATCH_EPOCHS = 300  # section 5.1
TOTAL_EPOCHS = 450  # section 5.8: 150 more of fine-tuning

CSP_AUGMENT = AugmentConfig(translate=0.0, scale=0.5)  # ScaledYOLOv4-csp, 2020-12
LIGHT_AUGMENT = AugmentConfig(translate=0.1, scale=0.5)  # hyp.scratch.s
P6_AUGMENT = AugmentConfig(translate=0.5, scale=0.5)  # hyp.scratch.1280
FINETUNE_AUGMENT = AugmentConfig(translate=0.5, scale=0.8, mixup=0.2)  # hyp.finetune.1280
FINETUNE_NINE = FINETUNE_AUGMENT.model_copy(update={"mosaic_images": 9})  # the authors' tune.py

SCRATCH_CSP = (PhaseConfig(epochs=SCRATCH_EPOCHS, schedule_epochs=SCRATCH_EPOCHS, augment=CSP_AUGMENT),)
SCRATCH_LIGHT = (PhaseConfig(epochs=SCRATCH_EPOCHS, schedule_epochs=SCRATCH_EPOCHS, augment=LIGHT_AUGMENT),)
SCRATCH_P6 = (PhaseConfig(epochs=SCRATCH_EPOCHS, schedule_epochs=SCRATCH_EPOCHS, augment=P6_AUGMENT),)

# 125 epochs of 9-mosaic, then 25 of 4-mosaic, on a cosine stretched to 450 epochs; each starts from the
# averaged weights of the stretch before, because that is what the published commands load.
FINETUNE = (
    PhaseConfig(epochs=125, schedule_epochs=TOTAL_EPOCHS, augment=FINETUNE_NINE, start_from_average=True),
    PhaseConfig(epochs=25, schedule_epochs=TOTAL_EPOCHS, augment=FINETUNE_AUGMENT, start_from_average=True),
)

YOLOR = OptimiserConfig()  # warm-up of the momentum from 0.8
SCALED_YOLOV4 = OptimiserConfig(warmup_momentum=0.9)  # its loops of 2020-12 begin at 0.9
PUBLISHED_LOSS = LossConfig(images_per_mean=8)  # 64 images on 8 GPUs, each averaging over its own
PUBLISHED_NUMERICS = NumericsConfig(precision="float16")  # automatic mixed precision with gradient scaling

YOLOR_LARGE = (*SCRATCH_P6, *FINETUNE)
SCALED_LARGE = (
    *SCRATCH_P6,
    PhaseConfig(epochs=150, schedule_epochs=TOTAL_EPOCHS, augment=FINETUNE_AUGMENT, start_from_average=True),
)


def paper_science(
    architecture: str,
    size: int,
    phases: tuple[PhaseConfig, ...],
    *implicit: ImplicitConfig,
    optimiser: OptimiserConfig = YOLOR,
) -> Science:
    """An experiment at the paper's scale: full model, batch 64, trained and tested at `size` pixels."""
    return Science(
        profile="paper",
        model=ModelConfig(architecture=architecture, implicit=implicit),
        train=TrainConfig(size=size, batch=64, phases=phases, optimiser=optimiser, loss=PUBLISHED_LOSS),
        evaluation=EvaluationConfig(size=size),
        numerics=PUBLISHED_NUMERICS,
    )
