"""Grids on a real cluster: launched once whoever launches, looked at, cancelled, tried again, printed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from slurm.tokens import current
from tests.slurm.cluster.grid import Grid
from yolor_core.identity import source_hash
from yolor_core.runs.directory import RunDirectory

pytestmark = pytest.mark.slow
LONG = ("--set", "train.epochs=2000")


def jobs(grid: Grid) -> set[str]:
    """Ids of all jobs that wait or run."""
    return set(grid.bed.ask("squeue", "-h", "-r", "-o", "%i").split())


def test_seeds_by_a_rule_go_on_where_the_same_command_is_called_again(grid: Grid) -> None:
    words = ("1", "--until-verdict", "--batch", "2", "--most", "2")
    first = grid.launch(*words)
    assert len(first["waiting"]) == 4 and (first["ended"], first["rows"]) == (None, [])
    grid.ended(seconds=600)
    (row,) = grid.launch(*words)["rows"]
    assert (row["seeds"], row["finished"], row["lost"]) == (2, 2, 0) and row["word"] is not None
    again = grid.launch(*words)
    assert again["rows"] == [row] and again["ended"] and len(grid.states()) == 4


def masters(found: set[str]) -> set[str]:
    return {job.split("_")[0] for job in found}


def test_a_grid_goes_from_launch_to_printed_table_in_arrays_that_the_cluster_allows(grid: Grid) -> None:
    longest = int(
        next(
            line.split("=")[1]
            for line in grid.bed.ask("scontrol", "show", "config").splitlines()
            if line.startswith("MaxArraySize")
        )
    )
    first = grid.launch("1", "8", "--seeds", "2")
    sent = {run["run"]: run["job"] for run in first["runs"]}
    assert len(sent) == 10 and None not in sent.values()
    arrays = [
        sum(job.split("_")[0] == master for job in sent.values()) for master in masters(set(sent.values()))
    ]
    # Two fine-tuned runs wait for the runs that they continue, so they are jobs of their own.
    assert max(arrays) <= longest and len(arrays) == 2 + -(-8 // longest)
    again = grid.launch("1", "8", "--seeds", "2")
    assert [run["job"] for run in again["runs"]] == [None] * 10
    grid.ended(seconds=400)
    assert {int(v["seed"]) for v in first["runs"]} == {0, 1}
    for path in (grid.folder / "runs").iterdir():
        record = RunDirectory(path).read_run()
        token = current(path)
        assert record is not None and token is not None
        assert record["source_hash"] == source_hash()
        assert record["jobs"] == [sent[path.name]] == [token.job]
        assert record["resumes"] == 0 and token.number == 1
    fine_tuned = next(grid.folder.glob("runs/*finetuned*s1*"))
    assert (RunDirectory(fine_tuned).read_run() or {})["continues"].startswith(
        "p6-light.add-fa.mul-pr-smoke-s1"
    )
    table = grid.call("tables", "1", "--profile", "smoke").stdout
    assert "seeds 0, 1" in table and "+ iFA" in table
    cells = json.loads(grid.call("tables", "1", "--profile", "smoke", "--format", "json").stdout)
    assert "csp-fast" in json.dumps(cells)
    booked = json.loads(grid.call("cost", "--json").stdout)
    assert sum(record["runs"] for record in booked) == sum(record["done"] for record in booked) == 10
    assert all(record["booked"] > 0 for record in booked)


def test_two_launches_at_the_same_moment_submit_every_run_once(grid: Grid) -> None:
    command = grid.command("launch", "4", "--profile", "smoke", *LONG, "--cluster", grid.profile(), "--json")
    both = [
        subprocess.Popen(
            command, env=grid.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    sent = [run for output, _ in outputs for run in json.loads(output)["runs"] if run["job"]]
    names = [run["run"] for run in sent]
    assert len(names) == len(set(names)) == 6
    assert jobs(grid) == {run["job"] for run in sent}
    assert {path.name for path in grid.folder.glob("runs/*/submits/*")} <= {
        "0001.json",
        "0001.attempts.jsonl",
    }


def test_cancelled_runs_leave_the_cluster_and_a_later_launch_goes_on(grid: Grid) -> None:
    grid.launch("csp-fast", "--set", "train.epochs=60")
    run = grid.training(2)
    assert grid.call("cancel", "csp-fast").stdout == "cancelled 1 run\n"
    grid.until(lambda: not jobs(grid))
    grid.until(lambda: grid.states() == ["cancelled"])
    saved = run.read_state()
    assert saved is not None and saved["epoch"] >= 2
    grid.launch("csp-fast", "--set", "train.epochs=60")
    grid.ended()
    record = run.read_run()
    assert record is not None and record["resumes"] == 1 and len(record["jobs"]) == 2


def test_scancel_is_no_preemption(grid: Grid) -> None:
    grid.launch("csp-fast", *LONG)
    run = grid.training(2)
    token = current(run.path)
    assert token is not None and token.job is not None
    grid.bed.ask("scancel", token.job)
    grid.until(lambda: not jobs(grid))
    grid.until(lambda: grid.states() == ["cancelled"])


def test_a_run_whose_folder_was_removed_is_trained_by_its_new_job_alone(grid: Grid) -> None:
    grid.launch("csp-fast", *LONG)
    run = grid.training(2)
    run.path.rename(run.path.with_name(".removed"))  # a run that writes cannot be removed in one go
    shutil.rmtree(run.path.with_name(".removed"))
    grid.launch("csp-fast", *LONG)
    token = current(run.path)
    assert token is not None
    grid.until(lambda: jobs(grid) == {token.job})  # the old job ends by itself
    state = grid.training(1).read_state()
    assert state is not None and state["state"] == "running"
    grid.call("cancel", "--all")


def test_retry_submits_what_failed_and_nothing_else(grid: Grid) -> None:
    first = grid.launch("csp-fast", "csp-fast.add-fa", "--dry-run")
    spoilt = (
        Path(next(r["run_dir"] for r in first["runs"] if r["experiment"] == "csp-fast.add-fa")) / "run.json"
    )
    spoilt.parent.mkdir(parents=True)
    spoilt.write_text(json.dumps({"run": "another", "signature": "another", "config": {}}))
    grid.launch("csp-fast", "csp-fast.add-fa")
    grid.until(lambda: grid.states() == ["done", "failed"])
    (failed,) = (record for record in grid.status().values() if record["state"] == "failed")
    assert "holds the run another" in failed["reason"]
    log = grid.call("logs", failed["run"]).stdout
    assert "holds the run another" in log and "ending: failed" in log
    spoilt.unlink()
    told = grid.call("retry", "--failed").stdout
    assert "submitted 1 run" in told
    grid.ended()
    numbers = {p.name: token.number for p in grid.folder.glob("runs/*") if (token := current(p)) is not None}
    assert sorted(numbers.values()) == [1, 2] and numbers[failed["run"]] == 2
    assert "nothing to retry" in grid.call("retry", "--failed").stdout


def test_without_accounting_everything_but_the_booked_hours_is_there(grid: Grid) -> None:
    grid.bed.stop_accounting()
    grid.launch("csp-fast", *LONG)
    run = grid.training(1)
    (record,) = grid.status().values()
    assert record["state"] == "running" and record["node"] and record["left"] > 0
    grid.call("cancel", "--all")
    grid.until(lambda: not jobs(grid))
    grid.until(lambda: grid.states() == ["cancelled"])
    cost = grid.call("cost")
    assert "sacct does not answer" in cost.stderr and "csp-fast" in cost.stdout
    assert run.path.is_dir()


def test_what_a_run_prints_is_followed_until_it_ends(grid: Grid) -> None:
    grid.launch("csp-fast")
    followed = grid.call("logs", "csp-fast", "-f")
    assert "ending: done" in followed.stdout


@pytest.mark.parametrize(
    ("profile", "sign", "key"),
    [
        ({"partition": "nowhere"}, "invalid partition", "`partition`"),
        ({"gpus": 5}, "node configuration is not available", "`gpus`"),
        ({"gpu_type": "h100"}, "", "gpu"),
        ({"memory_gb": 4000}, "memory", "`memory_gb`"),
        ({"partition": "short", "time": "2:00:00"}, "longer than partition 'short' allows", "`time`"),
        ({"nodes": 5}, "node", "`nodes`"),
        ({"nodes": 50}, "csp-fast on 50 x 1 processes", "at most 8"),
    ],
)
def test_what_the_cluster_would_refuse_is_said_before_anything_is_written(
    grid: Grid, profile: dict[str, object], sign: str, key: str
) -> None:
    refused = grid.call(
        "launch", "csp-fast", "--profile", "smoke", "--cluster", grid.profile(**profile), code=2
    )
    assert sign in refused.stderr.lower() and key in refused.stderr
    assert not grid.folder.exists()
    assert not jobs(grid)


def test_the_check_proves_a_profile_with_a_tiny_job(grid: Grid) -> None:
    found = json.loads(grid.call("cluster", "check", grid.profile(), "--json").stdout)
    words = {finding["what"]: finding["words"] for finding in found}
    assert {finding["level"] for finding in found} == {"ok"}
    assert "is shared" in words["results"] and str(grid.folder / "code") in words["code"]
    assert "preempted" not in words["preemption"] and "signal" in words["preemption"]
    missing = grid.call("cluster", "check", grid.profile(partition="nowhere"), "--json", code=1)
    problem = next(f for f in json.loads(missing.stdout) if f["level"] == "problem")
    assert "'nowhere' is not there; there are: main, short, urgent" in problem["words"]
    blind = grid.call("cluster", "check", grid.profile(device="cuda"), "--json", code=1)
    problem = next(f for f in json.loads(blind.stdout) if f["level"] == "problem")
    assert "1 were asked for, torch sees 0" in problem["words"]
    grid.until(lambda: not jobs(grid))
