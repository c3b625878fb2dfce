"""`ablate weights`: read the authors' checkpoints, write weights for others."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ablations.options import json_option

FORMATS = ("safetensors", "onnx", "authors", "darknet")


@click.group("weights")
def command() -> None:
    """Import the authors' weights, export weights for other programs."""


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, metavar="NAME", help="A name of `ablate models`.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to.  [default: NAME.safetensors]"
)
@json_option
def import_file(file: Path, name: str, out: Path | None, as_json: bool) -> None:
    """Turn FILE into safetensors with our names.

    FILE is the authors' .pt (a state_dict, or a whole pickled model; its averaged network where it has one),
    darknet's .weights for cfg models, or safetensors. Nothing in FILE is run: anything but tensors and the
    authors' classes is refused by name.
    """
    from yolor_core.weights import import_weights
    from yolor_core.weights.exporting import write_safetensors

    state, report = import_weights(file, name)
    target = out or Path(f"{name}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(target, state)
    if as_json:
        click.echo(json.dumps({**asdict(report), "out": str(target)}, indent=1))
    else:
        click.echo(report.text())
        click.echo(f"wrote {target}")


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, metavar="NAME", help="A name of `ablate models`.")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True)
@click.option("--size", type=int, metavar="PIXELS", help="ONNX: side of the images.  [default: the paper's]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to.  [default: NAME.*]")
def export_file(file: Path, name: str, kind: str, size: int | None, out: Path | None) -> None:
    """Write the weights in FILE (any format that `import` reads) in another format.

    safetensors: our names. authors: their names, as {"model": state_dict}. darknet: cfg models only. onnx:
    images (B, 3, H, W) with values 0 to 1 to decoded predictions (B, N, 5 + classes), any B; checked with
    onnxruntime.
    """
    from yolor_core.weights import export_weights, load_model
    from yolor_core.weights.exporting import SUFFIXES

    model, report = load_model(name, file)
    target = out or Path(f"{name}{SUFFIXES[kind]}")
    click.echo(report.text())
    click.echo(f"wrote {target}: {export_weights(model, target, kind, size)}")
