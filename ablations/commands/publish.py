"""`ablate publish` and `ablate verify`: a finished study as one small folder, and its check.

`ablate export mlflow` and `wandb`: what runs have left in their folders, sent to a tracker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablations.options import Folder, completing, examples, read_results_option, which_runs
from yolor_core.errors import counted

if TYPE_CHECKING:
    from ablations.display import RunView
    from analysis.trackers.record import Record, Sent


@click.command("publish", epilog=examples("ablate publish 1 2 --seeds 3 --out mine"))
@click.argument("names", nargs=-1, metavar="[TABLE]...", shell_complete=completing("tables"))
@which_runs
@click.option(
    "--out",
    type=Folder(path_type=Path),
    metavar="DIR",
    help="Folder to write; an older one in it is replaced.  [default: published/PROFILE in the results]",
)
@click.option(
    "--with",
    "beside",
    type=Folder(path_type=Path),
    metavar="DIR",
    help="A published folder whose runs are published too: the study gets more seeds.",
)
@click.option("--dirty", is_flag=True, help="Allow runs of code that is in no commit.")
@click.option("--incomplete", is_flag=True, help="Allow that some of the --seeds have not finished.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="EPOCHS",
    help="Of implicit values and effects publish the first, the last and one in so many epochs.",
)
@click.option(
    "--grid",
    type=click.IntRange(min=0, max=64),
    default=4,
    show_default=True,
    metavar="PIXELS",
    help="Boxes that no score depends on are moved to such a grid; 0 keeps all as they are.",
)
def publish_command(
    names: tuple[str, ...],
    profile: str,
    results: Path,
    seeds: list[int] | None,
    out: Path | None,
    beside: Path | None,
    overrides: tuple[str, ...],
    fingerprint: str | None,
    source: str | None,
    mixed: bool,
    margin: float,
    dirty: bool,
    incomplete: bool,
    every: int,
    grid: int,
) -> None:
    """Write tables (1-8 without names), figures, a summary and the small files of the runs behind them.

    `ablate verify` makes every number of the folder again from what is in it.
    """
    from ablations.profiles import profile_named
    from ablations.registry import as_overrides, select_tables
    from yolor_core.errors import ConfigError

    if files := [name for name in names if name.endswith(".py")]:
        raise ConfigError(f"{files[0]} is a file; only tables with a name can be published and verified")
    chosen = select_tables(names)
    profile_named(profile)
    as_overrides(overrides)

    from ablations.commands.tables import name_unreadable
    from ablations.costs import costs_of
    from analysis.published.manifest import Made, code_hash
    from analysis.published.publish import joined, publish
    from analysis.published.summary import counted_runs
    from analysis.runs import kept, load_runs
    from analysis.study import open_study
    from yolor_core.identity import code_commit

    runs = load_runs(results)
    name_unreadable(runs)
    if beside is not None:
        runs = joined(runs, beside, every, grid)
    runs = kept(runs, fingerprint, source)
    commit, changed = code_commit()
    made = Made(
        profile=profile,
        tables=tuple(table.name for table in chosen),
        seeds=None if seeds is None else tuple(seeds),
        overrides=overrides,
        mixed=mixed,
        margin=margin,
        every=every,
        grid=grid,
        commit=commit,
        dirty=changed,
        sources=code_hash(),
    )
    further = {"everything": runs, "mixed": mixed, "costs": costs_of, "margin": margin}
    study = open_study(results, profile, made.tables, overrides, seeds, **further)
    if beside is not None:
        behind = counted_runs(study)["path"]
        taken = sum(Path(path).is_relative_to(beside) for path in behind)
        if not taken:
            raise ConfigError(f"--with {beside}: none of its runs is behind these tables at {profile}")
        click.echo(f"{counted(taken, 'run')} of {beside}, {counted(len(behind) - taken, 'run')} of {results}")
    written = publish(study, made, out or results / "published" / profile, dirty, incomplete)
    for each in written.failed:
        click.echo(f"figure {each}", err=True)
    click.echo(
        f"{counted(written.runs, 'run')}, {counted(written.tables, 'table')}, "
        f"{counted(written.figures, 'figure')} in {counted(written.files, 'file')}, "
        f"{written.bytes / 1e6:.2f} MB: {written.folder}"
    )


@click.command("verify", epilog=examples("ablate verify results/published/mini"))
@click.argument("folder", type=Folder(path_type=Path), default=Path("results/published/mini"))
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that share the work.  [default: as many as cores, fewer for few runs]",
)
@click.option(
    "--data",
    type=Folder(path_type=Path),
    metavar="PATH",
    help="Photographs of the study, in COCO's layout.  [default: the folder of their name, if it is here]",
)
@click.pass_context
def verify_command(ctx: click.Context, folder: Path, processes: int | None, data: Path | None) -> None:
    """Make the numbers of a folder of `ablate publish` again from its runs, and compare them.

    Exit code 0: no number differs; 1: some differ, and the first of them are named. Texts that another
    version of the code words otherwise are named too, and are no difference. The last line says how many
    numbers could not be made again, e.g. because the dataset is not here.
    """
    from ablations.costs import costs_of
    from analysis.published.verify import conclusion, verify

    checks = []
    try:
        for check in verify(folder, costs_of, processes, data):
            click.echo(check.line)
            checks.append(check)
    except KeyboardInterrupt:
        click.echo("interrupted: not everything was compared", err=True)
        ctx.exit(130)
    click.echo(conclusion(folder, checks))
    ctx.exit(1 if any(check.differences for check in checks) else 0)


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
    """Send runs to MLflow. RUN: a folder, a name of `ablate status`, its beginning or a pattern."""
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
    """Send runs to Weights & Biases. RUN: a folder, a name of `ablate status`, its beginning or a pattern."""
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
