"""Several ranks that train one model: the same result as one process, and an end whatever happens to one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.yolor_core.data.coco_folder import Folder, annotation, picture
from tests.yolor_core.training.conftest import TINY_OPTIMISER
from tests.yolor_core.training.results import assert_nearly_the_same
from yolor_core.config import ImplicitConfig, LossConfig, NumericsConfig, OptimiserConfig, RunConfig, Science
from yolor_core.errors import ConfigError, RunError
from yolor_core.runs.directory import RunDirectory
from yolor_core.training.distributed import Place, SyncBatchNorm, place
from yolor_core.training.step import check_shares

Tiny = Callable[..., RunConfig]
TRAINEE = Path(__file__).with_name("trainee.py")
ADD_FA = ImplicitConfig(site="fa", operator="add", form="factorisation", sparse=0.01)


def adapted(config: RunConfig, **train_fields: object) -> RunConfig:
    recipe = config.science.train.model_copy(update=train_fields)
    return config.model_copy(update={"science": config.science.model_copy(update={"train": recipe})})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**extra: str) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_"))
    }
    return kept | {"OMP_NUM_THREADS": "1", "TRAINEE_DOUBLE": "1"} | extra


def start_rank(config: RunConfig, run_dir: Path, accident: list[str], **variables: str) -> subprocess.Popen:
    file = run_dir.parent / "config.json"
    file.write_text(config.to_json())
    return subprocess.Popen(
        [sys.executable, str(TRAINEE), str(file), str(run_dir), *accident],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train_on(
    ranks: int, config: RunConfig, run_dir: Path, *accident: object, seconds: float = 120
) -> list[tuple[int, str]]:
    """(exit code, output) of every rank, started as torchrun would, but with nobody to kill the others."""
    port, words = str(free_port()), [str(word) for word in accident]
    processes = [
        start_rank(
            config, run_dir, words, RANK=str(r), WORLD_SIZE=str(ranks), LOCAL_RANK=str(r),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for r in range(ranks)
    ]  # fmt: skip
    return ends(processes, seconds)


def all_failed(results: list[tuple[int, str]]) -> bool:
    """Whether every rank ended with an error.

    gloo has been seen to abort (-6) while a rank that has said its error takes leave of one that is gone.
    """
    return all(code in (1, -signal.SIGABRT) for code, _ in results)


def alone(config: RunConfig, run_dir: Path) -> None:
    """One process trains it, or goes on with it, to its end."""
    ((code, output),) = train_on(1, config, run_dir)
    assert code == 0, output


def ends(processes: list[subprocess.Popen], seconds: float) -> list[tuple[int, str]]:
    deadline = time.monotonic() + seconds
    try:
        return [
            (p.returncode, output)
            for p in processes
            for output, _ in [p.communicate(timeout=max(1.0, deadline - time.monotonic()))]
        ]
    finally:
        for process in processes:
            process.kill()


def test_places_are_read_from_torchrun_and_from_srun_but_not_from_a_batch_script() -> None:
    assert place({}) == Place(0, 1, 0)
    assert place({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Place(3, 4, 1)
    step = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
    assert place(step) == Place(0, 1, 0)
    assert place(step | {"SLURM_STEP_NUM_TASKS": "8"}) == Place(5, 8, 1)
    for wrong in ("4", "-1", "first"):
        with pytest.raises(ConfigError, match=f"RANK={wrong}"):
            place({"RANK": wrong, "WORLD_SIZE": "4"})


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_train_as_one_process_does(tiny: Tiny, tmp_path: Path, ranks: int) -> None:
    # 10 images in batches of 4: the last has 2, so with three ranks one has none of it. At a warm-up of 0.1
    # the float32 of losses and targets, 1e-7, grows beyond `ROUNDING` within the second epoch.
    slow = TINY_OPTIMISER.model_copy(update={"warmup_bias_lr": 0.01})
    config = tiny(implicit=(ADD_FA,), optimiser=slow, evaluate_every=1)
    alone(config, tmp_path / "one")
    assert [code for code, _ in train_on(ranks, config, tmp_path / "more")] == [0] * ranks
    assert_nearly_the_same(tmp_path / "one", tmp_path / "more")
    record = RunDirectory(tmp_path / "more").read_run()
    assert record is not None and record["ranks"] == ranks
    evaluation = RunDirectory(tmp_path / "more").read_evaluation()
    assert evaluation is not None and evaluation["images"] == 5


def test_normalising_by_groups_does_not_depend_on_who_has_which_group(tiny: Tiny, tmp_path: Path) -> None:
    config = adapted(
        tiny(implicit=(ADD_FA,)), batch_norm_images=2, loss=LossConfig(images_per_mean=2), multi_scale=0.5
    )
    alone(config, tmp_path / "one")
    results = train_on(2, config, tmp_path / "two")  # the last batch has one group: rank 1 has none
    assert [code for code, _ in results] == [0, 0], results
    assert_nearly_the_same(tmp_path / "one", tmp_path / "two")
    alone(adapted(config, batch_norm_images=0), tmp_path / "whole")
    groups, whole = (load_file(RunDirectory(tmp_path / name).weights) for name in ("one", "whole"))
    assert any(not torch.allclose(groups[name], whole[name], atol=0.01) for name in groups)


def test_a_share_without_boxes_is_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "coco")
    for number in range(10):
        image = folder.add(picture(number, 64, 64), f"{number}.png", (64, 64))
        if number == 0:
            folder.content["annotations"] = [annotation(1, image, [10, 10, 40, 30])]
    config = tiny().model_copy(update={"data": folder.write()})
    config = adapted(config, phases=(config.science.train.phases[0].model_copy(update={"epochs": 1}),))
    alone(config, tmp_path / "one")
    assert [code for code, _ in train_on(2, config, tmp_path / "two")] == [0, 0]
    assert_nearly_the_same(tmp_path / "one", tmp_path / "two")


def test_one_rank_asked_to_stop_stops_all_and_another_number_of_ranks_goes_on(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny(optimiser=OptimiserConfig(nominal_batch=8, warmup_min_iterations=2, warmup_epochs=0.5))
    alone(config, tmp_path / "one")
    assert [code for code, _ in train_on(2, config, tmp_path / "parts", "stop", 1, 2)] == [3, 3]
    state = RunDirectory(tmp_path / "parts").read_state()
    assert state is not None and (state["state"], state["epoch"], state["step"]) == ("preempted", 0, 1)
    assert [code for code, _ in train_on(3, config, tmp_path / "parts", "stop", 0, 3)] == [3] * 3
    alone(config, tmp_path / "parts")
    assert_nearly_the_same(tmp_path / "one", tmp_path / "parts")


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_rank_dies_the_others_end_with_an_error(tiny: Tiny, tmp_path: Path, victim: int) -> None:
    config = tiny()
    results = train_on(2, config, tmp_path / "run", "kill", victim, 5, seconds=60)
    assert results[victim][0] == -9
    code, output = results[1 - victim]
    assert code == 1 and "another rank died or does not answer" in output
    if victim == 1:
        state = RunDirectory(tmp_path / "run").read_state()
        assert state is not None and state["state"] == "failed" and "another rank" in state["reason"]
    alone(config, tmp_path / "one")
    assert [code for code, _ in train_on(1, config, tmp_path / "run")] == [
        0
    ]  # from the checkpoint of the first epoch
    record = RunDirectory(tmp_path / "run").read_run()
    assert record is not None and record["resumes"] == 1
    assert_nearly_the_same(tmp_path / "one", tmp_path / "run")


def test_the_reason_of_a_rank_that_fails_reaches_the_run(tiny: Tiny, tmp_path: Path) -> None:
    results = train_on(2, tiny(), tmp_path / "run", "raise", 1, 2)
    assert all_failed(results), results
    state = RunDirectory(tmp_path / "run").read_state()
    assert state is not None and state["reason"] == "rank 1 failed: an accident"


def test_a_rank_that_hangs_is_given_up_after_the_timeout(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(rank_timeout=4)
    file = tmp_path / "config.json"
    port = str(free_port())
    processes = [
        start_rank(
            config, tmp_path / "run", ["hang", "1", "2"], RANK=str(r), WORLD_SIZE="2", LOCAL_RANK=str(r),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for r in range(2)
    ]  # fmt: skip
    output, _ = processes[0].communicate(timeout=60)
    assert file.exists() and processes[1].poll() is None
    processes[1].kill()
    processes[1].communicate()
    assert processes[0].returncode == 1 and "does not answer" in output


def test_a_nan_on_one_rank_stops_all_before_the_weights_change(tiny: Tiny, tmp_path: Path) -> None:
    results = train_on(2, tiny(), tmp_path / "run", "nan", 1, 4)
    assert all_failed(results), results
    assert all("is not finite at epoch 2, step 1" in output for _, output in results)


def test_srun_sets_ranks_up_as_torchrun_does(tiny: Tiny, tmp_path: Path) -> None:
    common = {
        "SLURM_JOB_ID": str(free_port()),  # decides the port
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "127.0.0.1",
    }
    processes = [
        start_rank(tiny(), tmp_path / "run", [], SLURM_PROCID=str(r), SLURM_LOCALID=str(r), **common)
        for r in range(2)
    ]
    results = ends(processes, 120)
    assert [code for code, _ in results] == [0, 0], results
    record = RunDirectory(tmp_path / "run").read_run()
    assert record is not None and record["ranks"] == 2


def test_torchrun_trains_through_the_command_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "-m",
        "ablations",
    ]
    arguments = ["train", "csp-fast", "--profile", "smoke", "--results", str(tmp_path)]
    result = subprocess.run(
        command + arguments, env=environment(), capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stderr
    (run,) = (RunDirectory(path) for path in (tmp_path / "runs").iterdir())
    assert run.complete()
    record = run.read_run()
    assert record is not None and record["ranks"] == 2
    assert result.stdout.count("done") == 1  # rank 0 speaks for all


def test_torchrun_that_is_stopped_lets_a_run_with_loader_processes_save_itself(tmp_path: Path) -> None:
    words = (
        "-m torch.distributed.run --nproc-per-node=1 --standalone -m ablations train csp-fast --profile smoke"
    )
    more = ["--set", "train.epochs=2000", "--set", "execution.workers=1", "--results", str(tmp_path)]
    process = subprocess.Popen([sys.executable, *words.split(), *more], env=environment())
    deadline = time.monotonic() + 120
    while not (found := list(tmp_path.glob("runs/*/checkpoint.pt"))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    process.terminate()  # it sends SIGTERM to the group of processes of every rank
    process.wait(60)
    state = RunDirectory(found[0].parent).read_state()
    assert state is not None and state["state"] == "preempted", state


def test_a_rank_without_images_exchanges_statistics_in_the_type_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []

    def noted(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        given.append(x.dtype)
        return x

    monkeypatch.setattr(torch.nn.SyncBatchNorm, "forward", noted)
    module = SyncBatchNorm(4)
    for count, kind in ((0, torch.float16), (2, torch.float16), (0, torch.float32)):
        images = torch.ones(count, 4, 3, 3, dtype=kind)
        assert module(images).dtype == kind and module(images).shape == images.shape
    assert given[::2] == [torch.float32, torch.float16, torch.float32]


def test_more_ranks_than_images_or_groups_are_refused(tiny: Tiny) -> None:
    check_shares(tiny().science, 4)
    with pytest.raises(RunError, match="5 ranks, but a batch has only 4 images; at most 4"):
        check_shares(tiny().science, 5)
    with pytest.raises(RunError, match="3 ranks, but a batch has only 2 BatchNorm groups"):
        check_shares(adapted(tiny(), batch_norm_images=2).science, 3)


def test_what_several_ranks_normalise_together_is_not_compiled(tiny: Tiny) -> None:
    def compiled(config: RunConfig) -> Science:
        return config.science.model_copy(update={"numerics": NumericsConfig(compile=True)})

    check_shares(compiled(tiny()), 1)
    check_shares(compiled(adapted(tiny(), batch_norm_images=2)), 2)
    with pytest.raises(RunError, match=r"compile on 2 ranks: .*SyncBN.*; allowed: one rank, or train"):
        check_shares(compiled(tiny()), 2)
