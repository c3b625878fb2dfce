"""Cluster profiles: what is in them, and what is said about mistakes in them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from slurm import ClusterError
from slurm.cluster import Cluster, Resources, known_clusters, load_cluster, minutes
from slurm.submission import Array, Request, Sender

SITES = (Path(__file__).parents[2] / "docs" / "sites.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^```toml\n# (\S+)\n(.*?)^```", SITES, re.MULTILINE | re.DOTALL))


def profile(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_the_profiles_of_the_suite_load_by_name() -> None:
    assert {"example", "testbed"} <= set(known_clusters())
    for name in known_clusters():
        assert load_cluster(name).name == name
    assert load_cluster("testbed").device == "cpu"


def test_every_key_is_optional(tmp_path: Path) -> None:
    cluster = load_cluster(profile(tmp_path, ""))
    assert cluster == Cluster(name="mine")
    assert (cluster.gpus, cluster.nodes, cluster.account, cluster.python) == (1, 1, "", "")


def test_a_profile_is_found_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    profile(
        tmp_path, "gpus = 3\nexclude = 'node[07-09,12],gpu3'\nenvironment = '/envs/a'", "my own (new).toml"
    )
    profile(tmp_path / "sub", "gpus = 5", "plain")
    own = load_cluster("my own (new).toml")
    assert (own.name, own.gpus, own.exclude) == ("my-own-new-", 3, "node[07-09,12],gpu3")
    assert own.python == "/envs/a/bin/python"
    assert load_cluster(os.path.join("sub", "plain")).gpus == 5


def test_overrides_apply_in_order_to_the_experiments_that_match(tmp_path: Path) -> None:
    text = """
    gpus = 8
    cpus = 6
    [[override]]
    experiments = "p6*"
    nodes = 2
    time = "2-00:00:00"
    [[override]]
    experiments = "p6-light*"
    gpus = 4
    nodes = 1
    """
    cluster = load_cluster(profile(tmp_path, text))
    assert cluster.resources("csp-fast") == Resources(gpus=8, cpus=6)
    assert cluster.resources("p6-wide") == Resources(gpus=8, cpus=6, nodes=2, time="2-00:00:00")
    assert cluster.resources("p6-light.add-fa") == Resources(gpus=4, cpus=6, nodes=1, time="2-00:00:00")
    assert cluster.resources("P6-light") == Resources(gpus=8, cpus=6)


@pytest.mark.parametrize(
    ("wanted", "ranks", "gpus"),
    [
        (Resources(), 1, 1),
        (Resources(nodes=3, gpus=4, processes=7), 12, 12),
        (Resources(nodes=2, gpus=0, processes=3), 6, 0),
        (Resources(gpus=0), 1, 0),
    ],
)
def test_a_run_has_a_process_for_each_gpu(wanted: Resources, ranks: int, gpus: int) -> None:
    assert (wanted.ranks, wanted.all_gpus) == (ranks, gpus)


@pytest.mark.parametrize("several", ["gpus = 2", "nodes = 2", "processes = 2", "gpus = 0"])
def test_runs_that_share_a_gpu_have_one_process_each(tmp_path: Path, several: str) -> None:
    assert load_cluster(profile(tmp_path, "runs_per_gpu = 3")).resources("csp").runs_per_gpu == 3
    refused = "runs_per_gpu = 3: .*need nodes, gpus and processes = 1"
    with pytest.raises(ClusterError, match=refused):
        load_cluster(profile(tmp_path, f"{several}\nruns_per_gpu = 3"))
    overrides = 'runs_per_gpu = 3\n[[override]]\nexperiments = "p6*"\n' + several
    with pytest.raises(ClusterError, match=f"override for 'p6\\*'.*{refused}"):
        load_cluster(profile(tmp_path, overrides))
    own = load_cluster(profile(tmp_path, f"{overrides}\nruns_per_gpu = 1"))
    assert (own.resources("csp").runs_per_gpu, own.resources("p6").runs_per_gpu) == (3, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90:00", 90),
        ("1:30", 2),
        ("00:30:00", 30),
        ("24:00:00", 1440),
        ("1:00:01", 61),
        ("2-0", 2880),
        ("1-12", 2160),
        ("1-02:03", 1563),
        ("1-02:03:04", 1564),
    ],
)
def test_times_are_read_as_sbatch_reads_them(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "-5", "1-", "1.5", "UNLIMITED", "1-2-3"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time limit"):
        minutes(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu = 2", ["unknown key 'gpu'", "gpus"]),
        ("partitions = 'a'", ["unknown key 'partitions'", "partition"]),
        ("gpus = -1", ["gpus = -1", "greater than or equal to 0"]),
        ("nodes = 0", ["nodes = 0"]),
        ("cpus = 'eight'", ["cpus = 'eight'", "integer"]),
        ("memory_gb = 0", ["memory_gb = 0", "greater than or equal to 0.1"]),
        ("time = '1h'", ["time = '1h'", "D-HH:MM:SS"]),
        ("time = '0'", ["time = '0'", "at least one minute"]),
        ("partition = 'gpu; rm -rf'", ["partition = 'gpu; rm -rf'"]),
        ('account = "a\\nb"', ["account = 'a\\nb'"]),
        ("constraint = '$(x)'", ["constraint = '$(x)'"]),
        ("name = 'a/b'", ["name = 'a/b'"]),
        ("device = 'tpu'", ["device = 'tpu'"]),
        ("signal_delay = 1", ["signal_delay = 1"]),
        ("setup = 'module load'", ["setup = 'module load'"]),
        ("[variables]\n'A B' = '1'", ["variables"]),
        ("[[override]]\nexperiment = 'p6'", ["unknown key 'override.0.experiment'", "experiments"]),
        ("[[override]]\ngpus = 1", ["override.0.experiments", "required"]),
        ("[[override]]\nexperiments = 'p6*'\nparallel = 1", ["override.0.parallel"]),
        ("[[override]]\nexperiments = 'p[67]*'\ntime = 'long'", ["time = 'long'", "p[67]*"]),
        ("[[override]]\nexperiments = 'p6*'\npartition = 'a b'", ["partition", "'a b'"]),
        ("[[override]]\nexperiments = 'p6*'\nconstraint = '`x`'", ["constraint", "`x`"]),
        ("[sbatch]\nmem = '8G'", ["mem is not a further option", "`memory_gb`"]),
        ("[sbatch]\narray = '0-3'", ["array is not a further option", "a launch sets it"]),
        ("[sbatch]\ncomment = '$(x)'", ["comment = '$(x)'", "tmp = '200G'"]),
        ("[sbatch]\nexclusive = false", ["exclusive = False"]),
        ("[sbatch]\n'tmp=1 --uid' = 0", ["tmp=1 --uid"]),
        ("[sbatch]\nn = 4", ["n = 4", "long name"]),
        ("[sbatch]\nmem-bind = 3.5", ["mem-bind = 3.5 is no option"]),
        ("sbatch = 3", ["sbatch = 3", "dictionary"]),
        ("[sbatch]\ngres = ''", ["gres = ''", "`gpus`"]),
        ("[sbatch]\ngres = true", ["gres = True", "`gpus`"]),
        ("[sbatch]\ngres = 'gpu:2'", ["gres = 'gpu:2'", "`gpus`"]),
        ("[sbatch]\ngres = 'lscratch:9, gres/gpu'", ["gres = 'lscratch:9, gres/gpu'", "`gpus`"]),
        ("runs_per_gpu = true", ["runs_per_gpu = True: a number is needed"]),
        ("memory_gb = true", ["memory_gb = True: a number is needed"]),
        ("[[override]]\nexperiments = 'p6*'\nruns_per_gpu = true", ["override.0.runs_per_gpu = True"]),
        ("gpus = ", ["is not TOML"]),
        ("gpus = 1\ngpus = 2", ["is not TOML"]),
    ],
)
def test_a_mistake_is_named_with_its_file_key_and_value(tmp_path: Path, text: str, words: list[str]) -> None:
    path = profile(tmp_path, text)
    with pytest.raises(ClusterError) as caught:
        load_cluster(path)
    message = str(caught.value)
    assert "mine" in message and "\n" not in message and "; sbatch" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("parsable quiet", "a launch reads sbatch's usual answer"),
        ("help usage version", "sbatch would send nothing"),
        ("wait", "a launch would not return"),
        ("hold", "would not start by itself"),
        ("clusters cluster-constraint", "on its login node"),
        ("input", "reads nothing"),
        ("uid gid", "by the user who launches"),
        ("workdir", "a launch sets it"),
        ("tasks-per-node ntasks-per-gpu", "`gpus` or `processes`"),
        ("tres-per-task", "`gpus` and `gpu_type`"),
    ],
)
def test_options_that_would_break_a_launch_are_refused(tmp_path: Path, names: str, why: str) -> None:
    for name in names.split():
        with pytest.raises(ClusterError, match=f"{name} is not a further option: .*{why}"):
            load_cluster(profile(tmp_path, f"[sbatch]\n{name} = 1"))


@pytest.mark.parametrize("gres", ["lscratch:200", "gpumem:20g", "shard:2,license"])
def test_gres_that_are_no_gpus_go_with_those_of_the_profile(tmp_path: Path, gres: str) -> None:
    assert f"#SBATCH --gres=gpu:1,{gres}" in script(
        load_cluster(profile(tmp_path, f"[sbatch]\ngres = '{gres}'"))
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name, why in (
        (str(tmp_path / "none.toml"), "No such file"),
        (str(tmp_path / "folder.toml"), "Is a directory"),
        (str(tmp_path / "binary.toml"), "is not TOML"),
        ("exampel", r"unknown cluster 'exampel'.*example.*testbed"),
    ):
        with pytest.raises(ClusterError, match=why):
            load_cluster(name)


def script(cluster: Cluster, experiment: str = "csp-fast") -> list[str]:
    """The lines of the job that a profile becomes."""
    sender = Sender(cluster, Path("/results/launches/L1"), Path("/results/code/abc"), 100)
    request = Request("run", Path("/results/runs/run"), "work", cluster.resources(experiment))
    return sender.script(Array((request,)), 0).splitlines()


@pytest.mark.parametrize(
    ("file", "lines", "step"),
    [
        (
            "modules.toml",
            ["source /etc/profile.d/modules.sh", "module purge", "module load slurm gcc cuda"],
            "sh -c",
        ),
        (
            "apptainer.toml",
            [],
            "--cpus-per-task=8 apptainer exec --nv --bind /shared /shared/yolor-ablations.sif sh -c",
        ),
        (
            "enroot.toml",
            [],
            "--cpus-per-task=8 --container-image=/shared/yolor-ablations.sqsh "
            "--container-mounts=/shared:/shared --no-container-mount-home sh -c",
        ),
        (
            "qos.toml",
            [
                "#SBATCH --account=mylab",
                "#SBATCH --qos=long",
                "#SBATCH --time=2880",
                "#SBATCH --reservation=course",
                "#SBATCH --comment='tables 1 to 8'",
            ],
            "sh -c",
        ),
        ("mixed.toml", ["#SBATCH --constraint='a100|h100'", "#SBATCH --gres=gpu:1"], "sh -c"),
        ("scratch.toml", ["#SBATCH --gres=gpu:1,lscratch:200", "#SBATCH --tmp=200G"], "sh -c"),
        ("headers.toml", [], "sh /shared/me/conda/envs/yolor/bin/python -u -m slurm.worker"),
    ],
)
def test_a_recipe_becomes_the_job_that_the_page_speaks_of(
    tmp_path: Path, file: str, lines: list[str], step: str
) -> None:
    written = script(load_cluster(profile(tmp_path, RECIPES[file], file)))
    assert set(lines) <= set(written)
    assert [line for line in written if line in lines] == sorted(lines, key=written.index)
    srun = [line for line in written if line.startswith("srun ")]
    assert len(srun) == 1 and step in srun[0]


def test_every_recipe_is_tried_and_says_how_to_see_that_it_works() -> None:
    assert [*RECIPES] == [
        f"{name}.toml" for name in ("modules", "apptainer", "enroot", "qos", "mixed", "scratch", "headers")
    ]
    assert SITES.count("\n**It works** when") == len(RECIPES) == SITES.count("\n## ")


def test_the_override_of_a_recipe_asks_for_one_kind_of_gpu(tmp_path: Path) -> None:
    lines = script(load_cluster(profile(tmp_path, RECIPES["mixed.toml"])), "p6-light")
    assert "#SBATCH --gres=gpu:h100:1" in lines and not any("--constraint" in line for line in lines)


@pytest.mark.parametrize("file", ["apptainer.toml", "enroot.toml"])
def test_the_end_of_a_job_is_judged_outside_the_container(tmp_path: Path, file: str) -> None:
    lines = script(load_cluster(profile(tmp_path, RECIPES[file])))
    (ending,) = (line for line in lines if "slurm.ending" in line)
    assert ending.startswith(sys.executable)
