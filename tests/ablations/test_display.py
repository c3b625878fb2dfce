"""What a person sees of runs is what the runs' own files say."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ablations.display import LaunchDisplay, RunView, clock, describe, seen, summary, table
from slurm.local import Job, Outcome
from yolor_core.errors import counted
from yolor_core.runs import State


def run_folder(root: Path, **state: object) -> Path:
    root.mkdir(exist_ok=True)
    (root / "state.json").write_text(json.dumps({"state": "running", **state}))
    lines = [
        {"epoch": e, "loss/box": 0.5 / e, "loss/obj": 0.25, "loss/cls": 0.125, "AP": None} for e in (1, 2)
    ]
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_a_run_is_seen_with_its_last_loss_and_the_time_it_still_takes(tmp_path: Path) -> None:
    found = seen(run_folder(tmp_path, epoch=2, epochs=4, step=5, steps=10, ap=0.125, seconds=61.5))
    assert (found.epoch, found.epochs, found.step, found.steps) == (2, 4, 5, 10)
    assert (found.loss, found.ap, found.seconds) == (0.25 + 0.25 + 0.125, 0.125, 61.5)
    assert found.left == pytest.approx(61.5 * 1.5 / 2.5)
    assert describe(found) == "epoch 2/4  loss 0.625  AP 12.5"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"epoch": null}',
        '{"state": "running", "ap": "y", "epoch": [1], "epochs": "x", "loss/box": "z", "step": NaN}',
    ],
)
def test_broken_or_missing_files_are_no_progress(tmp_path: Path, text: str) -> None:
    nothing = RunView(tmp_path.name, tmp_path, State.RUNNING)
    assert seen(tmp_path) == nothing
    (tmp_path / "state.json").write_text(text)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert seen(tmp_path) == nothing
    assert describe(nothing) == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75.9, "1:15"), (3700, "1:01:40"), (None, "")])
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def test_one_is_not_many() -> None:
    one = RunView("a", Path("a"), State.DONE)
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert [counted(2, thing) for thing in ("box", "class", "identity")] == [
        "2 boxes",
        "2 classes",
        "2 identities",
    ]
    assert summary([one]) == "1 run: 1 done"
    assert summary([one, replace(one, state=State.NOT_SENT), one]) == "3 runs: 2 done, 1 not sent"


def jobs(root: Path) -> list[Job]:
    names = ("one", "two", "three")
    return [Job(name, run_folder(root / name, epoch=2, epochs=4, ap=0.125), "nothing") for name in names]


def test_without_a_terminal_every_change_is_a_plain_line(tmp_path: Path) -> None:
    one, two, three = jobs(tmp_path)
    output = io.StringIO()
    ended: list[str] = []
    console = Console(file=output, width=200)
    with LaunchDisplay([one, two, three], console, lambda job, outcome: ended.append(job.name)) as display:
        display.started(one)
        display.started(two)
        display.ended(one, Outcome("done"))
        display.ended(two, Outcome("failed", "ValueError: [no] width"))
        display.waiting(three)
        display.waiting(three)
        display.tick(stopping=True)
    lines = output.getvalue().splitlines()
    assert lines[0] == "started    one  (resumes: epoch 2/4  loss 0.625  AP 12.5)"
    assert "done       one  epoch 2/4  loss 0.625  AP 12.5" in lines[2]
    assert "1 of 3 done, 1 queued, 1 running" in lines[2]
    assert lines[3].startswith("failed     two") and "ValueError: [no] width" in lines[3]
    assert [line for line in lines if "elsewhere" in line] == lines[4:5]
    assert lines[5] == "stopping: 1 running save their work first; again to kill them"
    assert ended == ["one", "two"]
    assert "\x1b" not in output.getvalue()


def test_a_run_whose_loss_was_not_finite_is_shown_as_diverged(tmp_path: Path) -> None:
    job = Job("a", run_folder(tmp_path / "a", state="failed"), lambda stop: "done")
    (job.run_dir / "nonfinite.json").write_text("{}")
    output = io.StringIO()
    display = LaunchDisplay([job], Console(file=output, width=200))
    display.ended(job, Outcome("failed", "NonFiniteError: loss/box is not finite"))
    assert output.getvalue().startswith("diverged   a") and "0 of 1 done, 1 diverged" in output.getvalue()


def drawn(display: LaunchDisplay) -> list[str]:
    screen = Console(file=io.StringIO(), width=display.console.width, record=True)
    screen.print(display)
    return [line.rstrip() for line in screen.export_text().splitlines()]


def test_a_terminal_shows_one_line_per_run(tmp_path: Path) -> None:
    one, two, three = jobs(tmp_path)
    output = io.StringIO()
    console = Console(file=output, width=120, height=30, force_terminal=True, _environ={})
    with LaunchDisplay([one, two, three], console) as display:
        display.started(two)
        display.ended(one, Outcome("done"))
        run_folder(two.run_dir, epoch=3, epochs=4, ap=0.25)
        display.tick(stopping=True)
        lines = drawn(display)
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["two", "running"],
        ["three", "queued"],
        ["one", "done"],
    ]
    assert lines[1].split()[2:5] == ["3/4", "0.625", "25.0"]
    assert lines[1].endswith("saves its work")
    assert lines[4].startswith("1 of 3 done, 1 queued, 1 running; 0:00 elapsed")
    plain = output.getvalue()
    assert "3/4" in plain and plain.count("\x1b[?25l") == plain.count("\x1b[?25h") == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_shortens_names_and_no_numbers(tmp_path: Path, width: int) -> None:
    folder = run_folder(tmp_path, epoch=12, epochs=300, step=34, steps=160, ap=0.125, seconds=3700)
    slugs = ["p6-light.add-fa.mul-pr.finetuned", "csp-fast.add-fa"]
    all_jobs = [
        Job(f"{slug}-mini-s0-0123456789", folder, lambda stop: "done", label=f"{slug} s0") for slug in slugs
    ]
    display = LaunchDisplay(all_jobs, Console(file=io.StringIO(), width=width, height=24))
    display.started(all_jobs[0])
    display.ended(all_jobs[1], Outcome("failed", "ValueError: the width is negative, and more of the kind"))
    text = drawn(display)
    assert len(text) == 4
    assert all(len(line) <= width for line in text[:3])
    for number in ("running", "12/300", "0.625", "12.5", *(("34/160", "1:01:40") if width >= 80 else ())):
        assert number in text[1].split()
    assert text[1].startswith("p6-light")
    assert text[2].startswith("csp-fast.add-fa s0")
    assert ("ValueError" in text[2]) == (width == 120)


def test_a_table_is_as_long_as_the_terminal_and_leaves_out_what_is_done(tmp_path: Path) -> None:
    views = [RunView(f"r{k}", tmp_path, State.DONE) for k in range(20)]
    views[7] = replace(views[7], state=State.QUEUED)
    views[12] = replace(views[12], state=State.RUNNING, node="n17", gpu_hours=1.0)
    screen = Console(file=io.StringIO(), width=120, height=10, record=True)
    screen.print(table(views, screen, "20 runs"))
    lines = [line.split() for line in screen.export_text().splitlines()]
    assert lines[0] == ["run", "state", "node", "GPU", "h"]
    assert lines[1:3] == [["r12", "running", "n17", "1.00"], ["r7", "queued"]]
    assert len(lines) == 1 + 4 + 1
