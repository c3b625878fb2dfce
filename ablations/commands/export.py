"""`ablate export mlflow` and `wandb`: what runs have left in their folders, sent to a tracker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import Folder, completing, examples, read_results_option

if TYPE_CHECKING:
    from ablations.display import RunView
    from analysis.trackers.record import Record, Sent

names_argument = click.argument(
    "names",
    nargs=-1,
    required=True,
    metavar="RUN|EXPERIMENT...",
    shell_complete=completing("experiments", "runs"),
)


@click.group("export", epilog=examples("ablate export mlflow csp-fast.add-fa"))
def export() -> None:
    """Send finished or running runs to a tracker; send again, and what is new is added.

    Training never needs a tracker: everything is read from the run's folder. Weights go to other programs by
    `ablate weights export`, and TensorBoard's files are in the folder already.
    """


@export.command("mlflow", epilog=examples("ablate export mlflow csp-fast.add-fa --store sqlite:///mlflow.db"))
@names_argument
@click.option(
    "--store",
    metavar="URI",
    envvar="MLFLOW_TRACKING_URI",
    help="Database or server. [env: MLFLOW_TRACKING_URI]  [default: sqlite:///mlflow.db, in this folder]",
)
@click.option("--experiment", metavar="NAME", help="Of MLflow.  [default: yolor-ablations]")
@read_results_option
def mlflow_command(names: tuple[str, ...], store: str | None, experiment: str | None, results: Path) -> None:
    """Send RUN... (a folder, a name of `ablate status`, its beginning or a pattern) to MLflow."""
    from analysis.trackers.mlflow import STORE, shown_store, to_mlflow
    from analysis.trackers.record import PROJECT

    store = store or STORE
    _send(names, results, partial(to_mlflow, store=store, experiment=experiment or PROJECT))
    click.echo(f"look at them with: mlflow ui --backend-store-uri {shown_store(store)}")


@export.command("wandb", epilog=examples("ablate export wandb csp-fast.add-fa --offline"))
@names_argument
@click.option("--offline", is_flag=True, help="Write a file for `wandb sync`.  [env: WANDB_MODE=offline]")
@click.option("--project", metavar="NAME", help="Of W&B.  [default: yolor-ablations]")
@click.option("--entity", metavar="NAME", help="User or team of W&B.  [default: that of the login]")
@click.option(
    "--dir",
    "folder",
    type=Folder(file_okay=False, path_type=Path),
    envvar="WANDB_DIR",
    default=Path(),
    metavar="DIR",
    help="Where wandb/ is made. [env: WANDB_DIR]  [default: this folder]",
)
@read_results_option
def wandb_command(
    names: tuple[str, ...],
    offline: bool,
    project: str | None,
    entity: str | None,
    folder: Path,
    results: Path,
) -> None:
    """Send RUN... (a folder, a name of `ablate status`, its beginning or a pattern) to Weights & Biases."""
    from analysis.trackers.record import PROJECT
    from analysis.trackers.wandb import to_wandb

    offline = offline or os.environ.get("WANDB_MODE") == "offline"
    send = partial(to_wandb, folder=folder, project=project or PROJECT, entity=entity, offline=offline)
    _send(names, results, send)


def _send(names: Sequence[str], results: Path, send: Callable[[Record], Sent]) -> None:
    """Send every run that is named, and say of each what was new and where it is.

    All are read before the first is sent, so that a wrong name or a damaged file leaves nothing half done.
    """
    from analysis.trackers.record import read
    from yolor_core.errors import RunError
    from yolor_core.runs import State

    records = []
    for view in _views(names, results):
        if view.state is State.UNREADABLE:
            raise RunError(view.reason or f"{view.run_dir} cannot be read")
        state = State.DONE if view.state is State.INCOMPLETE else view.state  # what lacks is the reason
        records.append(read(view.run_dir, state, view.reason))
    for record in records:
        sent = send(record)
        click.echo(f"{record.run}: {sent.new} of {sent.numbers} numbers are new; {sent.where}")


def _views(names: Sequence[str], results: Path) -> list[RunView]:
    """The runs that are named, by folder or as `ablate status` takes them; none twice."""
    from ablations.overview import LOOK_SECONDS, chosen, look_up, overview, view

    found: dict[Path, RunView] = {}
    for name in names:
        if (Path(name) / "run.json").is_file():
            views = [view(path, seen) for path, seen in look_up([Path(name)], LOOK_SECONDS)]
        else:
            views = chosen(overview(results), [name])
        found |= {each.run_dir.resolve(): each for each in views}
    return list(found.values())
