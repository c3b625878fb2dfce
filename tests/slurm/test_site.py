"""What a site allows and has, as it is read from SLURM's answers and from the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm import site
from slurm.cluster import Cluster, Resources
from tests.slurm.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path, monkeypatch)
    monkeypatch.setattr(site, "_user", lambda: "ann")
    fake.answer("sacctmgr", code=1)
    fake.answer(
        "sacctmgr", "lab|long,normal|normal|2-00:00:00||gres/gpu=16|8||", to="-n -P show assoc user=ann"
    )
    fake.answer("sacctmgr", "1-00:00:00||gres/gpu:a100=4,cpu=64|||3|", to="-n -P show qos long")
    fake.answer("sacctmgr", "||||||", to="-n -P show qos normal")
    return fake


def test_limits_are_of_the_qos_first_and_then_of_the_account(slurm: FakeSlurm) -> None:
    found = site.limits(Cluster(qos="long"), "gpu", {})
    assert (found.account, found.qos, found.qoses) == ("lab", "long", ("long", "normal"))
    assert ("qos 'long'", "MaxWall", "1-00:00:00") in found.found
    assert ("account 'lab'", "GrpTRES", "gres/gpu=16") in found.found
    assert ("account 'lab'", "MaxWall", "2-00:00:00") not in found.found
    default = site.limits(Cluster(), "gpu", {})
    assert default.qos == "normal" and ("account 'lab'", "MaxWall", "2-00:00:00") in default.found


def test_the_qos_of_a_partition_goes_before_the_jobs(slurm: FakeSlurm) -> None:
    slurm.answer("scontrol", "PartitionName=gpu QoS=big State=UP", to="show partition --oneliner gpu")
    slurm.answer("sacctmgr", "7-00:00:00||||||", to="-n -P show qos big")
    found = site.limits(Cluster(qos="long"), "gpu", {})
    assert ("qos 'big'", "MaxWall", "7-00:00:00") in found.found
    assert found.refusal(Resources(time="3-00:00:00")) == ""


def test_a_qos_may_go_before_that_of_the_partition(slurm: FakeSlurm) -> None:
    slurm.answer("scontrol", "PartitionName=gpu QoS=big State=UP", to="show partition --oneliner gpu")
    slurm.answer("sacctmgr", "1:00:00||||||", to="-n -P show qos big")
    slurm.answer("sacctmgr", "1-00:00:00||||||3|DenyOnLimit,OverPartQOS", to="-n -P show qos long")
    found = site.limits(Cluster(qos="long"), "gpu", {})
    assert ("qos 'long'", "MaxWall", "1-00:00:00") in found.found and not found.past_the_partition
    assert not any(which == "Flags" for _, which, _ in found.found)
    slurm.answer("sacctmgr", "1-00:00:00||||||3|PartitionTimeLimit", to="-n -P show qos long")
    found = site.limits(Cluster(qos="long"), "gpu", {})
    assert ("qos 'big'", "MaxWall", "1:00:00") in found.found and found.past_the_partition


def test_limits_are_those_of_this_cluster_and_of_the_partition(slurm: FakeSlurm) -> None:
    """One database may serve several clusters, and an account may have limits in one partition alone."""
    rows = "lab|normal||30:00||||||debug\nlab|normal||2-00:00:00||||||\nlab|normal||8:00:00||||||gpu"
    slurm.answer("sacctmgr", "lab|normal||00:10:00|||||", to="-n -P show assoc user=ann")  # of all clusters
    slurm.answer("sacctmgr", rows, to="-n -P show assoc user=ann cluster=tiny")
    for partition, limit in (("gpu", "8:00:00"), ("cpu", "2-00:00:00"), ("", "2-00:00:00")):
        found = site.limits(Cluster(), partition, {"ClusterName": "tiny"})
        assert ("account 'lab'", "MaxWall", limit) in found.found


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Resources(time="1-00:00:00"), ""),
        (Resources(time="1-00:01:00"), "longer than qos 'long' allows: 1440 minutes"),
        (Resources(gpus=4, gpu_type="a100", cpus=1, time="60"), ""),
        (Resources(gpus=5, gpu_type="a100", cpus=1, time="60"), "5 GPUs, and qos 'long' allows 4"),
        (Resources(gpus=5, gpu_type="v100", cpus=1, time="60"), ""),
        (Resources(gpus=2, nodes=2, cpus=17, time="60"), "68 CPUs, and qos 'long' allows 64"),
        (Resources(runs_per_gpu=4, cpus=17, time="60"), "68 CPUs, and qos 'long' allows 64"),
        (Resources(gpus=8, nodes=3, cpus=1, time="60"), "24 GPUs, and account 'lab' allows 16"),
    ],
)
def test_a_run_that_no_limit_admits_is_refused(slurm: FakeSlurm, wanted: Resources, words: str) -> None:
    told = site.limits(Cluster(qos="long"), "gpu", {}).refusal(wanted)
    assert words in told and bool(words) == bool(told)


def test_limits_that_are_not_enforced_refuse_nothing(slurm: FakeSlurm) -> None:
    for enforce, counts in (("associations,qos", False), ("associations,limits", True), ("none", False)):
        found = site.limits(Cluster(qos="long"), "gpu", {"AccountingStorageEnforce": enforce})
        assert bool(found.refusal(Resources(time="9-0"))) == counts


def test_without_accounting_nothing_is_claimed(slurm: FakeSlurm) -> None:
    slurm.answers["sacctmgr"].clear()
    slurm.answer("sacctmgr", error="sacctmgr: error: Problem talking to the database", code=1)
    found = site.limits(Cluster(), "gpu", {})
    assert (found.account, found.qos, found.found) == ("", "", ())


def test_of_several_accounts_the_default_one_counts(slurm: FakeSlurm) -> None:
    slurm.answer("sacctmgr", "lab|normal|||||||\nother|normal|||||||", to="-n -P show assoc user=ann")
    slurm.answer("sacctmgr", "other", to="-n -P show user ann")
    found = site.limits(Cluster(), "gpu", {})
    assert (found.account, found.accounts) == ("other", ("lab", "other"))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("gpu:a100:4(S:0-1)", "(null)", 3), ("gpu:v100:2", "(null)", 2)], {"a100": 3, "v100": 2}),
        ([("gpu:a100:4,gpu:v100:2", "x", 1)], {"a100, v100": 1}),
        ([("gpu:4", "a100,ib", 2), ("gpu:4", "(null)", 1)], {"features a100,ib": 2, "untyped": 1}),
        ([("(null)", "cpu", 9)], {}),
    ],
)
def test_kinds_of_gpus_are_counted_by_nodes(
    rows: list[tuple[str, str, int]], expected: dict[str, int]
) -> None:
    assert site.kinds(rows) == expected


def test_software_is_what_variables_and_programs_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LMOD_CMD", "LMOD_VERSION", "MODULESHOME", "MODULES_CMD", "LOADEDMODULES", "BASH_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(site, "PODMAN", tmp_path / "none")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    bare = site.software()
    assert (bare["modules"], bare["containers"], bare["inside"]) == ("", [], "")
    assert bare["headers"] is False and bare["compiler"] == ""
    for name in ("apptainer", "enroot", "gcc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("LMOD_CMD", "/opt/lmod/libexec/lmod")
    monkeypatch.setenv("LOADEDMODULES", "cuda/12.8")
    monkeypatch.setenv("APPTAINER_CONTAINER", "/shared/suite.sif")
    full = site.software()
    assert (full["modules"], full["loaded"]) == ("Lmod", "cuda/12.8")
    assert full["containers"] == ["apptainer", "enroot"] and full["inside"] == "apptainer"
    assert full["headers"] is True and full["compiler"] == "gcc"


def test_pyxis_is_known_by_the_option_of_srun(slurm: FakeSlurm) -> None:
    slurm.answer("srun", "  -c, --cpus-per-task=ncpus")
    assert site.pyxis() is False
    slurm.answer("srun", "      --container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH")
    assert site.pyxis() is True


MOUNTS = "/dev/sda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\ntmpfs /home/me/ram\\040disk tmpfs rw 0 0\n"


def test_a_file_system_is_that_of_the_innermost_mount() -> None:
    assert site.file_system(Path("/var/x"), MOUNTS) == "ext4"
    assert site.file_system(Path("/home/me"), MOUNTS) == "nfs4"
    assert site.file_system(Path("/home/me/ram disk/a"), MOUNTS) == "tmpfs"
    assert site.file_system(Path("/homes"), MOUNTS) == "ext4"


def test_scratch_is_a_folder_of_the_node_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "file_system", lambda path: "lustre" if path.name == "shared" else "xfs")
    (tmp_path / "shared").mkdir()
    (tmp_path / "own").mkdir()
    names = {
        "SLURM_TMPDIR": tmp_path / "none",
        "LOCAL_SCRATCH": tmp_path / "shared",
        "TMPDIR": tmp_path / "own",
    }
    found = site.scratch({name: str(path) for name, path in names.items()})
    assert found is not None and (found["name"], found["kind"]) == ("$TMPDIR", "xfs") and found["free"] > 0
