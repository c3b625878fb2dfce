"""`ablate weights`: read the authors' checkpoints, write weights for others."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import examples, json_option, print_json, profile_option
from ablations.trained_model import model_option
from yolor_core.errors import ConfigError

if TYPE_CHECKING:
    from yolor_core.config import ModelConfig

FORMATS = ("safetensors", "onnx", "authors", "darknet")
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
def command() -> None:
    """Import the authors' weights, export weights for other programs."""


@command.command("import", epilog=examples("ablate weights import yolor_p6.pt --model yolor_p6"))
@click.argument("file", type=click.Path(path_type=Path))
@model_option
@like_option
@profile_option
@key_option
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to.  [default: NAME.safetensors]"
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

    model, stem = _model(name, like, profile)
    state, report = import_weights(file, model, key)
    target = out or Path(f"{stem}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(target, state)
    if as_json:
        print_json({**asdict(report), "out": str(target)})
    else:
        click.echo(report.text())
        click.echo(f"wrote {target}")


@command.command("export", epilog=examples("ablate weights export --run results/runs/RUN --format onnx"))
@click.argument("file", type=click.Path(path_type=Path), required=False)
@model_option
@like_option
@profile_option
@key_option
@click.option(
    "--run", "run_dir", type=click.Path(path_type=Path), metavar="DIR", help="A run instead of FILE."
)
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True)
@click.option(
    "--size",
    type=int,
    metavar="PIXELS",
    help="ONNX: side of the images.  [default: the paper's, or the run's]",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to.  [default: NAME.*]")
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
        size = size or config.science.evaluation.size
    elif file is None:
        raise ConfigError("FILE missing; give FILE with --model or --like, or --run DIR")
    else:
        chosen, stem = _model(name, like, profile)
        model, report = load_model(chosen, file, key)
        said = report.text()
    target = out or Path(f"{stem}{SUFFIXES[kind]}")
    click.echo(said)
    click.echo(f"wrote {target}: {export_weights(model, target, kind, size)}")


def _model(name: str | None, like: str | None, profile: str) -> tuple[str | ModelConfig, str]:
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
