"""Curves over epochs, from frames written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from analysis.design import VAL_LOSS, Design, OverEpochs
from analysis.errors import NothingToShow
from analysis.figures import curves
from analysis.figures.style import signed
from analysis.runs import KEYS
from analysis.series import BANDS
from analysis.statistics.seeds import over_seeds

EMPTY = pd.DataFrame(columns=[*KEYS, "epoch"])


def run(
    experiment: str = "csp", seed: int = 0, epochs: int = 3, profile: str = "mini", **more: Any
) -> pd.DataFrame:
    """Metrics of one run; AP is known after the last two epochs."""
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "run": f"{experiment}-{profile}-s{seed}",
            "experiment": experiment,
            "profile": profile,
            "seed": seed,
            "epoch": epoch,
            "loss/box": 1 / epoch + 0.1 * seed,
            "loss/obj": 2 / epoch,
            "loss/cls": 3 / epoch,
            "lr/weights": 0.01 / epoch,
            "lr/bias": 0.1 / epoch,
            "seconds": 1800.0,
            "images_per_second": 50.0 + seed,
            "AP": np.where(epoch > epochs - 2, 10.0 * epoch + seed, np.nan),
            **more,
        }
    )


def together(*runs: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(runs, ignore_index=True)


def at(data: pd.DataFrame, series: str, quantity: str, epoch: int) -> pd.Series:
    rows = data[(data["series"] == series) & (data["quantity"] == quantity) & (data["epoch"] == epoch)]
    assert len(rows) == 1
    return rows.iloc[0]


def labelled(axes: Axes) -> dict[str, Any]:
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def drawn(axes: Axes) -> list[Any]:
    """The lines of a panel in order of their series."""
    return [line for line in axes.get_lines() if len(line.get_xdata())]


def title(made: Figure) -> str:
    return " ".join(made.legends[0].get_title().get_text().split())


def test_few_seeds_are_banded_by_their_extremes_and_one_run_has_no_band() -> None:
    data = curves.losses_data(together(*(run(seed=seed) for seed in range(3))))
    row = at(data, "csp", "loss/box", 2)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.6, 0.5, 0.7))
    assert (row["runs"], row["of"], row["band"]) == (3, 3, BANDS[0])
    made = curves.losses(data)
    (band,) = [each for each in made.axes[0].collections if isinstance(each, FillBetweenPolyCollection)]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((1 / 3, 1.2))
    assert "Thin" not in title(made)
    single = curves.losses_data(run())
    assert set(single["band"]) == {""} and (single["low"] == single["high"]).all()
    assert title(curves.losses(single)) == "One run each."


def test_five_seeds_are_banded_by_the_t_interval_of_their_mean() -> None:
    data = curves.losses_data(together(*(run(seed=seed) for seed in range(5))))
    row, expected = at(data, "csp", "loss/box", 1), over_seeds([1 + 0.1 * seed for seed in range(5)])
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert row["band"] == BANDS[1]
    assert BANDS[1] in title(curves.losses(data))


def test_fig_11_has_a_line_with_and_one_without_implicit_knowledge_in_each_panel() -> None:
    data = curves.losses_data(together(run("csp-fast"), run("csp-fast.add-fa", epochs=2)))
    made = curves.losses(data)
    assert [axes.get_title() for axes in made.axes] == ["box", "objectness", "classification"]
    for axes, scale in zip(made.axes, (1, 2, 3), strict=True):
        assert list(labelled(axes)) == ["csp-fast", "csp-fast.add-fa"]
        lines = drawn(axes)
        assert lines[0].get_ydata() == pytest.approx([scale, scale / 2, scale / 3])
        assert lines[1].get_ydata() == pytest.approx([scale, scale / 2])
        styles = {(line.get_linestyle(), line.get_marker()) for line in labelled(axes).values()}
        assert len(styles) == 2
    assert made.axes[-1].get_xlabel() == "epoch"


def test_epochs_that_only_some_seeds_have_reached_are_thin_and_said() -> None:
    data = curves.losses_data(together(run(epochs=4), run(seed=1, epochs=2)))
    assert at(data, "csp", "loss/box", 4)["runs"] == 1
    made = curves.losses(data)
    full, thin = [line for line in made.axes[0].get_lines() if len(line.get_xdata())]
    assert list(full.get_xdata()) == [1, 2]
    assert list(thin.get_xdata()) == [2, 3, 4] and thin.get_linewidth() < full.get_linewidth()
    assert "Thin: some runs have not come so far." in title(made)


def test_profiles_and_runs_of_one_seed_are_series_of_their_own() -> None:
    data = curves.losses_data(together(run(), run(profile="proxy", epochs=5)))
    assert set(data["series"]) == {"csp (mini)", "csp (proxy)"}
    other = run().assign(run="csp-mini-s0-other")
    data = curves.losses_data(together(run(), other, run("p6")))
    assert set(data["series"]) == {"csp-mini-s0", "csp-mini-s0-other", "p6"}


def test_ap_is_in_percent_and_only_of_evaluated_epochs() -> None:
    data = curves.ap_data(run())
    assert data["epoch"].tolist() == [2, 3]
    assert data["mean"].tolist() == pytest.approx([20, 30])
    assert curves.ap(data).axes[0].get_ylabel() == "AP (%)"


def test_one_evaluation_of_several_seeds_shows_its_spread() -> None:
    data = curves.ap_data(together(run(epochs=1), run(epochs=1, seed=1)))
    (bar,) = [each for each in curves.ap(data).axes[0].collections if hasattr(each, "get_segments")]
    assert sorted(bar.get_segments()[0][:, 1]) == pytest.approx([10, 11])


def test_series_of_a_single_epoch_stand_side_by_side() -> None:
    data = curves.ap_data(together(run("a", epochs=1), run("b", epochs=1), run("c", epochs=1)))
    axes = curves.ap(data).axes[0]
    places = sorted({float(line.get_xdata()[0]) for line in drawn(axes)})
    assert places == pytest.approx([0.85, 1, 1.15])
    assert [tick for tick in axes.get_xticks() if 0.5 < tick < 1.5] == [1]


def test_costs_count_every_epoch_on_every_rank() -> None:
    runs = pd.DataFrame({"run": ["csp-mini-s0", "p6-mini-s0"], "ranks": [8, 1]})
    data = curves.cost_data(together(run(), run("p6")), runs).set_index("series")
    assert data["minutes"].to_dict() == {"csp": 8 * 3 * 30, "p6": 3 * 30}
    assert data["speed"].tolist() == [50, 50]
    made = curves.cost(data.reset_index())
    assert [axes.get_xlabel() for axes in made.axes] == ["device hours", "images / s"]
    hours = [
        offsets[:, 0].tolist() for each in made.axes[0].collections if len(offsets := each.get_offsets())
    ]
    assert hours == [[12], [1.5]]
    short = curves.cost_data(run(seconds=60.0), runs)
    assert curves.cost(short).axes[0].get_xlabel() == "device minutes"


def test_differences_in_ap_are_paired_by_seed_and_the_baselines_last_epoch_stays() -> None:
    base = [run(seed=seed, AP=[10.0, 20.0 + seed, np.nan]) for seed in (0, 1)]
    longer = [run("a", seed, epochs=4, AP=[10.0, np.nan, 50.0, 60.0 + seed]) for seed in (0, 1, 2)]
    data = curves.ap_differences_data(together(*base, *longer), {"csp": "csp", "a": "csp", "gone": "csp"})
    assert data["series"].tolist() == ["a"] * 3 and data["against"].tolist() == ["csp"] * 3
    assert data["epoch"].tolist() == [1, 3, 4], "at epoch 2 only the baseline was evaluated"
    assert data["mean"].tolist() == pytest.approx([0, 29.5, 40]) and (data["runs"] == 2).all()
    expected = over_seeds([30, 29])
    assert data.loc[1, ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high])
    made = curves.ap_differences(data, {3: "fine-tuning"})
    assert made.axes[0].get_title() == "a\n+40.0 [+40.0, +40.0]"
    assert "Dotted: from epoch 3 fine-tuning" in title(made)
    assert [line.get_xdata()[0] for line in made.axes[0].get_lines() if line.get_linestyle() == ":"] == [2.5]
    with pytest.raises(NothingToShow, match="same seed at the same epoch"):
        curves.ap_differences_data(together(base[0], longer[2]), {"a": "csp"})
    # What a baseline that failed had come to by then is not compared with later epochs.
    frame = together(*base, *longer)
    one = frame.loc[(frame["experiment"] == "csp") & (frame["seed"] == 1), "run"].iloc[0]
    data = curves.ap_differences_data(frame, {"a": "csp"}, {one})
    assert data["epoch"].tolist() == [1, 3, 4] and data["runs"].tolist() == [2, 1, 1]
    assert data["mean"].tolist() == pytest.approx([0, 29, 40])


def test_more_series_than_a_panel_has_room_for_are_said() -> None:
    made = curves.ap(curves.ap_data(together(*(run(f"e{place}") for place in range(10)))))
    assert len(labelled(made.axes[0])) == 8 and "2 more are in the data only" in title(made)


def test_equal_learning_rates_are_drawn_once() -> None:
    slower = run("slow", **{"lr/weights": 0.001})
    data = curves.learning_rate_data(together(run("a"), run("b"), run("c"), slower))
    assert set(data["series"]) == {"a and 2 alike", "slow"}
    made = curves.learning_rate(data)
    assert [axes.get_yscale() for axes in made.axes] == ["log", "log"]
    made.draw_without_rendering()
    ticks = [label.get_text() for label in made.axes[0].get_yticklabels()]
    assert "0.01" in ticks and not any("$" in tick for tick in ticks)


def test_conflict_has_a_panel_for_each_pair_and_a_line_at_nothing() -> None:
    pairs = {"conflict/detection-embedding": [0.2, np.nan, -0.1]}
    others = {"conflict/detection-classification": 0.3}
    data = curves.conflict_data(together(run("jde", **pairs), run("jdc", **others), run("csp")))
    made = curves.conflict(data)
    assert {axes.get_title() for axes in made.axes} == {
        "detection and embedding",
        "detection and classification",
    }
    assert set(data["series"]) == {"jde", "jdc"}
    for axes in made.axes:
        assert any(list(line.get_ydata()) == [0, 0] for line in axes.get_lines())
    colours = [drawn(axes)[0].get_color() for axes in made.axes]
    assert colours[0] != colours[1], "a series looks the same in all panels, and two series differ"


def test_values_that_are_no_numbers_are_left_out() -> None:
    data = curves.losses_data(run(**{"loss/box": [1.0, np.inf, None]}))
    assert data[data["quantity"] == "loss/box"]["epoch"].tolist() == [1]


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        (curves.losses_data, "loss"),
        (curves.ap_data, "AP"),
        (curves.learning_rate_data, "learning rate"),
        (curves.conflict_data, "several tasks"),
    ],
)
def test_what_is_missing_is_named(make: Callable[[pd.DataFrame], pd.DataFrame], missing: str) -> None:
    for frame in (EMPTY, run()[[*KEYS, "epoch"]]):
        with pytest.raises(NothingToShow, match=missing):
            make(frame)


def test_costs_without_times_are_not_shown() -> None:
    runs = pd.DataFrame({"run": ["csp-mini-s0"], "ranks": [1]})
    for frame in (EMPTY, run().drop(columns="seconds")):
        with pytest.raises(NothingToShow, match="seconds"):
            curves.cost_data(frame, runs)


def test_validation_losses_are_compared_by_their_logarithms_at_every_epoch_and_in_their_mean() -> None:
    """With two arms the design leaves the paired t of each row, here by scipy."""
    rng = np.random.default_rng(3)
    losses = {arm: np.exp(rng.normal(-1, 0.1, (4, 3))) for arm in ("csp", "csp.add-fa")}
    metrics = together(
        *(
            run(arm, seed, **{"val/loss": row})
            for arm, rows in losses.items()
            for seed, row in enumerate(rows)
        )
    )
    first = metrics.drop_duplicates("run")
    runs = first.assign(state="done", signature=first["experiment"], fingerprint="f", source_hash="s")
    design = Design({arm: runs[runs["experiment"] == arm] for arm in losses})
    compared = OverEpochs.of(design, metrics, VAL_LOSS)
    data = curves.val_loss_differences_data(compared, {"csp": "csp", "csp.add-fa": "csp"})

    own, base = np.log(losses["csp.add-fa"]), np.log(losses["csp"])
    for epoch in range(3):
        expected = ttest_rel(own[:, epoch], base[:, epoch])
        ends = [(own - base)[:, epoch].mean(), *expected.confidence_interval()]
        row = data.iloc[epoch]
        assert (row["series"], row["against"], row["epoch"], row["runs"]) == (
            "csp.add-fa",
            "csp",
            epoch + 1,
            4,
        )
        assert [row["mean"], row["low"], row["high"]] == pytest.approx(100 * np.expm1(ends))
    mean = ttest_rel(own.mean(1), base.mean(1))
    wanted = 100 * np.expm1(list(mean.confidence_interval()))
    assert data["p"].tolist() == pytest.approx([mean.pvalue] * 3)
    assert data.loc[0, ["overall_low", "overall_high"]].tolist() == pytest.approx(wanted)
    made = curves.val_loss_differences(data)
    assert f"[{signed(wanted[0], 1)}, {signed(wanted[1], 1)}]" in made.axes[0].get_title()

    with pytest.raises(NothingToShow, match="have recorded losses on the validation images"):
        curves.val_loss_differences_data(OverEpochs.of(design, run(), VAL_LOSS), {"csp.add-fa": "csp"})
