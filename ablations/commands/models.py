"""`ablate models`: every model and what it costs. `ablate speed`: images per second on this machine.

`ablate weights`: read the authors' checkpoints, write weights for other programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.options import aligned, completing, examples, json_option, print_json, profile_option
from ablations.trained_model import model_option, require_model
from yolor_core.errors import ConfigError

if TYPE_CHECKING:
    from yolor_core.config import ModelConfig

HEAD = {
    "name": "name",
    "size": "size",
    "parameters": "parameters",
    "parameters_fused": "fused",
    "mflops": "MFLOPs",
    "mflops_fused": "MFLOPs fused",
    "mflops_torch": "torch MFLOPs",
}  # key of a record -> heading; mflops_table7 is in the JSON alone


@click.command("models", epilog=examples("ablate models"))
@json_option
def models_command(as_json: bool) -> None:
    """List every model: test size (pixels), parameters and MFLOPs, fused and not, torch's MFLOPs.

    Fused: BatchNorm is merged into the convolution before it.

    MFLOPs follow the paper's rule: 2 x (multiply-adds of convolutions + their bias outputs + 2 x elements of
    BatchNorm), and one per number that implicit knowledge multiplies. Activations, pooling, up-sampling,
    rearranged pixels and additions are free. Table 7 leaves out the multiplications on P6, likely by
    oversight; --json has its figure too, as mflops_table7.

    torch MFLOPs is the figure of torch.utils.flop_counter. It is lower because that counts convolutions and
    matrix products alone: no biases, no BatchNorm, no multiplications. It is the same fused and not.
    """
    records = describe()
    print_json(records) if as_json else click.echo(costs_text(records))


def describe() -> list[dict[str, Any]]:
    """One record per model, counted at its test size with 80 classes."""
    from yolor_core.models import count, list_models, named_config
    from yolor_core.models.architectures import ARCHITECTURES

    records = []
    for name in list_models():
        size = ARCHITECTURES[name].size
        counts = count(named_config(name), size)
        records.append(
            {
                "name": name,
                "size": size,
                "parameters": counts.parameters,
                "parameters_fused": counts.parameters_fused,
                "mflops": round(counts.mflops, 4),
                "mflops_fused": round(counts.mflops_fused, 4),
                "mflops_table7": round(counts.mflops_paper, 4),
                "mflops_torch": round(counts.mflops_torch, 4),
            }
        )
    return records


def costs_text(records: list[dict[str, Any]]) -> str:
    """The records as aligned columns."""
    lines = [tuple(HEAD.values()), *(tuple(_shown(record[key]) for key in HEAD) for record in records)]
    return "\n".join(aligned(lines))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}".replace(",", " ")
    return f"{value:,}".replace(",", " ") if isinstance(value, int) and value > 9999 else str(value)


COLUMNS = ("model", "size", "batch", "precision", "folded", "network/s", "end to end/s")


@click.command("speed", epilog=examples("ablate speed yolor_p6 yolor-d6 --batch 1"))
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=completing("models"))
@click.option(
    "--size",
    type=click.IntRange(min=32),
    metavar="PIXELS",
    help="Square input.  [default: the paper's test size]",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 32),
    show_default=True,
    help="Images at once. Repeatable.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Time for each figure, and the longest time of one batch.",
)
@json_option
def speed(
    models: tuple[str, ...],
    size: int | None,
    batches: tuple[int, ...],
    device: str,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure images per second, with BatchNorm and implicit knowledge folded and not.

    'network' is the network alone, 'end to end' goes from pictures to boxes: letterbox, network, decoding and
    suppression of about 3000 candidates an image. Weights are those of initialisation. Single precision, on a
    GPU half precision too. A batch that would take longer than --seconds is not run.
    """
    for name in models:
        require_model(name)

    from yolor_core.device import choose_device
    from yolor_core.evaluation.speed import describe_device

    target = choose_device(device)
    where = describe_device(target)
    if as_json:
        records = [
            r | {"device": where} for name in models for r in measure(name, size, batches, target, seconds)
        ]
        print_json(records)
        return
    click.echo(f"device: {where}")
    click.echo(line(COLUMNS))
    for name in models:
        for record in measure(name, size, batches, target, seconds):
            click.echo(speed_line(record))


def measure(
    name: str, size: int | None, batches: tuple[int, ...], device: Any, seconds: float
) -> Iterator[dict[str, Any]]:
    """One record per precision, folding and batch."""
    from yolor_core.device import is_gpu
    from yolor_core.evaluation.speed import measure_speed, settle
    from yolor_core.models import create_model
    from yolor_core.models.architectures import ARCHITECTURES

    side = size or ARCHITECTURES[name].size
    precisions = ("fp32", "fp16") if is_gpu(device) else ("fp32",)
    for speed in measure_speed(settle(create_model(name)), side, batches, device, precisions, seconds):
        record = asdict(speed)
        record["images_per_second"] = record.pop("model")
        yield {"model": name, "size": side} | record


def speed_line(record: dict[str, Any]) -> str:
    """A record as a line of the table."""
    rates = [record["images_per_second"], record["end_to_end"]]
    shown = ["-" if rate is None else f"{rate:.2f}" for rate in rates]
    folded = "yes" if record["folded"] else "no"
    cells = (record["model"], record["size"], record["batch"], record["precision"], folded, *shown)
    return f"{line(cells)}  {record['note']}".rstrip()


def line(cells: tuple[Any, ...]) -> str:
    """Cells in columns of fixed width, so that each line can be shown as soon as it is measured."""
    name, *rest = map(str, cells)
    widths = (6, 6, 10, 7, 10, 13)
    return f"{name:22}" + "".join(cell.rjust(width) for cell, width in zip(rest, widths, strict=True))


KINDS = ("safetensors", "onnx", "authors", "darknet")
like_option = click.option(
    "--like",
    metavar="DIR|EXPERIMENT",
    help="The model of a run, or of an experiment at --profile, instead of a name.",
)
key_option = click.option(
    "--key",
    metavar="KEY",
    help="Which network of FILE, as in model or ema.module.  [default: the averaged one]",
)


@click.group("weights", epilog=examples("ablate weights import yolor_p6.pt --model yolor_p6"))
def weights() -> None:
    """Import the authors' weights, export weights for other programs."""


@weights.command("import", epilog=examples("ablate weights import yolor_p6.pt --model yolor_p6"))
@click.argument("file", type=click.Path(path_type=Path))
@model_option
@like_option
@profile_option
@key_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: NAME.safetensors]",
)
@json_option
def import_file(
    file: Path,
    name: str | None,
    like: str | None,
    profile: str,
    key: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Turn FILE into safetensors with our names.

    FILE is the authors' .pt (a state_dict, or a whole pickled model), darknet's .weights for cfg models, or
    safetensors. Of a checkpoint with several networks the averaged one is read; --key chooses another.
    Nothing in FILE is run: what is neither a tensor nor a plain container is passed over.
    """
    from yolor_core.weights import import_weights
    from yolor_core.weights.formats import write_safetensors

    model, stem = _named_model(name, like, profile)
    state, report = import_weights(file, model, key)
    target = _target(out or Path(f"{stem}.safetensors"), file)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(target, state)
    if as_json:
        print_json({**asdict(report), "out": str(target)})
    else:
        click.echo(report.text())
        click.echo(f"wrote {target}")


@weights.command("export", epilog=examples("ablate weights export --run results/runs/RUN --format onnx"))
@click.argument("file", type=click.Path(path_type=Path), required=False)
@model_option
@like_option
@profile_option
@key_option
@click.option(
    "--run", "run_dir", type=click.Path(path_type=Path), metavar="DIR", help="A run instead of FILE."
)
@click.option("--format", "kind", type=click.Choice(KINDS), required=True)
@click.option(
    "--size",
    type=int,
    metavar="PIXELS",
    help="ONNX: side of the images.  [default: the paper's, or the run's]",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: NAME.*]"
)
def export_file(
    file: Path | None,
    name: str | None,
    like: str | None,
    profile: str,
    key: str | None,
    run_dir: Path | None,
    kind: str,
    size: int | None,
    out: Path | None,
) -> None:
    """Write the weights in FILE (any format that `import` reads), or of a run, in another format.

    safetensors: our names. authors: their names, as {"model": state_dict}. darknet: cfg models only. onnx:
    images (B, 3, H, W) with values 0 to 1 to decoded predictions (B, N, 5 + classes), any B; checked with
    onnxruntime. What the authors' code cannot hold, such as other tasks or other forms of implicit knowledge,
    is refused by name; a scaled model needs a model file of its width and depth there.
    """
    from yolor_core.weights import export_weights, load_model, load_run
    from yolor_core.weights.formats import SUFFIXES
    from yolor_core.weights.importing import described

    if run_dir is not None:
        if file or name or like or key:
            raise ConfigError("--run takes model and weights from the run; leave FILE and other options out")
        model, config = load_run(run_dir)
        stem, said = run_dir.resolve().name, f"{run_dir}: {described(config.science.model)}"
        size = config.science.evaluation.size if size is None else size
    elif file is None:
        raise ConfigError("FILE missing; give FILE with --model or --like, or --run DIR")
    else:
        chosen, stem = _named_model(name, like, profile)
        model, report = load_model(chosen, file, key)
        said = report.text()
    target = _target(out or Path(f"{stem}{SUFFIXES[kind]}"), file)
    click.echo(said)
    click.echo(f"wrote {target}: {export_weights(model, target, kind, size)}")


def _target(target: Path, source: Path | None) -> Path:
    """Where to write. Raises ConfigError where that is the file that is read, which may hold more."""
    if source is not None and target.exists() and target.samefile(source):
        raise ConfigError(f"{target} would be written over the file that it is made of; choose another --out")
    return target


def _named_model(name: str | None, like: str | None, profile: str) -> tuple[str | ModelConfig, str]:
    """The model that the options name, and how a file of it is called."""
    if (name is None) == (like is None):
        raise ConfigError("give either --model NAME or --like DIR|EXPERIMENT")
    if like is None:
        assert name is not None
        return name, name
    if Path(like).is_dir():
        from yolor_core.config import RunConfig
        from yolor_core.runs.directory import RunDirectory

        record = RunDirectory(like).read_run()
        if record is None:
            raise ConfigError(f"{like} is not a run directory: there is no run.json")
        return RunConfig.from_json(json.dumps(record["config"])).science.model, Path(like).resolve().name
    from ablations.registry import resolve, select

    named = select([like]).experiments
    if len(named) != 1:
        raise ConfigError(
            f"--like {like} names {len(named)} experiments; give one of them, or a run's folder"
        )
    return resolve(named[0], profile, ()).model, named[0].slug
