"""The run store becomes one DataFrame, whatever state its runs are in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis.runs import COLUMNS, load_runs

Fabricate = Callable[..., str]


def test_an_absent_store_is_an_empty_frame(tmp_path: Path) -> None:
    frame = load_runs(tmp_path / "nothing")
    assert list(frame.columns) == list(COLUMNS)
    assert frame.empty


def test_a_finished_run_has_identity_progress_and_metrics(tmp_path: Path, fabricate: Fabricate) -> None:
    name = fabricate("csp-fast.add-fa", seed=2, ap=0.25, APL=None)
    (row,) = load_runs(tmp_path).to_dict("records")
    assert (row["run"], row["experiment"], row["seed"], row["profile"]) == (
        name,
        "csp-fast.add-fa",
        2,
        "mini",
    )
    assert (row["state"], row["epoch"], row["epochs"], row["seconds"]) == ("done", 3, 24, 9.5)
    assert (row["AP"], row["AP50"]) == (0.25, 0.26)
    assert pd.isna(row["APL"])
    assert row["data"] == "shapes, 640 + 200 images"
    assert Path(row["path"]).name == name


def test_queued_unreadable_and_stray_entries_do_not_stop_the_others(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    done = fabricate("csp-fast")
    runs = tmp_path / "runs"
    (runs / "queued").mkdir()
    (runs / "queued" / "state.json").write_text('{"state": "queued"}')
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text('{"run": ')
    (runs / "listed").mkdir()
    (runs / "listed" / "run.json").write_text("[]")
    (runs / "empty").mkdir()
    (runs / "note.txt").write_text("not a run")
    frame = load_runs(tmp_path).set_index("run")
    assert set(frame.index) == {done, "queued", "broken", "listed", "empty"}
    assert frame.loc[done, "AP"] == 0.4
    assert frame.loc["queued", "state"] == "queued"
    assert frame.loc["broken", "state"] == "unreadable"
    assert "Expecting value" in str(frame.loc["broken", "reason"])
    assert pd.isna(frame.loc["empty", "state"])
