"""Arrays, their scripts, and who gets which run when several people submit at once."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slurm import ClusterError, submission
from slurm.cluster import Cluster, Resources
from slurm.files import read_json
from slurm.scheduler import refusal
from slurm.submission import (
    KINDS,
    PACKAGES,
    ROOT,
    THEN_ENDING,
    Array,
    Request,
    Sender,
    freeze,
    layout,
    new_launch,
    rehearse,
)
from slurm.tokens import Token, claim, current, read
from slurm.worker import entries, stop_on
from tests.slurm.fake_slurm import FakeSlurm

GOLDEN = Path(__file__).parent / "golden"
SMALL, LARGE, SHARED = Resources(), Resources(gpus=8), Resources(runs_per_gpu=2)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


def request(root: Path, name: str, resources: Resources = SMALL, **more: Any) -> Request:
    return Request(name, root / "runs" / name, "tests.slurm.fakes", resources, {"config": name}, **more)


def sender(root: Path, cluster: Cluster | None = None, longest: int = 100) -> Sender:
    return Sender(cluster or Cluster(), root / "launches" / "L1", root / "code" / "abc", longest)


def names(arrays: list[Array]) -> list[list[str]]:
    return [[request.name for request in array.requests] for array in arrays]


def plain(text: str, root: Path) -> str:
    """A script without what differs between machines."""
    return text.replace(shlex.quote(sys.executable), "PYTHON").replace(str(root), "/results") + "\n"


@pytest.mark.parametrize(
    ("wanted", "longest", "arrays"),
    [
        ([("a", SMALL), ("b", LARGE), ("c", SMALL), ("d", Resources(time="24:00:00"))], 100, ["acd", "b"]),
        ([(name, SMALL) for name in "abcdefg"], 3, ["abc", "def", "g"]),
    ],
)
def test_runs_that_ask_for_the_same_share_arrays_as_long_as_the_cluster_allows(
    tmp_path: Path, wanted: list[tuple[str, Resources]], longest: int, arrays: list[str]
) -> None:
    assert names(layout([request(tmp_path, *each) for each in wanted], longest)) == [*map(list, arrays)]


def test_a_run_that_waits_is_a_job_alone_behind_what_it_waits_for(tmp_path: Path) -> None:
    requests = [
        request(tmp_path, "third", after="second"),
        request(tmp_path, "second", after="first"),
        request(tmp_path, "sent-before", after_job="5_1"),
        request(tmp_path, "done-before", after="not-among-these"),
        request(tmp_path, "first"),
    ]
    arrays = layout(requests, 100)
    assert names(arrays) == [["done-before", "first"], ["second"], ["sent-before"], ["third"]]
    assert [array.waits for array in arrays[1:]] == [True, True, True]
    with pytest.raises(ValueError, match="circle"):
        layout([request(tmp_path, "a", after="b"), request(tmp_path, "b", after="a")], 100)


def shared(root: Path, several: str, **more: Any) -> list[Request]:
    """Requests of one letter each, two of which share a GPU."""
    return [request(root, name, SHARED, **more) for name in several]


@pytest.mark.parametrize(("file", "wanted"), [("array.sh", SMALL), ("pack.sh", SHARED)])
def test_the_script_of_an_array_is_as_it_was(
    tmp_path: Path, slurm: FakeSlurm, file: str, wanted: Resources
) -> None:
    array = Array(tuple(request(tmp_path, name, wanted) for name in "abc"))
    text = sender(tmp_path, Cluster(parallel=64 if wanted is SHARED else 2)).script(array, 0)
    assert plain(text, tmp_path) == (GOLDEN / file).read_text()


#: A run that is told to stop ends with 7; `ready` is there when it can hear that.
TOLD = """
import pathlib, signal, sys, time
told = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda *_: told.append(1))
pathlib.Path(sys.argv[1]).touch()
while not told:
    time.sleep(0.01)
time.sleep(0.2)
sys.exit(7)
"""


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_runs_that_share_a_job_hear_what_their_shell_alone_is_sent(
    tmp_path: Path, shell: str, signum: signal.Signals
) -> None:
    """With `proctrack/cgroup` SLURM signals a task's first process only, and that is the shell."""
    ending, ready = tmp_path / "ending", tmp_path / "ready"
    ending.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    ending.chmod(0o755)
    words = [shell, "-c", THEN_ENDING, "sh", str(ending), "FOLDER", sys.executable, "-c", TOLD, str(ready)]
    task = subprocess.Popen(words, env=os.environ | {"SLURM_PROCID": "3"})
    try:
        while not ready.exists():
            assert task.poll() is None
            time.sleep(0.01)
        task.send_signal(signum)
        assert task.wait(60) == 0
    finally:
        task.kill()
    assert (tmp_path / "said").read_text() == "-m slurm.ending FOLDER 7 3\n"


def test_the_script_of_a_job_that_waits_is_as_it_was(tmp_path: Path, slurm: FakeSlurm) -> None:
    cluster = Cluster.model_validate(
        {
            "name": "big",
            "partition": "gpu",
            "account": "vision",
            "qos": "long",
            "exclude": "node07,node08",
            "gpus": 4,
            "time": "2-00:00:00",
            "setup": ["module load cuda/12"],
            "environment": "/shared/envs/suite",
            "container": "apptainer exec --nv /shared/suite.sif",
            "variables": {"NCCL_DEBUG": "WARN", "NOTE": "two words; $HOME"},
            "override": [
                {
                    "experiments": "p6*",
                    "nodes": 2,
                    "gpus": 8,
                    "gpu_type": "a100",
                    "cpus": 12,
                    "memory_gb": 480.5,
                    "time": "12:00:00",
                    "constraint": "ib&hdr",
                }
            ],
        }
    )
    waiting = request(tmp_path, "a", cluster.resources("p6-light"), after="b")
    text = sender(tmp_path, cluster).script(Array((waiting,)), 3, "41_2")
    assert plain(text, tmp_path) == (GOLDEN / "waiting.sh").read_text()


def test_runs_that_share_a_gpu_are_packed_those_that_wait_too(tmp_path: Path) -> None:
    waiting = [*shared(tmp_path, "xy", after="a"), *shared(tmp_path, "z", after="y")]
    arrays = layout([*shared(tmp_path, "abcde"), *waiting, request(tmp_path, "alone")], 2)
    assert names(arrays) == [["a", "b", "c", "d"], ["e"], ["alone"], ["x", "y"], ["z"]]
    assert [(array.jobs, array.per_job) for array in arrays] == [(2, 2), (1, 1), (1, 1), (1, 2), (1, 1)]


def test_runs_that_wait_share_a_job_only_behind_the_same_one(tmp_path: Path) -> None:
    """A job that is cancelled takes along all that wait for it."""
    waiting = [
        *shared(tmp_path, "s", after="a"),
        *shared(tmp_path, "t", after="c"),
        *shared(tmp_path, "u", after="b"),
        *shared(tmp_path, "v", after="d"),
        *shared(tmp_path, "w", after="a"),
        *(request(tmp_path, name, SHARED, after_job=job) for name, job in zip("xyz", "565", strict=True)),
        *shared(tmp_path, "gh", after="s"),
    ]
    arrays = layout([*shared(tmp_path, "abcd"), *waiting], 100)
    packs = [["s", "u"], ["t", "v"], ["w"], ["x", "z"], ["y"], ["g", "h"]]
    assert names(arrays) == [["a", "b", "c", "d"], *packs]


@pytest.mark.parametrize(
    ("container", "own"),
    [("apptainer exec a.sif", "PYTHON"), ("--container-image=a.sqsh", "/env/bin/python")],
)
def test_a_run_that_shares_a_gpu_is_judged_by_a_python_that_its_step_has(
    tmp_path: Path, slurm: FakeSlurm, container: str, own: str
) -> None:
    cluster = Cluster(environment="/env", container=container)
    text = plain(sender(tmp_path, cluster).script(Array(tuple(shared(tmp_path, "ab"))), 0), tmp_path)
    step = next(line for line in text.splitlines() if line.startswith("srun"))
    assert f"' sh {own} /results/launches/L1/arrays/0 " in step
    assert "\nPYTHON -m slurm.ending /results/launches/L1/arrays/0 $code\n" in text


def test_each_run_that_shares_a_gpu_is_judged_by_its_own_exit_code(tmp_path: Path, slurm: FakeSlurm) -> None:
    calls, python = tmp_path / "python-calls", tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$*" >> {calls}\n[ "$3" = slurm.worker ] && exit $((SLURM_PROCID + 3))\nexit 0\n'
    )
    python.chmod(0o755)
    each = 'while [ "$1" != sh ]; do shift; done\nfor p in 0 1; do SLURM_PROCID=$p "$@" || exit 9; done'
    slurm.shell("srun", each)
    text = sender(tmp_path, Cluster(environment=str(python.parent.parent))).script(
        Array(tuple(shared(tmp_path, "ab"))), 0
    )
    (tmp_path / "script.sh").write_text(text)
    path = {"PATH": f"{slurm.bin}:/usr/bin:/bin"}
    assert subprocess.run(["bash", "script.sh"], cwd=tmp_path, env=path).returncode == 0
    folder = tmp_path / "launches" / "L1" / "arrays" / "0"
    ending, worker = f"-m slurm.ending {folder}", f"-u -m slurm.worker {folder}"
    assert calls.read_text().splitlines() == [
        *(worker, f"{ending} 3 0", worker, f"{ending} 4 1"),
        f"{ending} 0",
    ]


def test_runs_that_share_a_gpu_know_their_job_and_their_place_in_it(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = slurm.accept(7)
    requests = [
        *shared(tmp_path, "abc"),
        *shared(tmp_path, "x", after="a"),
        *shared(tmp_path, "y", after="b"),
        *shared(tmp_path, "z", after="c"),
    ]
    sent = sender(tmp_path).submit(requests)
    assert sent.jobs == {"a": "7_0", "b": "7_0", "c": "7_1", "x": "8", "y": "8", "z": "9"}
    asked = flags((scripts / "7.sh").read_text())
    assert (asked["array"][:3], asked["gres"], asked["ntasks-per-node"]) == ("0-1", "gpu:1", "2")
    behind = [flags((scripts / f"{job}.sh").read_text())["dependency"] for job in (8, 9)]
    assert behind == ["afterok:7_0", "afterok:7_1"]
    folder = tmp_path / "launches" / "L1" / "arrays" / "0"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    for index, mine in enumerate(["ab", "c"]):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
        assert [about["run"] for about in entries(folder)] == list(mine)
    tokens = [current(r.run_dir) for r in requests]
    logs = [(token.pack, token.log.name) for token in tokens if token is not None and token.log is not None]
    assert logs[:3] == [(2, "7_0_0_log.out"), (2, "7_0_1_log.out"), (1, "7_1_0_log.out")]
    assert logs[3:5] == [(2, "8_0_log.out"), (2, "8_1_log.out")]


def flags(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH ")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("wanted", "asked", "absent"),
    [
        (
            Resources(nodes=2, gpus=4, cpus=3, memory_gb=1.5, time="90"),
            {"nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "3", "gres": "gpu:4", "mem": "1536M",
             "time": "90", "signal": "USR2@120", "requeue": ""},
            {"partition", "account", "qos", "constraint", "exclude", "dependency", "array"},
        ),
        (Resources(gpus=0, processes=2), {"ntasks-per-node": "2"}, {"gres"}),
        (Resources(time="2"), {"signal": "USR2@60"}, set()),  # else it were told before it has begun
    ],
    ids=["GPUs", "processors", "short"],
)  # fmt: skip
def test_the_script_asks_for_what_the_profile_says(
    tmp_path: Path, slurm: FakeSlurm, wanted: Resources, asked: dict[str, str], absent: set[str]
) -> None:
    found = flags(sender(tmp_path).script(Array((request(tmp_path, "a", wanted),)), 0))
    assert asked.items() <= found.items() and not absent & found.keys()


def test_the_script_runs_with_spaces_and_signs_of_the_shell_in_its_paths(
    tmp_path: Path, slurm: FakeSlurm
) -> None:
    root = tmp_path / "a b;$(touch hit) & `touch hit` #x"
    python = root / "my env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    calls = tmp_path / "python-calls"
    python.write_text(
        f'#!/bin/sh\nprintf "%s\\t" "$@" "$PYTHONPATH" "$NOTE" >> {calls}\necho >> {calls}\n'
        '[ "$2" = slurm.ending ] && exit 5\nexit 3\n'
    )
    python.chmod(0o755)
    slurm.shell("srun", 'while [ "$1" != sh ]; do shift; done\nexec "$@"')
    cluster = Cluster(environment=str(root / "my env"), variables={"NOTE": "it's $HOME"})
    text = sender(root, cluster).script(Array((request(root, "a"),)), 0)
    (tmp_path / "script.sh").write_text(text)
    checked = subprocess.run(["bash", "script.sh"], cwd=tmp_path, env={"PATH": f"{slurm.bin}:/usr/bin:/bin"})
    assert checked.returncode == 5  # the ending's, for it knows what comes next
    folder, code = str(root / "launches" / "L1" / "arrays" / "0"), str(root / "code" / "abc")
    assert [line.split("\t")[:-1] for line in calls.read_text().splitlines()] == [
        ["-u", "-m", "slurm.worker", folder, code, "it's $HOME"],
        ["-m", "slurm.ending", folder, "3", code, "it's $HOME"],
    ]
    (srun,) = slurm.calls("srun")  # there was no restart
    assert srun[srun.index("--output") + 1] == f"{folder}/%j_%t_log.out"
    assert not list(tmp_path.rglob("hit"))


def test_runs_are_sent_as_arrays_and_their_tokens_know_the_jobs(tmp_path: Path, slurm: FakeSlurm) -> None:
    scripts = slurm.accept(7)
    requests = [
        request(tmp_path, "a", hours=2.0, label="first"),
        request(tmp_path, "big", LARGE),
        request(tmp_path, "b"),
        request(tmp_path, "next", after="b"),
    ]
    sent = sender(tmp_path).submit(requests)
    assert sent.problem is None
    assert sent.jobs == {"a": "7_0", "b": "7_1", "big": "8", "next": "9"}
    assert sorted(path.name for path in scripts.iterdir()) == ["7.sh", "8.sh", "9.sh"]
    assert flags((scripts / "7.sh").read_text())["array"] == "0-1%2"
    assert flags((scripts / "8.sh").read_text())["gres"] == "gpu:8"
    assert flags((scripts / "9.sh").read_text())["dependency"] == "afterok:7_1"
    token = current(tmp_path / "runs" / "a")
    assert token is not None
    assert (token.number, token.job, token.hours) == (1, "7_0", 2.0)
    assert token.content["experiment"] == "first"
    assert flags((scripts / "7.sh").read_text())["job-name"] == token.name
    big = current(tmp_path / "runs" / "big")
    assert big is not None and big.gpus == 8
    record = json.loads((tmp_path / "launches" / "L1" / "launch.json").read_text())
    assert record["jobs"] == sent.jobs
    assert Cluster.model_validate(record["cluster"]) == Cluster()


def test_every_job_of_an_array_finds_its_own_run(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.accept(7)
    sender(tmp_path).submit([request(tmp_path, "a"), request(tmp_path, "b", number=4)])
    folder = tmp_path / "launches" / "L1" / "arrays" / "0"
    for index, (name, number) in enumerate([("a", 1), ("b", 5)]):
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
        (about,) = entries(folder)
        assert (Path(about["run_dir"]).name, about["number"]) == (name, number)
        assert about["work"] == "tests.slurm.fakes"
        assert read_json(tmp_path / "runs" / name / "planned.json") == {"config": name}


def test_a_run_that_somebody_else_claims_is_left_to_them(tmp_path: Path, slurm: FakeSlurm) -> None:
    scripts = slurm.accept(7)
    requests = [request(tmp_path, name) for name in "abc"]
    assert claim(requests[0].run_dir, 0, job="3") is not None
    sent = sender(tmp_path).submit(requests)
    assert (sent.taken, sent.jobs, sent.problem) == (["a"], {"b": "7_0", "c": "7_1"}, None)
    assert flags((scripts / "7.sh").read_text())["array"].startswith("0-1%")
    assert not (requests[0].run_dir / "planned.json").exists()
    theirs = current(requests[0].run_dir)
    assert theirs is not None and theirs.job == "3" and theirs.withdrawn is None
    about = json.loads((tmp_path / "launches" / "L1" / "arrays" / "0" / "jobs.json").read_text())["jobs"]
    assert [one["run"] for one in about] == ["b", "c"]


def test_a_refusal_frees_the_runs_that_were_not_sent_and_no_other(tmp_path: Path, slurm: FakeSlurm) -> None:
    scripts = slurm.accept(7)
    body = slurm.answers["sbatch"][""]
    words = "sbatch: error: Batch job submission failed: Invalid qos specification"
    slurm.shell("sbatch", f'[ -e {scripts}/7.sh ] && {{ echo "{words}" >&2; exit 1; }}\n{body}')
    requests = [request(tmp_path, "a"), request(tmp_path, "b", LARGE), request(tmp_path, "c", SHARED)]
    sent = sender(tmp_path).submit(requests)
    assert sent.jobs == {"a": "7"}
    assert "Invalid qos specification" in (sent.problem or "") and "the profile's `qos`" in (
        sent.problem or ""
    )
    tokens = {name: read(tmp_path / "runs" / name, 1) for name in "abc"}
    assert (tokens["a"].job, tokens["a"].withdrawn) == ("7", None)
    for name in "bc":
        assert tokens[name].job is None and "Invalid qos" in (tokens[name].withdrawn or "")


def test_a_run_whose_predecessor_is_taken_stops_no_other(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.accept(7)
    assert claim(tmp_path / "runs" / "a", 0) is not None
    requests = [
        request(tmp_path, "a"),
        request(tmp_path, "b"),
        request(tmp_path, "after-a", after="a"),
        request(tmp_path, "after-b", after="b"),
    ]
    sent = sender(tmp_path).submit(requests)
    assert sent.jobs == {"b": "7", "after-b": "8"}
    assert read(tmp_path / "runs" / "after-a", 1).withdrawn


def test_an_interruption_behind_sbatch_does_not_free_the_run(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.accept(7)
    update = Token.update

    def interrupted(self: Token, **fields: Any) -> Token:
        if "job" in fields:
            raise KeyboardInterrupt
        return update(self, **fields)

    monkeypatch.setattr(Token, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sender(tmp_path).submit([request(tmp_path, "a"), request(tmp_path, "b", LARGE)])
    assert read(tmp_path / "runs" / "a", 1).withdrawn is None
    assert read(tmp_path / "runs" / "b", 1).withdrawn


@pytest.mark.parametrize("when", ["before the first", "after the first"])
def test_a_signal_ends_a_launch_between_two_arrays(tmp_path: Path, slurm: FakeSlurm, when: str) -> None:
    scripts = slurm.accept(7)
    if when == "after the first":
        slurm.shell("sbatch", f"kill -TERM $PPID\n{slurm.answers['sbatch']['']}")
    with stop_on(signal.SIGTERM) as stop:
        if when == "before the first":
            os.kill(os.getpid(), signal.SIGTERM)
        sent = sender(tmp_path).submit([request(tmp_path, "a"), request(tmp_path, "b", LARGE)], stop)
    assert sent.signal == signal.SIGTERM and "interrupted" in (sent.problem or "")
    assert list(sent.jobs) == (["a"] if when == "after the first" else [])
    assert len(list(scripts.iterdir())) == len(sent.jobs)
    tokens = [token for name in "ab" if (token := current(tmp_path / "runs" / name)) is not None]
    assert [bool(token.job) for token in tokens] == [token.withdrawn is None for token in tokens]


def test_what_was_sent_is_written_down_as_it_is_sent(tmp_path: Path, slurm: FakeSlurm) -> None:
    """With the profile, for whoever goes on after a launch that was killed."""
    slurm.accept(7)
    launch = tmp_path / "launches" / "L1" / "launch.json"
    slurm.shell("sbatch", f"cp {launch} {tmp_path}/seen-$(ls {tmp_path} | grep -c seen-)\n"
                + slurm.answers["sbatch"][""])  # fmt: skip
    sender(tmp_path).submit([request(tmp_path, "a"), request(tmp_path, "b", LARGE)])
    seen = [json.loads((tmp_path / f"seen-{k}").read_text()) for k in range(2)]
    assert [record["jobs"] for record in seen] == [{}, {"a": "7"}]
    assert Cluster.model_validate(seen[0]["cluster"]) == Cluster()


def test_a_run_of_which_nobody_knows_whether_it_was_sent_is_not_free(
    tmp_path: Path, slurm: FakeSlurm
) -> None:
    slurm.answer("sbatch", error="Batch job submission failed: Socket timed out on send/recv", code=1)
    sent = sender(tmp_path).submit([request(tmp_path, "a"), request(tmp_path, "b", LARGE)])
    assert sent.jobs == {} and "Socket timed out" in (sent.problem or "")
    assert read(tmp_path / "runs" / "a", 1).withdrawn is None
    assert read(tmp_path / "runs" / "b", 1).withdrawn


def test_launches_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    assert len({new_launch(tmp_path) for _ in range(5)}) == 5


def test_one_script_of_each_kind_is_rehearsed(tmp_path: Path, slurm: FakeSlurm) -> None:
    three = zip("abc", (SMALL, LARGE, SMALL), strict=True)
    arrays = [Array((request(tmp_path, name, wanted),)) for name, wanted in three]
    path = tmp_path / "rehearsal.sh"
    rehearse(sender(tmp_path), arrays, partial(write, tmp_path))
    assert slurm.calls("sbatch") == [["--test-only", str(path)]] * 2
    assert not path.exists() and not (tmp_path / "launches").exists()
    slurm.answer("sbatch", error="allocation failure: Requested node configuration is not available", code=1)
    with pytest.raises(ClusterError, match=r"node configuration is not available.*`gpu_type`"):
        rehearse(sender(tmp_path), arrays, partial(write, tmp_path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("partition", "time", "words"),
    [
        ("short", "11", "partition 'short' allows: 10 minutes"),
        ("short", "10", ""),
        (
            "",
            "1-00:01:00",
            "the default partition allows, and the profile names no other (`partition`): 1440",
        ),
        ("", "1-00:00:00", ""),
        ("short,two", "31", "partition 'short,two' allows: 30 minutes"),
        ("short,two", "30", ""),
        ("short,free", "99-0", ""),
        ("new", "99-0", ""),
    ],
)
def test_a_time_that_the_partitions_do_not_allow_is_refused(
    tmp_path: Path, slurm: FakeSlurm, partition: str, time: str, words: str
) -> None:
    """sbatch takes such jobs, and they wait for ever."""
    slurm.answer("sinfo", "main*|1-00:00:00\nshort|10:00\ntwo|30:00\nfree|infinite")
    arrays = [Array((request(tmp_path, "a", Resources(partition=partition, time=time)),))]
    if not words:
        assert rehearse(sender(tmp_path), arrays, partial(write, tmp_path)) == []
        return
    with pytest.raises(ClusterError) as caught:
        rehearse(sender(tmp_path), arrays, partial(write, tmp_path))
    assert words in str(caught.value) and "`time`" in str(caught.value)


@pytest.mark.parametrize(("limit", "refused"), [("00:30:00", True), ("02:00:00", False), ("", False)])
def test_a_time_that_the_qos_does_not_allow_is_refused(
    tmp_path: Path, slurm: FakeSlurm, limit: str, refused: bool
) -> None:
    slurm.answer("sacctmgr", f"{limit}||||||", to="-n -P show qos long")
    arrays = [Array((request(tmp_path, "a", Resources(time="60")),))]
    expected = (
        pytest.raises(ClusterError, match="qos 'long' allows: 30 minutes") if refused else nullcontext()
    )
    with expected:
        assert rehearse(sender(tmp_path, Cluster(qos="long")), arrays, partial(write, tmp_path)) == []


def test_a_qos_may_allow_more_time_than_the_partition(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.answer("sinfo", "main*|1-00:00:00")
    slurm.answer("sacctmgr", "7-00:00:00|||||||PartitionTimeLimit", to="-n -P show qos long")
    for limit, refused in (("7-0", False), ("8-0", True)):
        arrays = [Array((request(tmp_path, "a", Resources(time=limit)),))]
        with pytest.raises(ClusterError, match="qos 'long' allows") if refused else nullcontext():
            rehearse(sender(tmp_path, Cluster(qos="long")), arrays, partial(write, tmp_path))


def test_nodes_that_are_drained_are_a_warning_and_no_refusal(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.answer("sbatch", error="allocation failure: Requested node configuration is not available", code=1)
    slurm.answer("sinfo", "main*|infinite", to="-h -o")
    arrays = [Array((request(tmp_path, "a", Resources(partition="gpu")),))]
    slurm.answer("sinfo", "n[1-3] drained", to="-h -p gpu -t")
    (warning,) = rehearse(sender(tmp_path), arrays, partial(write, tmp_path))
    assert "n[1-3] drained" in warning
    slurm.answer("sinfo", "", to="-h -p gpu -t")
    with pytest.raises(ClusterError, match="node configuration is not available"):
        rehearse(sender(tmp_path), arrays, partial(write, tmp_path))


def write(folder: Path, text: str) -> Path:
    path = folder / "rehearsal.sh"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("invalid partition specified: gpuu", "partition"),
        (
            "Batch job submission failed: Invalid account or account/partition combination specified",
            "account",
        ),
        ("Batch job submission failed: Invalid qos specification", "qos"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "time"),
        ("Batch job submission failed: Requested node configuration is not available", "gpus"),
        ("Invalid generic resource (gres) specification", "gpu_type"),
        ("Invalid feature specification", "constraint"),
        (
            "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
            "and/or time limits)",
            "qos",
        ),
        ("Memory specification can not be satisfied", "memory_gb"),
    ],
)
def test_a_refusal_names_the_key_of_the_profile(words: str, key: str) -> None:
    text = refusal(f"sbatch: error: {words}\n")
    assert text.startswith(words)
    assert f"`{key}`" in text


def test_an_unknown_refusal_is_passed_on() -> None:
    assert refusal("sbatch: error: Something new") == "Something new"
    assert refusal("plain words") == "plain words"
    lua = "sbatch: lua: Please name an account\nsbatch: error: Batch job submission failed: Unspecified error"
    assert "Please name an account" in refusal(lua)  # a site's own job_submit plugin


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small copy of the suite's layout."""
    root = tmp_path / "checkout"
    for package in PACKAGES:
        (root / package / "inner").mkdir(parents=True)
        (root / package / "__init__.py").write_text("")
        (root / package / "inner" / "a.py").write_text(f"NAME = {package!r}\n")
        (root / package / "table.csv").write_text("a,b\n")
        (root / package / "__pycache__").mkdir()
        (root / package / "__pycache__" / "a.py").write_text("old")
        (root / package / "notes.ckpt").write_text("not code")
    (root / "results").mkdir()
    (root / "results" / "run.py").write_text("not a package")
    return root


def test_the_packages_are_copied_with_their_data(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = freeze(Path("results"), {"commit": "abc", "dirty": True}, checkout)
    copied = {path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file()}
    expected = {f"{p}/{name}" for p in PACKAGES for name in ("__init__.py", "inner/a.py", "table.csv")}
    assert copied == expected | {"snapshot.json"}
    assert (code / "slurm" / "inner" / "a.py").read_text() == "NAME = 'slurm'\n"
    record = json.loads((code / "snapshot.json").read_text())
    assert (record["commit"], record["dirty"]) == ("abc", True)
    assert code.is_relative_to(tmp_path / "results")  # a whole path, which jobs see from anywhere
    assert code.stat().st_mode & 0o055 == 0o055  # the group reads it, and so do the nodes' other users


def test_the_same_code_is_copied_once_and_other_code_beside_it(checkout: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    first = freeze(results, {"commit": "abc"}, checkout)
    stamp = (first / "snapshot.json").stat().st_mtime_ns
    (checkout / "slurm" / "notes.ckpt").write_text("still not code")
    os.utime(checkout / "slurm" / "table.csv")
    assert freeze(results, {"commit": "def"}, checkout) == first
    assert (first / "snapshot.json").stat().st_mtime_ns == stamp
    (checkout / "slurm" / "table.csv").write_text("a,c\n")
    second = freeze(results, {}, checkout)
    assert second != first
    assert (first / "slurm" / "table.csv").read_text() == "a,b\n"
    (checkout / "slurm" / "table.csv").rename(checkout / "slurm" / "other.csv")
    assert freeze(results, {}, checkout) not in (first, second)
    assert {path.name for path in (results / "code").iterdir()} >= {first.name, second.name}
    assert not list((results / "code").glob(".building*"))


def test_somebody_who_was_quicker_is_no_error(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(submission.os, "rename", late)
    code = freeze(tmp_path / "results", {}, checkout)
    assert (code / "slurm" / "inner" / "a.py").is_file()
    assert not list((tmp_path / "results" / "code").glob(".building*"))


def test_a_copy_that_cannot_be_put_in_place_is_an_error(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(submission.os, "rename", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        freeze(tmp_path / "results", {}, checkout)


def test_all_that_the_suite_imports_is_frozen(tmp_path: Path) -> None:
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert tops <= set(PACKAGES)
    kinds = {
        p.suffix
        for name in PACKAGES
        for p in (ROOT / name).rglob("*")
        if "__pycache__" not in p.parts and p.is_file()
    }
    assert kinds <= {*KINDS, ""}  # a new kind of file has to be decided about
