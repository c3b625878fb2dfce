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


def test_nodes_have_the_declared_resources_and_a_port_each() -> None:
    nodes = [line for line in slurm_conf(Shape(cpus=6, gpus=4)).splitlines() if line.startswith("NodeName")]
    assert [line.split()[0] for line in nodes] == ["NodeName=n1", "NodeName=n2", "NodeName=n3"]
    assert [line.split()[3] for line in nodes] == ["Port=11", "Port=12", "Port=13"]
    assert all(" CPUs=6 " in line and line.endswith(" Gres=gpu:4") for line in nodes)


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


def test_an_own_munge_socket_serves_jobs_and_accounting() -> None:
    conf, dbd = (
        settings(slurm_conf(Shape(requeue_delay=7))),
        settings(config.slurmdbd_conf(LAYOUT, PORTS, "x")),
    )
    assert conf["AuthInfo"] == "socket=/tmp/bed/run/munge.socket,cred_expire=7"
    assert conf["AccountingStoragePass"] == "/tmp/bed/run/munge.socket"
    assert dbd["AuthInfo"] == "socket=/tmp/bed/run/munge.socket"


def test_a_preempted_job_gets_its_own_signal_and_is_requeued() -> None:
    conf = settings(slurm_conf())
    assert conf["PreemptMode"] == "REQUEUE"
    assert "preempt_send_user_signal" in conf["SlurmctldParameters"]
    assert "PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF" in slurm_conf()


def test_a_strict_one_enforces_limits_and_holds_memory() -> None:
    conf = settings(slurm_conf(Shape(strict=True)))
    assert conf["PreemptType"] == "preempt/qos" and conf["TaskPlugin"] == "task/cgroup"
    assert conf["AccountingStorageEnforce"] == "limits,qos"
    assert conf["SelectTypeParameters"] == "CR_Core_Memory"
    assert "AccountingStorageEnforce" not in settings(slurm_conf())


def test_without_accounting_no_database_is_named() -> None:
    conf = settings(slurm_conf(Shape(accounting=False)))
    assert conf["AccountingStorageType"] == "accounting_storage/none"
    assert not any(key.startswith("AccountingStorage") for key in conf.keys() - {"AccountingStorageType"})


def test_every_gpu_has_a_file_and_nodes_without_have_no_gres() -> None:
    lines = config.gres_conf(LAYOUT, Shape(nodes=2, gpus=3)).splitlines()
    assert lines == [f"NodeName=n1,n2 Name=gpu File=/tmp/bed/gpu/gpu{i}" for i in range(3)]
    assert config.gres_conf(LAYOUT, Shape(gpus=0)) == ""
    assert " Gres=" not in slurm_conf(Shape(gpus=0))


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
