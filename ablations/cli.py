"""The `ablate` command line. Subcommands are modules of `ablations.commands`, imported when called."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.shell_completion import CompletionItem

from ablations.options import examples
from slurm import ClusterError
from yolor_core.errors import UnknownNameError, YolorError, unknown_name

# Names and one-line helps are repeated here so that `ablate --help` imports no subcommand.
COMMANDS = {
    "list": "Every experiment and the table rows it fills.",
    "show": "What an experiment or a table is, in full.",
    "models": "Every model: test size, parameters, MFLOPs.",
    "speed": "Images per second of models on this machine.",
    "launch": "Run what is missing of tables or experiments.",
    "train": "Run one experiment in this process.",
    "status": "How far the runs are, here and on the cluster.",
    "logs": "What a run printed, or prints just now.",
    "cancel": "Take submitted runs off the cluster.",
    "retry": "Submit runs again that failed.",
    "cost": "GPU hours: estimated, and what the cluster has booked.",
    "cluster": "Cluster profiles: list them, check that one works.",
    "tables": "The paper's tables beside what was measured here.",
    "report": "Tables, figures and runs as a folder of web pages.",
    "publish": "The evidence of a finished study as one small folder.",
    "verify": "Make the numbers of a published folder again, and compare.",
    "export": "Runs to MLflow or Weights & Biases.",
    "compare": "Two runs, or files of detections, on the same images.",
    "features": "Write features of real images beside runs.",
    "plan": "Seeds and hours that an answer takes, from a pilot.",
    "data": "Write the synthetic dataset out, check or pack a COCO folder.",
    "weights": "Import the authors' weights, export weights for other programs.",
    "evaluate": "AP of trained weights on a dataset.",
    "detect": "Draw what a model finds in pictures.",
}
#: Files of `ablations.commands` that hold several; each other command has a file of its name.
TOGETHER = {
    "list": "experiments",
    "show": "experiments",
    "speed": "models",
    "weights": "models",
    "logs": "status",
    "cost": "status",
    "report": "tables",
    "verify": "publish",
    "export": "publish",
    "detect": "evaluate",
    "features": "evaluate",
    "cancel": "cluster",
    "retry": "cluster",
}
#: Packages of the extras of pyproject.toml, by the names they are imported by.
EXTRAS = {
    "report": {"jinja2", "matplotlib", "seaborn"},
    "notebooks": {"IPython", "ipywidgets", "jupyterlab"},
    "export": {"onnx", "onnxruntime", "onnxscript"},
    "tracking": {"alembic", "mlflow", "sqlalchemy", "wandb"},
}
MOST_CHARACTERS = 4_000


def installing(package: str) -> str | None:
    """How to install the extra that a package is of; None for one of none."""
    extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
    return extra and f"pip install 'yolor-ablations[{extra}]'"


class OneLineError(click.ClickException):
    """What click says of wrong options and arguments in three lines, as one line like our own errors."""

    exit_code = 2

    def __init__(self, error: click.UsageError) -> None:
        said = error.format_message().rstrip(".")
        of = error.ctx.command if error.ctx else None
        if isinstance(error, click.NoSuchOption) and of:
            known = [name for each in of.params for name in (*each.opts, *each.secondary_opts)]
            said = unknown_name("option", error.option_name, [n for n in known if n.startswith("-")])
        elif isinstance(error, click.exceptions.NoSuchCommand) and isinstance(of, click.Group):
            said = unknown_name("command", error.command_name, of.commands)
        words = error.ctx.command_path.split()[1:] if error.ctx else []
        super().__init__(f"{said[:1].lower()}{said[1:]} (`{' '.join(['ablate', *words, '--help'])}`)")

    def show(self, file: Any = None) -> None:
        """Print it on stderr."""
        click.echo(f"ablate: {printable(self.message)}", err=True)


@contextmanager
def in_one_line() -> Iterator[None]:
    """The block, with click's own errors as `OneLineError`; a group without a command prints its help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise OneLineError(error) from None


def printable(text: str) -> str:
    """An error's text without control characters and of bounded length: names in it may come from a file."""
    clean = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return clean if len(clean) <= MOST_CHARACTERS else f"{clean[:MOST_CHARACTERS]} ..."


class LazyGroup(click.Group):
    """A group that knows its subcommands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, imported now; None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ablations.commands.{TOGETHER.get(cmd_name, cmd_name)}")
        found = (each for each in vars(module).values() if isinstance(each, click.Command))
        return next(command for command in found if command.name == cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click's, with the nearest names in the error."""
        if not ctx.resilient_parsing and args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise UnknownNameError("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, without importing the subcommands."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(n, help=text) for n, text in COMMANDS.items() if n.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the one-line helps without importing the subcommands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As click's, with errors in one line."""
        with in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what a user can act on is printed in one line, and the exit code is 2."""
        try:
            with in_one_line():
                return super().invoke(ctx)
        except (YolorError, ClusterError) as error:
            click.echo(f"ablate: {printable(str(error))}", err=True)
            ctx.exit(2)
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            if (install := installing(package)) is None:
                raise
            click.echo(f"ablate: {package} is not installed: {install}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("ablate: interrupted", err=True)
            ctx.exit(128 + signal.SIGINT)
        except OSError as error:
            if error.errno == errno.EPIPE:  # `ablate list | head`: click ends quietly
                raise
            said = error.strerror or str(error) or type(error).__name__
            name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            click.echo(f"ablate: {name}{said}", err=True)
            ctx.exit(2)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's, for terminals of any encoding."""
        for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8 shows ? for × and Δ
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="replace")
        return super().main(*args, **kwargs)


@click.group(
    cls=LazyGroup,
    epilog=examples("ablate launch 1 --profile smoke", "ablate tables 1 --profile smoke"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="yolor-ablations", prog_name="ablate")
def main() -> None:
    """YOLOR's ablations, from a row of Tables 1-8 to its printed cell; Tables 9, A1 and A2 when named.

    Tables are named 4 or table4, or are Python files of your own; `ablate list` names the experiments.
    """
