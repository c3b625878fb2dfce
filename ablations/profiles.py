"""Profiles: the same experiment at another scale. They never change what is compared.

Every number a profile decides is in `PROFILES`; `Scale.apply` is the only code that uses them, and it treats
all experiments alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ablations.experiments import SCRATCH_EPOCHS
from yolor_core.config import CocoConfig, DataConfig, Execution, PhaseConfig, Science, ShapesConfig
from yolor_core.errors import UnknownNameError

NOT_COMPARABLE = "reduced profile: not comparable with the paper's numbers in absolute terms"


@dataclass(frozen=True)
class Scale:
    """How far an experiment is scaled down. The defaults leave it as it is.

    `epochs` is the length of the first phase (300 in the paper); later phases follow in proportion.
    `sizes` maps the paper's image sizes (pixels) to the profile's; anchors are scaled with the image, and by
    `anchors` where the data have larger objects than COCO.
    """

    width: float = 1.0
    depth: float = 1.0
    sizes: Mapping[int, int] = field(default_factory=dict)
    anchors: float = 1.0
    epochs: int = SCRATCH_EPOCHS
    batch: int | None = None
    keep_one_in: int = 1
    optimiser: Mapping[str, float] = field(default_factory=dict)  # fields of OptimiserConfig
    loss: Mapping[str, float] = field(default_factory=dict)  # fields of LossConfig
    tasks: Mapping[str, float] = field(default_factory=dict)  # fields of TasksConfig
    evaluation: Mapping[str, object] = field(default_factory=dict)  # fields of EvaluationConfig
    numerics: Mapping[str, object] = field(default_factory=dict)  # fields of NumericsConfig

    def apply(self, science: Science, profile: str) -> Science:
        """`science` at the paper's scale -> the same at this scale, validated."""
        model, train, evaluation = science.model, science.train, science.evaluation
        size = self.size(train.size)
        scaled = science.model_copy(
            update={
                "profile": profile,
                "model": model.model_copy(
                    update={
                        "width": model.width * self.width,
                        "depth": model.depth * self.depth,
                        "anchor_scale": model.anchor_scale * self.anchors * size / train.size,
                    }
                ),
                "train": train.model_copy(
                    update={
                        "size": size,
                        "batch": self.batch or train.batch,
                        "keep_one_in": train.keep_one_in * self.keep_one_in,
                        "phases": rescale(train.phases, self.epochs, SCRATCH_EPOCHS),
                        "optimiser": train.optimiser.model_copy(update=dict(self.optimiser)),
                        "loss": train.loss.model_copy(update=dict(self.loss)),
                        "tasks": train.tasks.model_copy(update=dict(self.tasks)),
                    }
                ),
                "evaluation": evaluation.model_copy(
                    update={"size": self.size(evaluation.size), **self.evaluation}
                ),
                "numerics": science.numerics.model_copy(update=dict(self.numerics)),
            }
        )
        return Science.model_validate(scaled.model_dump())

    def size(self, pixels: int) -> int:
        """Image size at this scale: as listed, or by the ratio of the nearest listed size, in steps of 64."""
        if not self.sizes or pixels in self.sizes:
            return self.sizes.get(pixels, pixels)
        nearest = min(self.sizes, key=lambda known: abs(known - pixels))
        return max(64, round(pixels * self.sizes[nearest] / nearest / 64) * 64)


def rescale(phases: tuple[PhaseConfig, ...], epochs: int, paper_epochs: int) -> tuple[PhaseConfig, ...]:
    """Shorten phases by epochs / paper_epochs, each to at least one epoch.

    A schedule that ends with a phase goes on ending with it, so 300, 450, 450 keep their meaning.
    """
    if epochs == paper_epochs:
        return phases
    fraction = epochs / paper_epochs
    ends: dict[int, int] = {}  # paper's last epoch of a phase -> the scaled one
    scaled, before, after = [], 0, 0
    for phase in phases:
        length = max(1, round(phase.epochs * fraction))
        before, after = before + phase.epochs, after + length
        ends[before] = after
        scaled.append((phase, length, after))
    return tuple(
        phase.model_copy(
            update={
                "epochs": length,
                "schedule_epochs": max(
                    end, ends.get(phase.schedule_epochs, round(phase.schedule_epochs * fraction))
                ),
            }
        )
        for phase, length, end in scaled
    )


@dataclass(frozen=True)
class Profile:
    """A scale, the data it trains on, how the machine is used, and what a caption has to say about it."""

    name: str
    summary: str
    scale: Scale
    data: DataConfig
    execution: Execution
    caveat: str = NOT_COMPARABLE
    meaningful: bool = True  # whether its numbers say anything; else figures are marked


ON_A_CPU = {"precision": "float32"}

# The folder of COCO is the user's: `--data PATH`, or a link at this place.
COCO = CocoConfig(root="data/coco")

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            "a minute for all rows: shows that the path works, the numbers mean nothing",
            Scale(
                width=0.0625,
                depth=0.33,
                sizes={640: 64, 1280: 64, 1536: 128},  # whole cells of P7 need 128
                epochs=1,
                batch=8,
                optimiser={"nominal_batch": 8, "warmup_min_iterations": 1, "ema_updates": 1.0},
                loss={"images_per_mean": 0},
                numerics=ON_A_CPU,
            ),
            ShapesConfig(train_images=16, val_images=8, size=64),
            Execution(threads=1),
            meaningful=False,
        ),
        Profile(
            "mini",
            "built-in synthetic shapes, scaled-down models, minutes on a laptop's processor",
            Scale(
                width=0.125,
                depth=0.33,
                sizes={640: 128, 1280: 192, 1536: 256},
                # Against COCO's, the shapes are twice as large in their image.
                anchors=2.0,
                epochs=24,
                # Small batches, because 15,000 images are all that a few minutes allow: 1,900 updates of 8.
                batch=8,
                optimiser={
                    "nominal_batch": 8,
                    # The loss is multiplied by the batch, 8 instead of 64, which 0.03 makes up for in part.
                    "lr0": 0.03,
                    # Ends calm and averages 500 steps: runs that differ by chance end nearer to each other.
                    "lrf": 0.02,
                    "ema_decay": 0.998,
                    "warmup_min_iterations": 120,
                    # Against the paper's 550,000 updates: the average must follow sooner.
                    "ema_updates": 50.0,
                },
                # Maps of 336 cells have as many objects as those of 8,400, so with the recipe's gains
                # objectness outweighs boxes twelve times, and boxes learn too late. The gain of classes
                # is scaled by classes / 80: 4 leaves the 5 shapes 0.25.
                loss={"box": 0.2, "objectness": 0.25, "classification": 4.0, "images_per_mean": 0},
                # The defaults cost detection 17 and 15 AP (pilot runs of version 0.1.0); with twice these,
                # and a loss of detection that was twice as large, it lost 4.5 and 5.
                tasks={"classification": 0.05, "embedding": 0.005},
                # A stride of grey around 128 pixels is a third of the work. Of 300 detections an image those
                # below 0.01 are two of three, and worth 0.02 AP.
                evaluation={"pad": 0.0, "confidence": 0.01, "max_detections": 100},
                numerics=ON_A_CPU,
            ),
            ShapesConfig(train_images=640, val_images=500, size=128),
            Execution(threads=1, cache_images=True, evaluate_every=6, checkpoint_every=2),
        ),
        Profile(
            "small",
            "a quarter of COCO train2017, half the width and image size, 36 epochs, several runs on one GPU",
            Scale(
                width=0.5,
                sizes={640: 320, 1280: 640, 1536: 768},
                epochs=36,
                # The batch is the paper's 64: half the channels and a quarter of the pixels need the
                # memory of the 8 that each of its GPUs had. So learning rate, decay and means stay too.
                keep_one_in=4,
                # 16,600 updates against the paper's 550,000: the average follows sooner, and looks back on
                # about the last twentieth of the run.
                optimiser={"ema_updates": 400.0, "ema_decay": 0.999},
            ),
            COCO,
            Execution(workers=4, evaluate_every=6),
        ),
        Profile(
            "proxy",
            "a quarter of COCO train2017, full models, 30 epochs on one GPU",
            Scale(epochs=30, batch=16, keep_one_in=4, loss={"images_per_mean": 0}),  # one GPU: one mean
            COCO,
            Execution(workers=8, evaluate_every=5),
        ),
        Profile(
            "paper",
            "COCO train2017, full models, 300 (+150) epochs, total batch 64",
            Scale(),
            COCO,
            Execution(workers=8, evaluate_every=10),
            caveat="the paper's scale",
        ),
    )
}


def profile_named(name: str) -> Profile:
    """The profile of that name. Raises UnknownNameError listing the others."""
    if name not in PROFILES:
        raise UnknownNameError("profile", name, PROFILES)
    return PROFILES[name]
