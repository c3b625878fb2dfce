"""The configuration files of a testbed, as texts: nothing is started here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.testbed import config
from tests.testbed.config import Layout, Ports, Shape, TestbedError

LAYOUT = Layout(Path("/tmp/bed"))
PORTS = Ports(controller=1, accounting=2, database=3, nodes=(11, 12, 13))


def settings(text: str) -> dict[str, str]:
    """The lines `key=value`; where a line has several (nodes, partitions), the first."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and line[0] != "#")


def slurm_conf(shape: Shape = Shape()) -> str:  # noqa: B008
    return config.slurm_conf(LAYOUT, shape, PORTS, "here")


def test_every_path_lies_below_the_folder() -> None:
    texts = slurm_conf() + config.slurmdbd_conf(LAYOUT, PORTS, "secret") + config.gres_conf(LAYOUT, Shape())
    commands = [
        config.munged_command(LAYOUT),
        config.database_setup_command(LAYOUT),
        config.database_command(LAYOUT, PORTS),
    ]
    words = [word for command in commands for word in command]
    paths = [part for text in (*texts.split(), *words) for part in text.split(",")]
    absolute = {part.rpartition("=")[2] for part in paths if part.rpartition("=")[2].startswith("/")}
    assert len(absolute) > 10
    assert {path for path in absolute if not path.startswith("/tmp/bed/")} == {"/bin/true"}


def test_large_arrays_fit_the_number_of_jobs() -> None:
    conf = settings(slurm_conf(Shape(max_array=50_000)))
    assert conf["MaxArraySize"] == "50000"
    assert int(conf["MaxJobCount"]) > 50_000


@pytest.mark.parametrize("name", ["nodes", "cpus", "max_array", "requeue_delay"])
def test_a_shape_without_substance_is_refused(name: str) -> None:
    with pytest.raises(TestbedError, match=f"{name} is 0, but a testbed needs at least 1"):
        replace(Shape(), **{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [("/tmp/" + "x" * 70, "70"), ("/tmp/a b", "cannot hold"), ("/tmp/a#b", "cannot hold")],
)
def test_a_folder_that_slurm_cannot_use_is_refused(folder: str, complaint: str) -> None:
    with pytest.raises(TestbedError, match=complaint):
        Layout(Path(folder))


def test_the_daemons_get_a_clean_environment() -> None:
    environment = config.daemon_environment(LAYOUT, "/root")
    assert environment["SLURM_CONF"] == "/tmp/bed/etc/slurm.conf"
    assert "VIRTUAL_ENV" not in environment and "/usr/sbin" in environment["PATH"].split(":")
