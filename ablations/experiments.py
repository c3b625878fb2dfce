"""An experiment: one training at the paper's scale, with a name.

Tables are written in terms of a baseline and what is added to it, as in the paper::

    CSP_FAST.plus(ADD_FA)                # + iFA
    P6_LIGHT.plus(ADD_FA, MUL_PR).finetuned()

Names are derived from what is added (`csp-fast.add-fa`), so the same experiment in two tables is one run.

The recipes as far as they are known. The paper names no hyper-parameter file. Its ablation baselines (47.8
AP for YOLOv4-CSP-fast, 48.0 for YOLOv4-CSP) sit next to the 47.8 AP of ScaledYOLOv4-csp in its state of
2020-12, whose values are taken for the CSP models; the P6 models use the released `hyp.scratch.1280`, and
`hyp.finetune.1280` for fine-tuning. The light models of Table A1 use the released `hyp.scratch.s`. The
large models of Tables 9 and A2 follow the published 300 + 150 epochs; ScaledYOLOv4's have no stretch of
9-mosaic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from yolor_core.config import (
    AugmentConfig,
    BranchConfig,
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
from yolor_core.errors import ConfigError
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES

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


SLUG = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")


@dataclass(frozen=True)
class Experiment:
    """One training.

    `science` is at the paper's scale; profiles scale it down. `continues` names the experiment whose
    finished phases this one starts with: it trains only the phases that come after them.
    Raises ConfigError for a slug that is not lower-case ASCII words joined by `-` and `.`.
    """

    slug: str
    title: str
    science: Science
    continues: str | None = None

    def __post_init__(self) -> None:
        if not SLUG.fullmatch(self.slug):
            raise ConfigError(
                f"experiment slug {self.slug!r}: allowed are lower-case ASCII letters and digits, "
                "joined by single '-' or '.'"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks it trains, as "detection" and "embedding"."""
        return self.science.model.tasks

    def plus(self, *parts: ImplicitConfig) -> Experiment:
        """This experiment with implicit knowledge added to the detector."""
        model = self.science.model
        return replace(
            self,
            slug=".".join([self.slug, *map(part_slug, parts)]),
            title=f"{self.title}, {', '.join(map(part_title, parts))}",
            science=self._with_model(model.model_copy(update={"implicit": (*model.implicit, *parts)})),
        )

    def named(self, slug: str, title: str | None = None) -> Experiment:
        """This experiment under another name; for options that the derived slug does not show."""
        return replace(self, slug=slug, title=title or self.title)

    def joint(self, branch: BranchConfig, name: str) -> Experiment:
        """This experiment trained jointly with a further task (section 5.4); `name` joins the slug."""
        model = self.science.model
        return replace(
            self,
            slug=f"{self.slug}.{name}",
            title=f"{self.title}, {branch.task} trained jointly",
            science=self._with_model(model.model_copy(update={"branches": (*model.branches, branch)})),
        )

    def joint_implicit(
        self, branch: BranchConfig, part: ImplicitConfig, name: str, further: ImplicitConfig | None = None
    ) -> Experiment:
        """As `joint`, with an implicit representation for each task branch, the detection branch included.

        `part` is that of every branch, or of detection alone where `further` is given for the others. What
        detection or an earlier branch has already stays.
        """
        further = further or part
        model = self.science.model
        branches = tuple(
            each if each.implicit is not None else each.model_copy(update={"implicit": further})
            for each in (*model.branches, branch.model_copy(update={"implicit": None}))
        )
        joint = self.joint(branch, name)
        return replace(
            joint,
            slug=f"{joint.slug}.{implicit_slug(further)}",
            title=f"{joint.title}, implicit representation per task",
            science=self._with_model(
                model.model_copy(update={"implicit": (*model.implicit, part), "branches": branches})
            ),
        )

    def alone(self, branch: BranchConfig) -> Experiment:
        """The trunk of this experiment with one task in place of detection: the control of a joint row.

        The slug ends with the task, and with `implicit` where the branch has a representation of its own.
        """
        slug = f"{self.slug}.{branch.task}-alone"
        title = f"{self.title}, {branch.task} alone"
        if branch.implicit is not None:
            slug, title = f"{slug}.{implicit_slug(branch.implicit)}", f"{title}, implicit representation"
        changed = {"detection": False, "implicit": (), "branches": (branch,)}
        science = self._with_model(self.science.model.model_copy(update=changed))
        return replace(self, slug=slug, title=title, science=science)

    def with_faster_bias(self, rate: float) -> Experiment:
        """This experiment with `predictor_bias_rate`: the control of + iPR, which needs no knowledge."""
        train = self.science.train
        optimiser = train.optimiser.model_copy(update={"predictor_bias_rate": rate})
        changed = {"train": train.model_copy(update={"optimiser": optimiser})}
        return replace(
            self,
            slug=f"{self.slug}.faster-bias",
            title=f"{self.title}, predictor bias at {rate:g} times its rate",
            science=checked(self.science.model_copy(update=changed)),
        )

    def with_kmeans_anchors(self) -> Experiment:
        """This experiment with anchors by k-means on the training boxes: what x iPR could learn at best."""
        model = self.science.model.model_copy(update={"anchors": "kmeans"})
        slug, title = f"{self.slug}.kmeans-anchors", f"{self.title}, anchors by k-means"
        return replace(self, slug=slug, title=title, science=self._with_model(model))

    def finetuned(self) -> Experiment:
        """This experiment trained 125 + 25 epochs longer (section 5.8), starting from its own checkpoint."""
        train = self.science.train
        longer = train.model_copy(update={"phases": (*train.phases, *FINETUNE)})
        return replace(
            self,
            slug=f"{self.slug}.finetuned",
            title=f"{self.title}, fine-tuned",
            science=checked(self.science.model_copy(update={"train": longer})),
            continues=self.slug,
        )

    def _with_model(self, model: ModelConfig) -> Science:
        return checked(self.science.model_copy(update={"model": model}))


def checked(science: Science) -> Science:
    """`model_copy` skips validation; this does not. Raises pydantic's ValidationError."""
    return Science.model_validate(science.model_dump())


def part_slug(part: ImplicitConfig) -> str:
    """`add-fa`, `mul-pr-wh`, `add-fa-network`, `add-fa-frozen`."""
    words = [OPERATORS[part.operator].slug, part.site]
    words += [] if part.form == "vector" else [part.form]
    words += [] if part.learning == "learnt" else [part.learning]
    return "-".join(words)


def implicit_slug(part: ImplicitConfig) -> str:
    """`implicit`, `implicit-markov`: what a branch's representation adds to a name."""
    return "implicit" if part.form == "vector" else f"implicit-{part.form}"


def part_title(part: ImplicitConfig) -> str:
    """The paper's notation: `+ iFA`, `× iPR*`, `+ wiFA`."""
    operator, form, site = OPERATORS[part.operator], FORMS[part.form], SITES[part.site]
    title = f"{operator.symbol} {form.symbol}{site.symbol}"
    return title if part.learning == "learnt" else f"{title} ({part.learning})"


CSP_FAST = Experiment(
    "csp-fast", "YOLOv4-CSP-fast", paper_science("yolov4_csp_fast", 640, SCRATCH_CSP, optimiser=SCALED_YOLOV4)
)
CSP = Experiment(
    "csp", "YOLOv4-CSP", paper_science("yolov4_csp_mish", 640, SCRATCH_CSP, optimiser=SCALED_YOLOV4)
)
P6_LIGHT = Experiment("p6-light", "YOLOv4-P6-light", paper_science("yolov4_p6_light", 1280, SCRATCH_P6))

ADD_FA = ImplicitConfig(site="fa", operator="add")
MUL_FA = ImplicitConfig(site="fa", operator="multiply")
CAT_FA = ImplicitConfig(site="fa", operator="concatenate")
ADD_PR = ImplicitConfig(site="pr", operator="add")
MUL_PR = ImplicitConfig(site="pr", operator="multiply")
MUL_FA_CLUSTER = ImplicitConfig(site="fa-cluster", operator="multiply")
MUL_PR_WH = ImplicitConfig(site="pr-wh", operator="multiply")
ADD_FA_NETWORK = ImplicitConfig(site="fa", operator="add", form="network")
ADD_FA_FACTORISATION = ImplicitConfig(site="fa", operator="add", form="factorisation")
ADD_FA_MARKOV = ImplicitConfig(site="fa", operator="add", form="markov")

CLASSIFICATION = BranchConfig(task="classification")
EMBEDDING = BranchConfig(task="embedding")

# Table A1. The paper does not say whether the stems are wavelets or rearrange pixels: these rearrange.
Y4_SSS = Experiment("y4-sss", "Y4-SSS", paper_science("yolov4-sss-s2d", 640, SCRATCH_LIGHT))
Y4_SSSS = Experiment("y4-ssss", "Y4-SSSS", paper_science("yolov4-ssss-s2d", 640, SCRATCH_LIGHT))
U5R5_S = Experiment("u5r5-s", "U5R5-S", paper_science("u5r5-s", 640, SCRATCH_LIGHT))

# Tables A2 and 9. Flavours are those whose parameters the paper prints.
YOLOR_P6 = Experiment("yolor-p6", "YOLOR-P6", paper_science("yolor_p6", 1280, YOLOR_LARGE, ADD_FA, MUL_PR))
YOLOR_W6 = Experiment("yolor-w6", "YOLOR-W6", paper_science("yolor_w6", 1280, YOLOR_LARGE, ADD_FA, MUL_PR))
YOLOR_E6 = Experiment("yolor-e6", "YOLOR-E6", paper_science("yolor-e6", 1280, YOLOR_LARGE, ADD_FA, MUL_PR))
YOLOR_D6 = Experiment("yolor-d6", "YOLOR-D6", paper_science("yolor-d6", 1280, YOLOR_LARGE, ADD_FA, MUL_PR))
Y4_P6 = Experiment(
    "y4-p6", "YOLOv4-P6", paper_science("yolov4-p6", 1280, SCALED_LARGE, optimiser=SCALED_YOLOV4)
)
Y4_P7 = Experiment(
    "y4-p7", "YOLOv4-P7", paper_science("yolov4-p7", 1536, SCALED_LARGE, optimiser=SCALED_YOLOV4)
)
