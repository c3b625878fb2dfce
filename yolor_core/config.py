"""The configuration of one run: frozen, validated, with an exact JSON round trip.

`Science` is everything that decides a result; its hash is the signature of an experiment. `DataConfig`
says which images (their identity is the data fingerprint), `Execution` how the machine is used, which
never changes a result. Sources of the default values: the recipe of ScaledYOLOv4-csp (2020-12), which
stands next to the paper's 47.8 AP baseline, except where a comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from yolor_core.errors import ConfigError, unknown_name
from yolor_core.implicit.registry import FORMS, OPERATORS, SITES
from yolor_core.models.architectures import ARCHITECTURES
from yolor_core.tasks import TASKS

SCHEMA_VERSION = 1

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """Base of every configuration object."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _branch_tasks() -> list[str]:
    return [name for name, task in TASKS.items() if task.head is not None]


def _known(kind: str, name: str, known: Any) -> str:
    if name not in known:
        raise ValueError(unknown_name(kind, name, known))
    return name


class ImplicitConfig(Config):
    """One implicit representation g(z) and where it acts (paper sections 3, 4.2 and 5)."""

    site: str
    operator: str
    form: str = "vector"
    std: NonNegative = 0.02  # released code; z ~ N(0 or 1, std)
    prior_factor: Count = 2  # section 5.6: the prior has twice the explicit dimension
    depth: Count = 1  # network form: number of linear layers
    activation: Literal["none", "relu", "silu", "tanh"] = "none"  # between the layers of the network form
    sparse: NonNegative = 0.0  # factorisation form: weight of the L1 penalty on c
    nonnegative: bool = False  # factorisation form: softplus on Z and c (NMF)
    # Controls. frozen: g(z) keeps its initial value. folded: that value is merged into the predictor before
    # training (eq. 9, eq. 10), which then goes on without implicit knowledge.
    learning: Literal["learnt", "frozen", "folded"] = "learnt"

    @field_validator("site")
    @classmethod
    def _site(cls, value: str) -> str:
        return _known("implicit site", value, SITES)

    @field_validator("operator")
    @classmethod
    def _operator(cls, value: str) -> str:
        return _known("implicit operator", value, OPERATORS)

    @field_validator("form")
    @classmethod
    def _form(cls, value: str) -> str:
        return _known("implicit form", value, FORMS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.operator == "concatenate" and not SITES[self.site].allows_concatenation:
            allowed = ", ".join(name for name, site in SITES.items() if site.allows_concatenation)
            raise ValueError(
                f"operator 'concatenate' at site {self.site!r} would change the size of the prediction "
                f"(section 5.5); sites that allow it: {allowed}"
            )
        if self.form == "markov" and not SITES[self.site].allows_chain:
            allowed = ", ".join(name for name, site in SITES.items() if site.allows_chain)
            raise ValueError(
                f"form 'markov' at site {self.site!r}: a chain runs over feature maps; sites that allow it: "
                f"{allowed}"
            )
        if self.learning == "folded" and (self.operator == "concatenate" or self.form == "markov"):
            raise ValueError(
                f"learning 'folded' with operator {self.operator!r} and form {self.form!r}: what is merged "
                "into the predictor before training neither widens it nor is chained; allowed: operators add "
                "and multiply with forms other than markov"
            )
        for name, form in FORMS.items():
            changed = any(getattr(self, o) != type(self).model_fields[o].default for o in form.options)
            if name != self.form and changed:
                raise ValueError(
                    f"{' and '.join(form.options)} belong to form {name!r}, not to {self.form!r}"
                )
        return self


class BranchConfig(Config):
    """A further task beside detection, or instead of it (section 5.4).

    implicit: in front of the branch's predictor, on every level where the branch has levels.
    """

    task: str
    implicit: ImplicitConfig | None = None
    variant: Literal["jde", "fairmot"] = "jde"  # embedding: arXiv 1909.12605 or arXiv 2004.01888
    dimension: Annotated[int, Field(ge=0)] = 0  # embedding; 0: the variant's, 512 or 128. Scaled by width

    @field_validator("task")
    @classmethod
    def _task(cls, value: str) -> str:
        return _known("task of a branch", value, _branch_tasks())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.implicit is not None and self.implicit.site != "fa":
            raise ValueError(
                f"implicit.site = {self.implicit.site!r} in branch {self.task!r}: a branch has its "
                "representation in front of its predictor; allowed: fa"
            )
        if self.implicit is not None and self.implicit.learning == "folded":
            raise ValueError(
                f"implicit.learning = 'folded' in branch {self.task!r}; allowed in a branch: learnt, frozen"
            )
        if self.task != "embedding" and (self.variant != "jde" or self.dimension):
            raise ValueError(f"variant and dimension belong to task 'embedding', not to {self.task!r}")
        return self


class ModelConfig(Config):
    """Which network: a named architecture, scaled, with its tasks and implicit knowledge."""

    architecture: str
    width: Positive = 1.0
    depth: Positive = 1.0
    anchor_scale: Positive = 1.0  # multiplies the architecture's anchors (pixels)
    # The architecture's anchors, or those of k-means on the training boxes (`data.anchors`).
    anchors: Literal["released", "kmeans"] = "released"
    detection: bool = True
    implicit: tuple[ImplicitConfig, ...] = ()  # around the predictors of detection
    branches: tuple[BranchConfig, ...] = ()  # further tasks

    @field_validator("architecture")
    @classmethod
    def _architecture(cls, value: str) -> str:
        return _known("model", value, ARCHITECTURES)

    @model_validator(mode="after")
    def _one_per_site(self) -> Self:
        sites = [i.site for i in self.implicit]
        if len(set(sites)) != len(sites):
            raise ValueError(f"implicit lists a site twice: {', '.join(sites)}; one representation per site")
        front = [i for i in self.implicit if SITES[i.site].allows_concatenation]
        merged = [i.site for i in front if i.learning == "folded"]
        if merged and any(i.operator == "concatenate" for i in front):
            raise ValueError(
                f"learning 'folded' at site {merged[0]!r} beside operator 'concatenate': the input of the "
                "predictor is wider than the features that the first acts on; leave out one of them"
            )
        tasks = [b.task for b in self.branches]
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"branches lists a task twice: {', '.join(tasks)}")
        return self

    @model_validator(mode="after")
    def _tasks_fit(self) -> Self:
        if not self.tasks:
            raise ValueError(
                "detection = False without branches leaves no task; branches may be: "
                f"{', '.join(_branch_tasks())}"
            )
        if self.implicit and not self.detection:
            raise ValueError(
                "implicit belongs to the predictors of detection, and detection = False; put it in the "
                "branch, as branches.0.implicit"
            )
        for branch in self.branches:
            chained = branch.implicit is not None and branch.implicit.form == "markov"
            if chained and not any(i.site == "fa" for i in self.kept):
                raise ValueError(
                    f"branch {branch.task!r} has form 'markov', which goes on from detection's "
                    "representation at site fa, and implicit lists none there; add one, or choose another "
                    "form for the branch"
                )
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, detection first."""
        return (("detection",) if self.detection else ()) + tuple(branch.task for branch in self.branches)

    @property
    def kept(self) -> tuple[ImplicitConfig, ...]:
        """The parts of `implicit` that the model has; what is folded is merged into its predictors."""
        return tuple(part for part in self.implicit if part.learning != "folded")


class AugmentConfig(Config):
    """Augmentation of training images; probabilities, fractions and degrees."""

    mosaic: Fraction = 1.0  # probability of a mosaic
    mosaic_images: Literal[4, 9] = 4
    mixup: Fraction = 0.0  # probability of blending with a second mosaic, lambda ~ Beta(8, 8)
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.5
    shear: Annotated[float, Field(ge=0, le=45)] = 0.0
    perspective: Annotated[float, Field(ge=0, le=0.001)] = 0.0
    hsv_h: Fraction = 0.015
    hsv_s: Fraction = 0.7
    hsv_v: Fraction = 0.4
    flip_horizontal: Fraction = 0.5
    flip_vertical: Fraction = 0.0


class PhaseConfig(Config):
    """A stretch of training with one augmentation and one learning-rate curve.

    A later phase continues the epoch count of the one before it, so `schedule_epochs` (the E of the cosine)
    is at least the last epoch of the phase: 300, 450, 450 for the paper's 300 + 125 + 25 epochs.
    """

    epochs: Count
    schedule_epochs: Count
    augment: AugmentConfig = AugmentConfig()
    start_from_average: bool = False  # the published chain starts the later phases from the EMA weights


class OptimiserConfig(Config):
    """SGD with Nesterov momentum, warm-up and cosine; the exponential moving average."""

    lr0: Positive = 0.01
    lrf: Fraction = 0.2  # final learning rate as a fraction of lr0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.937
    weight_decay: NonNegative = 5e-4
    nominal_batch: Count = 64  # gradients accumulate until this many images
    warmup_epochs: NonNegative = 3.0
    warmup_min_iterations: Annotated[int, Field(ge=0)] = 1000
    warmup_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.8
    warmup_bias_lr: NonNegative = 0.1
    # Learning rate of the detection predictors' biases: a bias's own plus (rate - 1) times the weights'. With
    # 2 an output's bias moves as bias and + iPR together do: the control of Table 2's row.
    predictor_bias_rate: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    ema_updates: Positive = 2000.0  # d = ema_decay * (1 - exp(-updates / ema_updates))


class LossConfig(Config):
    """Gains of the loss terms, their normalisation, and the assignment threshold."""

    box: NonNegative = 0.05
    objectness: NonNegative = 1.0
    classification: NonNegative = 0.5  # times classes / 80
    anchor_threshold: Annotated[float, Field(gt=1)] = 4.0
    # Positives are averaged over this many consecutive images of the batch; 0: over the whole batch. The
    # released loop averages on each GPU, which is 8 images in the published commands.
    images_per_mean: Annotated[int, Field(ge=0)] = 0
    objectness_positive_weight: Positive = 1.0
    classification_positive_weight: Positive = 1.0
    focal_gamma: NonNegative = 0.0  # 0 switches the focal factor off, as in all released recipes
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class TasksConfig(Config):
    """How the losses of several tasks become one.

    fixed: sum of weight x loss. uncertainty: half the sum of exp(-s) x loss + s with a learnt s for each task
    (arXiv 1705.07115, as arXiv 1909.12605 uses it). A model of one task is weighted in the same way.
    """

    weighting: Literal["fixed", "uncertainty"] = "fixed"
    detection: NonNegative = 1.0
    classification: NonNegative = 1.0
    embedding: NonNegative = 0.1  # as FairMOT's fixed form, detection + 0.1 identity
    initial_detection: Finite = -1.85  # s at the start; FairMOT's values, whose loss has one s for each task
    initial_classification: Finite = -1.05
    initial_embedding: Finite = -1.05

    def weight(self, task: str) -> float:
        """The fixed weight of a task; 1 for a task that has no field."""
        return float(getattr(self, task, 1.0))

    def initial(self, task: str) -> float:
        """The first s of a task; 0 for a task that has no field."""
        return float(getattr(self, f"initial_{task}", 0.0))


class TrainConfig(Config):
    """The training recipe."""

    size: Annotated[int, Field(ge=32)]  # pixels, long side
    batch: Count = 64  # total over all ranks
    # BatchNorm's statistics are taken over this many consecutive images of the batch; 0: over the whole
    # batch, on all ranks together (SyncBN, as in the published commands).
    batch_norm_images: Annotated[int, Field(ge=0)] = 0
    # Every batch is resized by a factor uniform in [1 - m, 1 + m], to whole cells. The released flag is 0.5;
    # no published command uses it.
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep_one_in: Count = 1  # train on the images with SHA-1(image id) mod keep_one_in = 0
    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1)]
    optimiser: OptimiserConfig = OptimiserConfig()
    loss: LossConfig = LossConfig()
    tasks: TasksConfig = TasksConfig()

    @model_validator(mode="after")
    def _schedules_reach(self) -> Self:
        end = 0
        for index, phase in enumerate(self.phases):
            end += phase.epochs
            if phase.schedule_epochs < end:
                raise ValueError(
                    f"phases.{index}.schedule_epochs is {phase.schedule_epochs}, but the phase ends at epoch "
                    f"{end}; at least {end} is needed"
                )
        return self

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)


class NumericsConfig(Config):
    """How numbers are computed. It changes results in the last digits or more, so it is part of the science.

    precision: `float32` is exactly that, on a GPU too; `tf32` lets a GPU round the factors of its products;
    `bfloat16` and `float16` are automatic mixed precision, the latter with gradient scaling.
    """

    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    channels_last: bool = False
    compile: bool = False  # torch.compile of the model


class EvaluationConfig(Config):
    """The authors' test settings."""

    size: Annotated[int, Field(ge=32)]
    batch: Count = 32  # decides which images share a rectangle
    rectangular: bool = True
    stride: Annotated[int, Field(ge=0)] = 0  # sides are multiples of it; 0: the model's largest stride
    pad: NonNegative = 0.5  # in strides; 0.5 in the authors' stand-alone test, 0 during training
    confidence: Fraction = 0.001
    iou: Fraction = 0.65
    max_detections: Count = 300
    # released: IoU on boxes shifted by class in float32, as the authors'; exact: on the boxes as they are
    suppression: Literal["released", "exact"] = "released"


class Science(Config):
    """Everything that decides a result, except seed and data. Hashed into the signature."""

    profile: str
    model: ModelConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    numerics: NumericsConfig = NumericsConfig()

    @model_validator(mode="after")
    def _size_fits(self) -> Self:
        stride = max(ARCHITECTURES[self.model.architecture].strides)
        if self.train.size % stride:
            valid = -(-self.train.size // stride) * stride
            raise ValueError(
                f"train.size = {self.train.size} is not a multiple of {stride}, the largest stride of "
                f"{self.model.architecture}; the next valid size is {valid}"
            )
        return self


class ShapesConfig(Config):
    """The built-in synthetic dataset: COCO-format shapes rendered from (seed, index)."""

    kind: Literal["shapes"] = "shapes"
    seed: int = 0
    train_images: Count = 640
    val_images: Count = 200
    size: Annotated[int, Field(ge=64)] = 128  # pixels, long side of the rendered images


class CocoConfig(Config):
    """A folder in COCO's layout: annotations/instances_<split>.json with <split>/ or images/<split>/."""

    kind: Literal["coco"] = "coco"
    root: str
    train: str = "train2017"
    val: str = "val2017"
    packs: str | None = None  # folder of the packed splits; by default <root>/packed


DataConfig = Annotated[ShapesConfig | CocoConfig, Field(discriminator="kind")]


class Execution(Config):
    """How the machine is used. Never changes a result, never enters the signature."""

    device: str = "auto"  # auto, cpu, cuda, cuda:0 ...
    workers: Annotated[int, Field(ge=0)] = 0  # loader processes; 0 loads in the training process
    threads: Count = 1  # torch threads
    cache_images: bool = False  # keep decoded images in memory
    evaluate_every: Annotated[int, Field(ge=0)] = 0  # epochs between evaluations; 0: only at the end
    checkpoint_every: Count = 1  # epochs
    keep_checkpoint: bool = False  # keep the final checkpoint, so that a longer chain can start from it
    start_checkpoint: str | None = None  # run directory whose finished phases this run may continue
    conflict_steps: Annotated[int, Field(ge=0)] = 4  # of an epoch at which tasks' gradients are compared
    tensorboard: bool = True  # write TensorBoard event files
    rank_timeout: Positive = 600.0  # seconds until ranks give up waiting for one another


class RunConfig(Config):
    """One run: an experiment at a profile with a seed, on some data, on some machine."""

    experiment: str
    seed: Annotated[int, Field(ge=0)] = 0
    science: Science
    data: DataConfig
    execution: Execution = Execution()

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Parse what `to_json` wrote. Raises ConfigError naming the field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None

    def to_json(self) -> str:
        """The full resolved configuration."""
        return self.model_dump_json(indent=1)


def explain(error: ValidationError) -> str:
    """Turn pydantic's report into sentences that name the field, the value and what is allowed."""
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or "config"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"{field}: no such field")
        elif item["type"] == "missing":
            lines.append(f"{field}: is required")
        elif isinstance(item["input"], (str, int, float, bool)):
            lines.append(f"{field} = {item['input']!r}: {message}")
        else:
            lines.append(f"{field}: {message}")
    return "; ".join(lines)


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar field of a configuration (or of its JSON form) with its dotted path."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, (list, tuple)) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{prefix}.{index}")
    else:
        yield prefix, value
