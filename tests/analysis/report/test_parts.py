"""Log tails, file names, a run's own curves, and the numbers of the two figures of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.errors import NothingToShow
from analysis.figures.scores import ap_by_run, ap_by_run_data, effects_by_row_data
from analysis.report.runs import BYTES, HEIGHT, LINES, WIDTH, clean, duration, panel_data, panels, tail
from analysis.report.tables import UNSAFE, page_names, prose


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("10 %\r50 %\r100 %\r\nnext", "100 %\nnext"),
        ("a\tb", "a       b"),
        ("a\x00\x08b", "a\ufffd\ufffdb"),
        ("x" * 1001, "x" * 1000 + " ..."),
        ("Δ × ü", "Δ × ü"),
    ],
)
def test_a_log_is_shown_as_a_terminal_leaves_it(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@given(st.text())
def test_no_control_character_is_left_in_a_log(text: str) -> None:
    assert all(sign.isprintable() or sign == "\n" for sign in clean(text))


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0_log.out"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    log = tail(path)
    lines = log.text.splitlines()
    assert log.cut and len(lines) == LINES and lines[-1] == "line 99999" and len(log.text) < BYTES


def test_a_log_that_is_gone_says_so(tmp_path: Path) -> None:
    log = tail(tmp_path / "gone_log.out")
    assert log.text == "cannot be read: No such file or directory"


@given(st.lists(st.text(min_size=1), unique=True))
def test_page_names_are_safe_and_differ_whatever_runs_are_called(names: list[str]) -> None:
    stems = list(page_names(names).values())
    assert len({stem.lower() for stem in stems}) == len(names)
    assert not any(UNSAFE.search(stem) or stem.startswith(".") or len(stem) > 140 for stem in stems)


def test_prose_is_escaped_and_commands_are_code() -> None:
    assert prose("a < b, see `ablate <x>`") == "a &lt; b, see <code>ablate &lt;x&gt;</code>"


def test_a_plain_name_is_its_own_page_name() -> None:
    assert page_names(["csp-fast.add-fa-mini-s0-0f7b"]) == {
        "csp-fast.add-fa-mini-s0-0f7b": "csp-fast.add-fa-mini-s0-0f7b"
    }


def test_curves_fill_their_panel_and_name_their_range() -> None:
    metrics = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "loss/box": [3.0, 1.0, 2.0],
            "loss/id": [5.0, 5.0, 5.0],
            "AP": [None, None, 25.0],
        }
    )
    box, identity, ap = panels(metrics)
    assert box.points == ((0.0, 0.0), (WIDTH / 2, HEIGHT), (WIDTH, HEIGHT / 2))
    assert (box.name, box.low, box.high, box.final) == ("box loss", "1", "3", "2")
    assert identity.name == "id loss" and {y for _, y in identity.points} == {HEIGHT / 2}
    assert ap.sentence == "25 after epoch 3"


@pytest.mark.parametrize("value", [np.nan, np.inf, "text", None])
def test_a_curve_leaves_out_what_is_no_number(value: object) -> None:
    metrics = pd.DataFrame({"epoch": [1, 2, 3], "loss/box": [1.0, value, 3.0], "loss/obj": [value] * 3})
    assert [panel.name for panel in panels(metrics)] == ["box loss"]
    assert panel_data(metrics)["loss/box"].notna().sum() == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.5, "9.5 s"), (95, "1 min 35 s"), (3600, "1 h 0 min"), (90_061, "25 h 1 min")]
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ap_by_run_has_the_t_interval_over_seeds() -> None:
    runs = pd.DataFrame(
        {
            "run": list("abcd"),
            "experiment": ["x", "x", "y", "y"],
            "seed": [0, 1, 0, 1],
            "state": ["done", "done", "done", "running"],
            "AP": [10.0, 30.0, 40.0, 90.0],
        }
    )
    data = ap_by_run_data(runs)
    assert list(data["run"]) == ["c", "a", "b"]  # the best first, no unfinished one
    x = data[data["experiment"] == "x"].iloc[0]
    assert x["mean"] == pytest.approx(20) and x["high"] - x["mean"] == pytest.approx(12.706 * 10, rel=1e-3)
    assert data[data["experiment"] == "y"][["low", "high"]].isna().all(axis=None)
    axis = ap_by_run(data).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["y", "x"]


def test_figures_of_scores_without_scores_say_so() -> None:
    empty = pd.DataFrame({"state": ["running"], "AP": [np.nan]})
    with pytest.raises(NothingToShow, match="No finished run has an AP yet"):
        ap_by_run_data(empty)
    with pytest.raises(NothingToShow, match="with the same seed"):
        effects_by_row_data([])
