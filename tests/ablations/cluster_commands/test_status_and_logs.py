"""`ablate status` and `ablate logs` of submitted runs."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from click.testing import Result

from slurm.tokens import current
from tests.ablations.cluster_commands.submitted import NAMES, Ablate, job_of, run_of
from tests.slurm.fake_slurm import FakeSlurm


def records(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {record["run"]: record for record in json.loads(result.stdout)}


def test_status_shows_cluster_runs_with_node_and_reason(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    jobs = [job_of(results, name) for name in NAMES]
    slurm.answer("squeue", f"{jobs[0]}|RUNNING|n17|0:10|None\n{jobs[1]}|PENDING||0:00|Resources")
    slurm.answer("sacct", f"{jobs[2]}|NODE_FAIL|60|cpu=1|n3")
    run_of(results, "csp-fast").write_state("running", epoch=1, epochs=4, seconds=3600.0)
    found = records(ablate("status", "--json"))
    running, waiting, lost = (found[run_of(results, name).path.name] for name in NAMES)
    assert (running["state"], running["node"], running["gpu_hours"]) == ("running", "n17", 1.0)
    assert (waiting["state"], waiting["reason"]) == ("queued", "waits: Resources")
    assert lost["reason"] == "its node was lost"
    lines = ablate("status").stdout.splitlines()
    assert lines[0].split()[-2:] == ["h", "reason"]
    (line,) = (line for line in lines if line.startswith(f"{running['run']} "))
    assert "n17" in line and "1/4" in line
    assert records(ablate("status", "csp-fast.add-fa", "--json")).keys() == {waiting["run"]}


def test_a_hanging_scheduler_does_not_hold_status_up(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    for program in ("squeue", "sacct"):
        slurm.shell(program, "exec sleep 60")
    run_of(results, "csp-fast").write_state("running", epoch=1, epochs=4)
    found = records(ablate("status", "--json"))
    assert found[run_of(results, "csp-fast").path.name]["state"] == "running"


def test_logs_are_those_of_the_last_job(
    ablate: Ablate, slurm: FakeSlurm, launched: Path, results: Path
) -> None:
    run = run_of(results, "csp-fast")
    token = current(run.path)
    assert token is not None and token.log is not None
    slurm.answer("squeue", f"{token.job}|RUNNING|n1|0:10|None")
    nothing = ablate("logs", "csp-fast")
    assert nothing.exit_code == 2
    assert "has written nothing" in nothing.stderr
    token.log.write_text("".join(f"line {k}\n" for k in range(100)))
    token.log.with_name(f"{token.job}_1_log.out").write_text("from the second\n")
    assert ablate("logs", run.path.name, "-n", "2").stdout == "line 98\nline 99\n"
    assert len(ablate("logs", "csp-fast").stdout.splitlines()) == 40
    assert ablate("logs", "csp-fast", "-n", "0").stdout == ""
    assert ablate("logs", "csp-fast", "--rank", "1").stdout == "from the second\n"
    several = ablate("logs", "csp*")
    assert several.exit_code == 2 and "means 3 runs" in several.stderr


def test_a_run_that_shares_its_job_has_a_log_of_its_own(
    ablate: Ablate, slurm: FakeSlurm, shared: str, results: Path
) -> None:
    slurm.answer("squeue", "7|RUNNING|n1|0:10|None")
    (folder,) = results.glob("launches/*/arrays/0")
    (folder / "7_script_log.out").write_text("module: no such module\n")
    for place, name in enumerate(NAMES):
        assert ablate("logs", name).stdout == "module: no such module\n"  # no run has begun
        (folder / f"7_{place}_log.out").write_text(f"{name} begins\n")
    assert [ablate("logs", name).stdout for name in NAMES] == [f"{name} begins\n" for name in NAMES]
    assert ablate("logs", "csp-fast", "--rank", "1").exit_code == 2  # a run of one process


def test_following_a_run_that_has_ended_ends(ablate: Ablate, launched: Path, results: Path) -> None:
    token = current(run_of(results, "csp-fast").path)
    assert token is not None and token.log is not None
    token.log.write_text("the end\n")
    assert ablate("logs", "csp-fast", "-f").stdout == "the end\n"


def test_following_goes_on_until_the_job_has_said_how_it_ended(
    ablate: Ablate, launched: Path, results: Path
) -> None:
    run = run_of(results, "csp-fast")
    token = current(run.path)
    assert token is not None and token.log is not None
    token.note("start", job=token.job, restart=0)
    token.log.write_text("trained\n")
    run.write_state("done", epoch=4, epochs=4)

    def end() -> None:
        with token.log.open("a") as log:
            log.write("ending: done\n")
        token.note("end", job=token.job, kind="done")

    script = threading.Timer(1.5, end)
    script.start()
    assert ablate("logs", "csp-fast", "-f").stdout == "trained\nending: done\n"
    script.join()
