"""Options that several subcommands share, so that they read the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

#: Of analysis.tables.formats, which is slow to import.
FORMATS = ("text", "markdown", "csv", "latex", "html", "json")


def examples(*commands: str) -> str:
    """The end of a command's help: how it is called. Every line is parsed by a test."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """One text per line of cells: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in lines
    ]


def completing(*kinds: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What the shell offers for an option or argument: names of these `kinds`, else files.

    Kinds are tables, experiments, profiles, clusters, models, formats and runs; those of the folder that
    --results or ABLATE_RESULTS names.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [name for kind in kinds for name in _names(kind, ctx) if name.startswith(incomplete)]
        return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="file")]

    return complete


def _names(kind: str, ctx: click.Context) -> Iterable[str]:
    if kind in ("tables", "experiments"):
        from ablations.registry import all_experiments, everything

        return all_experiments() if kind == "experiments" else (t.name for t in everything().tables)
    if kind == "profiles":
        from ablations.profiles import PROFILES

        return PROFILES
    if kind == "clusters":
        from slurm.cluster import known_clusters

        return known_clusters()
    if kind == "models":
        from yolor_core.models.architectures import ARCHITECTURES

        return ARCHITECTURES
    if kind == "formats":
        return FORMATS
    runs = Path(ctx.params.get("results") or os.environ.get("ABLATE_RESULTS") or "results") / "runs"
    return sorted(path.name for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else ()


profile_option = click.option(
    "--profile",
    default="mini",
    show_default=True,
    metavar="NAME",
    shell_complete=completing("profiles"),
    help="smoke, mini, small, proxy or paper.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override a field, as in train.optimiser.lr0=0.02; train.epochs=30 scales all phases. Repeatable.",
)


class Folder(click.Path):
    """The path of a folder. An empty one is refused: it would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's. Raises ConfigError for a path of no characters."""
        refuse_empty(value, param)
        return super().convert(value, param, ctx)


def refuse_empty(value: Any, param: click.Parameter | None) -> None:
    """Raises ConfigError, naming the option or argument, for a path of no characters."""
    if isinstance(value, str) and not value.strip():
        from yolor_core.errors import ConfigError

        name = (
            param.opts[0]
            if isinstance(param, click.Option)
            else (param.human_readable_name if param else "path")
        )
        raise ConfigError(f"{name} is empty; give the path of a folder ('.' is this one)")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(content: Any) -> None:
    """What `--json` prints."""
    import json

    click.echo(json.dumps(content, indent=1, ensure_ascii=False))


def _results_option(callback: Callable[..., Path] | None = None) -> Any:
    return click.option(
        "--results",
        type=Folder(file_okay=False, path_type=Path),
        envvar="ABLATE_RESULTS",
        default=Path("results"),
        show_default=True,
        metavar="DIR",
        callback=callback,
        help="Folder of results; runs are in DIR/runs. [env: ABLATE_RESULTS]",
    )


def _there(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Raises ConfigError for a folder that is named and not there; the default one may be yet to come."""
    if ctx.get_parameter_source("results") != click.core.ParameterSource.DEFAULT and not value.is_dir():
        from yolor_core.errors import ConfigError

        raise ConfigError(f"{value}: no such folder of results; `ablate launch` and `train` make one")
    return value


results_option = _results_option()
read_results_option = _results_option(_there)  # of commands that only look at runs


def results_folder(ctx: click.Context, results: Path, of_cluster: str) -> Path:
    """The results folder: as given at the command line or in the environment, else the cluster's.

    Raises ConfigError where that is in a variable that is not set: a folder would be made of its name.
    """
    given = ctx.get_parameter_source("results")
    if not of_cluster or given != click.core.ParameterSource.DEFAULT:
        return results
    if "$" in of_cluster:
        from yolor_core.errors import ConfigError

        raise ConfigError(
            f"results = {of_cluster!r}: a variable of it is not set here; set it, or choose a folder with "
            "--results"
        )
    return Path(of_cluster)


cluster_option = click.option(
    "--cluster",
    metavar="PROFILE",
    shell_complete=completing("clusters"),
    help="Submit to SLURM, as this cluster profile says: a name of `ablate cluster list`, or a TOML file.",
)


class Number(click.ParamType):
    """A number in a range, refused in the words of our own errors.

    Args:
        kind: float or int.
        allowed: which numbers are.
        needed: that in words, as `AP points above 0, at most 100, are needed`.
    """

    name = "number"

    def __init__(self, kind: type[float], allowed: Callable[[float], bool], needed: str) -> None:
        self.kind, self.allowed, self.needed = kind, allowed, needed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of a text. Raises ConfigError, naming the option and what is allowed."""
        from yolor_core.errors import ConfigError

        try:
            number = self.kind(value)
        except ValueError:
            number = None
        if number is None or not self.allowed(number):
            name = param.opts[0] if param else "the number"
            raise ConfigError(f"{name} is {value if str(value).strip() else 'empty'}; {self.needed}")
        return number


AP_POINTS = Number(float, lambda value: 0 < value <= 100, "AP points above 0, at most 100, are needed")
HOURS = Number(float, lambda value: 0 < value < 1e9, "a number of hours above 0 is needed")

margin_option = click.option(
    "--margin",
    type=AP_POINTS,
    default=0.5,
    show_default=True,
    metavar="AP",
    help="An effect that is shown to be smaller counts as none.",
)


def stopping_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a rule by which seeds are added: --margin, --most and --batch."""
    chosen = (
        margin_option,
        click.option(
            "--most",
            type=Number(int, lambda value: value >= 2, "at least 2 seeds are needed"),
            metavar="N",
            help="Seeds at most; 20, with --precision 100, by default.",
        ),
        click.option(
            "--batch",
            type=Number(int, lambda value: value >= 1, "at least 1 seed is needed"),
            metavar="N",
            help="Seeds between looks; 5, with --precision 2, by default.",
        ),
    )
    for option in reversed(chosen):
        command = option(command)
    return command


def _not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    refuse_empty(value, param)
    return value


data_option = click.option(
    "--data",
    metavar="PATH",
    callback=_not_empty,
    help="Folder in COCO's layout, or 'shapes' for the built-in dataset; the profile's own by default.",
)


class Seeds(click.ParamType):
    """Seeds as '5' (so many), '0,3' or '0-4'."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The seeds of a text. Raises ConfigError, saying what is allowed."""
        from ablations.plan import parse_seeds

        return value if isinstance(value, list) else parse_seeds(value)


def seeds_option(
    default: str | None = "1",
    text: str = "So many seeds, as in 5; or these: 0-4, or 0,3, or '7,' for seed 7 alone.",
) -> Any:
    """`--seeds`; None as the default means that the option was not given."""
    return click.option(
        "--seeds", type=Seeds(), default=default, show_default=True, metavar="SEEDS", help=text
    )


these_seeds_option = seeds_option(
    None,
    "Use these seeds only: 5 (the first five), or 0,3, or '7,' for seed 7 alone; all there are by default.",
)
fingerprint_option = click.option(
    "--fingerprint", metavar="PREFIX", help="Use runs on data of this fingerprint only."
)
source_option = click.option(
    "--source", metavar="PREFIX", help="Use runs of yolor_core sources of this hash only."
)
mixed_option = click.option(
    "--mixed",
    is_flag=True,
    help="Allow runs of different sources or data; for publish, of different commits too.",
)


def which_runs(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which tables, report and publish choose their runs and word what they say."""
    chosen = (
        profile_option,
        read_results_option,
        these_seeds_option,
        set_option,
        fingerprint_option,
        source_option,
        mixed_option,
        margin_option,
    )
    for option in reversed(chosen):  # help lists what is applied last first
        command = option(command)
    return command
