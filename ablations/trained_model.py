"""Which trained model a command is about: a name with a file of weights, or a run directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import completing
from yolor_core.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from yolor_core.config import RunConfig
    from yolor_core.data import ImageSet
    from yolor_core.models import Detector

model_option = click.option(
    "--model", "name", metavar="NAME", shell_complete=completing("models"), help="A name of `ablate models`."
)
weights_option = click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its weights: the authors' .pt, darknet's .weights or safetensors.",
)
run_option = click.option(
    "--run",
    "run_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A run directory instead: its model, classes, weights and settings.",
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")


def trained_model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--model with --weights, --run, --device."""
    for option in (device_option, run_option, weights_option, model_option):
        command = option(command)
    return command


@dataclass(frozen=True)
class Chosen:
    """A model in eval mode; `run` is the configuration of the run it comes from, if it comes from one."""

    model: Detector
    name: str
    run: RunConfig | None
    run_dir: Path | None
    note: str


def require_model(name: str) -> None:
    """Raises UnknownNameError for what no model is called, without importing PyTorch."""
    from yolor_core.models.architectures import ARCHITECTURES

    if name not in ARCHITECTURES:
        raise UnknownNameError("model", name, ARCHITECTURES)


def choose(name: str | None, weights: Path | None, run_dir: Path | None) -> Chosen:
    """Load what the options name.

    Raises ConfigError for a combination that names no model or two, and for what is not there; both before
    PyTorch is imported.
    """
    if run_dir is not None:
        if name is not None or weights is not None:
            raise ConfigError("--run takes model and weights from the run; leave --model and --weights out")
        if not run_dir.is_dir():
            raise ConfigError(f"{run_dir} is not a run directory: there is no such folder")
    elif name is None or weights is None:
        missing = " and ".join(o for o, v in (("--model", name), ("--weights", weights)) if v is None)
        raise ConfigError(f"{missing} missing; give --model NAME and --weights FILE, or --run DIR")
    else:
        require_model(name)
        if not weights.exists():
            raise ConfigError(f"--weights {weights}: no such file")
    from yolor_core.weights import load_model, load_run

    if run_dir is not None:
        model, config = load_run(run_dir)
        return Chosen(model, config.science.model.architecture, config, run_dir, f"run {run_dir.name}")
    assert name is not None and weights is not None
    model, report = load_model(name, weights)
    return Chosen(model, name, None, None, report.text())


def class_names(chosen: Chosen) -> tuple[str, ...] | None:
    """What the model's outputs are called, in order: a run's classes, COCO's for weights of 80; else None.

    Raises ConfigError where the run names another number of classes than its weights have.
    """
    from yolor_core.data.layout import COCO_NAMES

    classes = chosen.model.classes
    if chosen.run is None or chosen.run_dir is None:
        return COCO_NAMES if classes == len(COCO_NAMES) else None
    names = run_classes(chosen.run_dir, chosen.run)
    if len(names) != classes:
        raise ConfigError(f"{chosen.note} names {len(names)} classes, its weights have {classes}")
    return names


def run_classes(run_dir: Path, config: RunConfig) -> tuple[str, ...]:
    """What the outputs of a run's model are called, in order: as it wrote down, else as its data says."""
    from yolor_core.data.load import load_images
    from yolor_core.runs.directory import RunDirectory

    written = (RunDirectory(run_dir).read_run() or {}).get("classes")
    return tuple(written) if written else load_images(config.data, "train").names


def with_classes_of(chosen: Chosen, images: ImageSet) -> tuple[ImageSet, list[str]]:
    """Images with the classes in the order of the model's outputs, matched by name; and what to say of it.

    Weights from a file name no classes. 80 of them are COCO's, unless most of the data's names are others;
    then, and with any other number, classes are taken in the order of the data's category ids.

    Raises:
        DataError: naming the classes that differ.
        ConfigError: the model has another number of classes.
    """
    from yolor_core.errors import some_of

    names, own = class_names(chosen), images.names
    if chosen.run is not None and names is not None:
        return images.with_classes(names, chosen.note), []
    if names is not None and 2 * len(set(names).intersection(own)) >= len(own):
        return images.with_classes(names, "COCO, which weights of 80 classes are taken to be of"), []
    if len(own) != chosen.model.classes:
        raise ConfigError(
            f"the model tells {chosen.model.classes} classes apart, the dataset has {len(own)}: "
            f"{some_of(own)}"
        )
    return images, [
        "the weights do not name their classes; taken in the order of the data's category ids: "
        f"{some_of(own)}"
    ]


def find_images(chosen: Chosen, data: str | None, split: str | None) -> ImageSet:
    """The images to score: of `data`, else those the run was evaluated on."""
    from ablations.plan import data_config
    from yolor_core.config import CocoConfig, DataConfig
    from yolor_core.data import load_images

    config: DataConfig
    if data is None:
        if chosen.run is None:
            raise ConfigError("--data missing; a folder in COCO's layout is needed")
        config = chosen.run.data
    elif data == "shapes":
        own = chosen.run.data if chosen.run is not None else None
        config = own if own is not None and own.kind == "shapes" else data_config(data, "mini")
    else:
        split = split or _val_split(Path(data))
        config = CocoConfig(root=data, train=split, val=split)
    if split is not None:
        if config.kind == "shapes":
            raise ConfigError("--split belongs to a folder in COCO's layout, not to shapes")
        config = config.model_copy(update={"val": split})
    if data is None and config.kind == "coco" and not Path(config.root).is_dir():
        raise ConfigError(
            f"{config.root}: no such folder; {chosen.note} was trained there. Name the folder where "
            "its data are now with --data PATH"
        )
    return load_images(config, "val")


def _val_split(root: Path) -> str:
    """The folder's val split, or its only one. Raises ConfigError when that is not clear."""
    from yolor_core.data.layout import USUAL, annotation_file, splits

    found = splits(root)
    usual = [val for _, val in USUAL if val in found]
    if usual or len(found) == 1:
        return (usual or found)[0]
    if not found:
        annotation_file(root, USUAL[0][1])  # raises, saying what is missing
    raise ConfigError(f"{root} has no usual val split; give --split, one of: {', '.join(found)}")


def need_detection(chosen: Chosen, what: str) -> None:
    """Raises ConfigError, naming the run and its tasks, where a model has no boxes to show.

    `what` says what they are needed for, as "draws boxes".
    """
    if "detection" not in chosen.model.tasks:
        raise ConfigError(
            f"{chosen.note} has no detection, only {' and '.join(chosen.model.tasks)}; this command {what}. "
            "`ablate evaluate --run DIR` prints its scores"
        )


def settings(chosen: Chosen | None, **given: Any) -> Any:
    """Evaluation settings: the run's own, or the authors' at the paper's size; `given` overrides.

    Values that are None were not given. Raises ConfigError for one that is not allowed, also before there is
    a model (None).
    """
    from pydantic import ValidationError

    from yolor_core.config import EvaluationConfig, explain

    base: dict[str, Any]
    if chosen is None:
        base = {"size": 640}
    elif chosen.run is not None:
        base = chosen.run.science.evaluation.model_dump()
    else:
        architecture = chosen.model.architecture
        # The main branch, whose models are the cfg ones, pads every image to multiples of 64.
        stride = max(64, *architecture.strides) if architecture.flavour == "cfg" else 0
        base = {"size": architecture.size, "stride": stride}
    try:
        return EvaluationConfig.model_validate(base | {k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
