"""Progress is what the run's own files say."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from slurm.job import Job, Outcome
from slurm.progress import Progress, Snapshot, clock, describe, snapshot


def run_folder(root: Path, **state: object) -> Path:
    (root / "state.json").write_text(json.dumps(state))
    lines = [
        {"epoch": e, "loss/box": 0.5 / e, "loss/obj": 0.25, "loss/cls": 0.125, "AP": None} for e in (1, 2)
    ]
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_a_snapshot_sums_the_last_loss_terms_and_knows_the_fraction(tmp_path: Path) -> None:
    seen = snapshot(run_folder(tmp_path, epoch=2, epochs=4, step=5, steps=10, ap=0.125, seconds=61.5))
    assert seen == Snapshot(2, 4, 5, 10, 0.25 + 0.25 + 0.125, 0.125, 61.5)
    assert seen.fraction == pytest.approx(2.5 / 4)
    assert describe(seen) == "epoch 2/4  loss 0.625  AP 12.5"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"epoch": null}',
        '{"ap": "y", "epoch": [1], "epochs": "x", "loss/box": "z", "step": NaN}',
    ],
)
def test_broken_or_missing_files_are_no_progress(tmp_path: Path, text: str) -> None:
    assert snapshot(tmp_path) == Snapshot()
    (tmp_path / "state.json").write_text(text)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert snapshot(tmp_path).fraction == 0.0
    assert describe(snapshot(tmp_path)) == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75.9, "1:15"), (3700, "1:01:40"), (None, "")])
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def jobs(root: Path) -> list[Job]:
    for name in ("one", "two", "three"):
        (root / name).mkdir()
        run_folder(root / name, epoch=2, epochs=4, ap=0.125)
    return [Job(name, root / name, lambda stop: "done") for name in ("one", "two", "three")]


def test_without_a_terminal_every_change_is_a_plain_line(tmp_path: Path) -> None:
    one, two, three = jobs(tmp_path)
    output = io.StringIO()
    ended: list[str] = []
    console = Console(file=output, width=200)
    with Progress([one, two, three], console, lambda job, outcome: ended.append(job.name)) as progress:
        progress.started(one)
        progress.started(two)
        progress.ended(one, Outcome("done"))
        progress.ended(two, Outcome("failed", "ValueError: [no] width"))
        progress.waiting(three)
        progress.waiting(three)
        progress.tick(stopping=True)
    lines = output.getvalue().splitlines()
    assert lines[0].startswith("started    one")
    assert "done       one  epoch 2/4  loss 0.625  AP 12.5" in lines[2]
    assert "1 of 3 done, 1 running, 1 waiting" in lines[2]
    assert "ValueError: [no] width" in lines[3]
    assert [line for line in lines if "elsewhere" in line] == lines[4:5]
    assert ended == ["one", "two"]
    assert "\x1b" not in output.getvalue()


def test_a_terminal_shows_one_line_per_run(tmp_path: Path) -> None:
    one, two, three = jobs(tmp_path)
    output = io.StringIO()
    console = Console(file=output, width=120, height=30, force_terminal=True, _environ={})
    with Progress([one, two, three], console) as progress:
        progress.started(two)
        progress.ended(one, Outcome("done"))
    last = Console(file=io.StringIO(), width=120, record=True)
    last.print(progress.__rich__())
    text = last.export_text().splitlines()
    assert [line.split()[:2] for line in text[1:4]] == [
        ["two", "running"],
        ["three", "waiting"],
        ["one", "done"],
    ]
    assert text[1].split()[2:5] == ["2/4", "0.625", "12.5"]
    assert text[4].startswith("1 of 3 done, 1 running, 1 waiting; 0:00 elapsed")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_shortens_names_and_no_numbers(tmp_path: Path, width: int) -> None:
    folder = run_folder(tmp_path, epoch=12, epochs=300, step=34, steps=160, ap=0.125)
    slugs = ["p6-light.add-fa.mul-pr.finetuned", "csp-fast.add-fa"]
    all_jobs = [
        Job(f"{slug}-mini-s0-0123456789", folder, lambda stop: "done", label=f"{slug} s0") for slug in slugs
    ]
    console = Console(file=io.StringIO(), width=width, height=24, record=True)
    progress = Progress(all_jobs, console)
    progress.started(all_jobs[0])
    progress.lines[all_jobs[0].name].began -= 3700
    progress.lines[all_jobs[0].name].began_at = 0.0
    progress.ended(all_jobs[1], Outcome("failed", "ValueError: the width is negative, and more of the kind"))
    console.export_text()
    console.print(progress)
    text = console.export_text().splitlines()
    assert len(text) == 4
    assert all(len(line) <= width for line in text[:3])
    for number in ("running", "12/300", "0.625", "12.5", *(("34/160", "1:01:40") if width >= 80 else ())):
        assert number in text[1].split()
    assert text[1].startswith("p6-light")
    assert text[2].startswith("csp-fast.add-fa s0")
    assert ("ValueError" in text[2]) == (width == 120)
