"""`python -m tests.testbed start|stop|status|env`."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import click

from tests.testbed.cluster import Testbed
from tests.testbed.config import Shape, TestbedError

folder_option = click.option(
    "--dir",
    "folder",
    default="/tmp/ablate-testbed",
    envvar="ABLATE_TESTBED",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the testbed lives.",
)


@click.group()
def cli() -> None:
    """A real SLURM cluster on this machine, for tests and for trying things out."""


@cli.command()
@folder_option
@click.option("--nodes", default=3, show_default=True, help="How many nodes it has.")
@click.option("--gpus", default=2, show_default=True, help="How many (fake) GPUs a node has.")
@click.option("--cpus", default=8, show_default=True, help="How many CPUs a node says it has.")
@click.option("--max-array", default=1001, show_default=True, help="SLURM's MaxArraySize.")
@click.option("--accounting/--no-accounting", default=True, help="With or without sacct (MariaDB, slurmdbd).")
@click.option("--requeue-delay", default=10, show_default=True, help="Seconds a requeued job waits.")
def start(
    folder: Path, nodes: int, gpus: int, cpus: int, max_array: int, accounting: bool, requeue_delay: int
) -> None:
    """Start a testbed; nothing outside its folder is changed."""
    testbed, began = Testbed(folder), time.monotonic()
    if testbed.start(Shape(nodes, gpus, cpus, max_array, accounting, requeue_delay)):
        click.echo(f"# The testbed in {testbed.folder} is up after {time.monotonic() - began:.0f} s.")
    else:
        click.echo(f"# The testbed in {testbed.folder} is running already.")
    echo_exports(testbed)
    click.echo("# Now try: sinfo; srun -N2 hostname")


@cli.command()
@folder_option
@click.option("--keep-logs", is_flag=True, help="Keep the daemons' logs in the folder.")
def stop(folder: Path, keep_logs: bool) -> None:
    """End all jobs and daemons and remove the folder."""
    testbed = Testbed(folder)
    if testbed.stop(keep_logs):
        click.echo(f"The testbed in {testbed.folder} is stopped.")
    else:
        click.echo(f"There is no testbed in {testbed.folder}.")


@cli.command()
@folder_option
def status(folder: Path) -> None:
    """Which daemons live, and the state of the nodes; exit status 1 if it does not run."""
    testbed = Testbed(folder)
    for name, alive in testbed.daemons().items():
        click.echo(f"{name:10} {'up' if alive else 'off'}")
    if not testbed.running():
        click.echo(f"The testbed in {testbed.folder} is not running.")
        sys.exit(1)
    click.echo(testbed.ask("sinfo"), nl=False)


@cli.command()
@folder_option
def env(folder: Path) -> None:
    """Print what a shell needs: eval "$(python -m tests.testbed env)"."""
    testbed = Testbed(folder)
    if not testbed.running():
        raise TestbedError(
            f"no testbed is running in {testbed.folder}."
            f" Start it: python -m tests.testbed start --dir {shlex.quote(str(testbed.folder))}"
        )
    echo_exports(testbed)


def echo_exports(testbed: Testbed) -> None:
    """Print the variables of a testbed as a shell reads them."""
    for key, value in testbed.environment.items():
        click.echo(f"export {key}={shlex.quote(value)}")


if __name__ == "__main__":
    try:
        cli(prog_name="python -m tests.testbed")
    except TestbedError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
