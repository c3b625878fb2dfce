"""What happened over the epochs: losses (Fig. 11), AP, learning rates, conflict between tasks; and costs.

Each figure is a pair: `…_data` turns the frame of `analysis.runs.load_metrics` into the frame behind the
figure, and the function without `_data` draws that. Runs may be of any number and have come to any epoch.
The frames are those of `analysis.series`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.design import OverEpochs
from analysis.errors import NothingToShow
from analysis.figures.style import (
    GREY,
    LINE,
    PALETTE,
    REST,
    RING,
    SERIES,
    Look,
    Width,
    curves,
    cut,
    drawn,
    facets,
    figure,
    legend,
    looks,
    plain,
    signed,
    spread,
    whole,
)
from analysis.series import over_runs, series_names
from analysis.statistics.seeds import Interval, over_seeds

LOSSES = {"loss/box": "box", "loss/obj": "objectness", "loss/cls": "classification"}
RATES = {"lr/weights": "weights", "lr/bias": "biases"}
CONFLICT = "conflict/"
COSTS = {"minutes": "device minutes", "speed": "images / s"}
ROWS = 12  # panels of differences
OVERALL = ["overall", "overall_low", "overall_high", "p"]


def losses_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Fig. 11: box, objectness and classification loss (gains applied, batch factor not) over epochs.

    Raises NothingToShow where no run detects and has finished an epoch.
    """
    return over_runs(metrics, LOSSES, "a loss of detection")


@drawn
def losses(data: pd.DataFrame, phases: Mapping[int, str] | None = None, width: Width = "column") -> Figure:
    """Fig. 11: a panel for each loss over epochs, a line for each experiment, a band over its seeds.

    phases: the epochs with which a later phase of a training begins, and what it is called.
    """
    return _panels(data, LOSSES, "loss", width, phases)


def ap_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """AP on the validation images (percent) over the epochs that were evaluated, by the averaged weights.

    Raises NothingToShow where no epoch was evaluated.
    """
    return over_runs(metrics, {"AP": "AP"}, "AP")


@drawn
def ap(data: pd.DataFrame, width: Width = "column") -> Figure:
    """AP in percent over epochs."""
    return _panels(data, {"AP": ""}, "AP (%)", width)


def ap_differences_data(
    metrics: pd.DataFrame, baselines: Mapping[str, str], finished: Collection[str] | None = None
) -> pd.DataFrame:
    """Difference in AP (percentage points) of experiments to their baselines, over the evaluated epochs.

    Runs are paired by seed. An epoch after a finished baseline's last is compared with that last one. Columns
    series, against, epoch, mean, low, high (95 % t-interval over seeds, missing for one) and runs (pairs).

    Args:
        metrics: of `load_metrics`.
        baselines: of each experiment, by slug.
        finished: the runs that have finished; None: all.

    Raises:
        NothingToShow: no experiment and its baseline were evaluated with a seed and at an epoch in common.
    """
    if "AP" not in metrics:
        raise NothingToShow("No epoch was evaluated yet.")
    scores = metrics.dropna(subset=["AP"]).groupby(["experiment", "seed", "epoch"])["AP"].mean()
    ended = metrics if finished is None else metrics[metrics["run"].isin(list(finished))]
    rows = []
    for experiment, baseline in baselines.items():
        if experiment == baseline or not {experiment, baseline} <= set(scores.index.get_level_values(0)):
            continue
        finished_seeds = ended.loc[ended["experiment"] == baseline, "seed"].unique()
        pairs_of = _paired(scores[experiment], scores[baseline], finished_seeds)
        for epoch, pairs in pairs_of.groupby(level="epoch"):
            found = over_seeds(list(pairs))
            rows.append((experiment, baseline, epoch, found.mean, found.low, found.high, found.n))
    if not rows:
        raise NothingToShow(
            "No row and its baseline were evaluated with the same seed at the same epoch yet."
        )
    data = pd.DataFrame(rows, columns=["series", "against", "epoch", "mean", "low", "high", "runs"])
    return data.astype({"low": float, "high": float})


def val_loss_differences_data(losses: OverEpochs, baselines: Mapping[str, str]) -> pd.DataFrame:
    """Relative difference (%) in validation loss of experiments to their baselines, over the epochs.

    Logarithms are compared by the design of the study, and the ends turned back into percent of the baseline.
    Columns series, against, epoch, mean, low, high (95 %), runs (pairs); and of the mean over the epochs that
    both have: overall, overall_low, overall_high and p (two-sided, of no difference). Raises NothingToShow
    where no finished experiment and its baseline have the loss at an epoch in common.
    """
    rows = []
    for experiment, baseline in baselines.items():
        known, overall = losses.compare(experiment, baseline)
        if experiment == baseline or overall is None:
            continue
        mean = (*_percents(overall.interval), overall.interval.p)
        for epoch, each in known.items():
            rows.append((experiment, baseline, epoch, *_percents(each.interval), each.interval.n, *mean))
    if not rows:
        raise NothingToShow(
            "No finished row and its baseline have recorded losses on the validation images; runs of version "
            "0.1.0 have none."
        )
    columns = ["series", "against", "epoch", "mean", "low", "high", "runs"]
    data = pd.DataFrame(rows, columns=[*columns, *OVERALL])
    return data.astype(dict.fromkeys(["low", "high", *OVERALL], float))


def _percents(interval: Interval) -> tuple[float, float, float]:
    """Mean and ends of a difference of logarithms in percent."""
    ends = (interval.mean, interval.low, interval.high)
    mean, low, high = (np.nan if end is None else 100 * math.expm1(end) for end in ends)
    return mean, low, high


@drawn
def val_loss_differences(
    data: pd.DataFrame, phases: Mapping[int, str] | None = None, width: Width = "column"
) -> Figure:
    """A panel for each row, all on one scale; above it the difference of the mean over the epochs.

    phases: as for `losses`.
    """
    above = data.groupby("series")[OVERALL].first().set_axis(["mean", "low", "high", "p"], axis=1)
    says = "95 % interval over seeds; above: of the mean over the epochs"
    return _differences(data, above, "Δ loss (%)", says, phases, width)


def _paired(own: pd.Series, base: pd.Series, ended_seeds: Collection[int]) -> pd.Series:
    """Differences by seed and epoch; the last epoch of a baseline that has ended stands for all after it."""
    left, right = own.unstack("seed"), base.unstack("seed")
    right = right.reindex(right.index.union(left.index))
    after = right[::-1].isna().cummin()[::-1] & np.isin(right.columns, list(ended_seeds))
    return pd.Series((left - right.where(~after, right.ffill())).stack()).dropna()


@drawn
def ap_differences(
    data: pd.DataFrame, phases: Mapping[int, str] | None = None, width: Width = "column"
) -> Figure:
    """A panel for each row, all on one scale, with the last difference above; the line at 0 is no difference.

    phases: as for `losses`.
    """
    above, says = data.groupby("series").last(), "95 % t-interval over seeds"
    return _differences(data, above, "Δ AP (points)", says, phases, width)


def _differences(
    data: pd.DataFrame,
    above: pd.DataFrame,
    label: str,
    says: str,
    phases: Mapping[int, str] | None,
    width: Width,
) -> Figure:
    """A panel for each series, a difference `above` it and a line at 0; `says` is what the band is."""
    names, rest = cut(data["series"].unique(), ROWS)
    titles = {name: f"{name}\n{_interval(above.loc[name])}" for name in names}
    shown = data[data["series"].isin(names)]
    shown = shown.assign(panel=shown["series"].map(titles), one="")
    across = 2 if width == "column" else 4
    made, axes = facets(shown, "panel", width, across, 1.5, sharey=True)
    marked: dict[int, str] = {}
    for panel, each in axes.items():
        rows = shown[shown["panel"] == panel]
        each.axhline(0, color=GREY, lw=0.8)
        curves(each, rows, "epoch", "one", looks([""]), legend=False)
        each.set(xlabel="epoch")
        whole(each.xaxis, 4)
        marked |= _mark(each, phases, rows["epoch"].max())
    for each in list(axes.values())[::across]:
        each.set_ylabel(label)
    band = says if data["low"].notna().any() else "none, one seed"
    legend(made, [], 1, f"Line: mean of the pairs of runs; band: {band}{rest}{_phases(marked)}")
    return made


def _interval(row: pd.Series) -> str:
    """`+0.4 [−5.4, +5.9]`."""
    both = f" [{signed(row['low'], 1)}, {signed(row['high'], 1)}]" if pd.notna(row["low"]) else ""
    return f"{signed(row['mean'], 1)}{both}"


def cost_data(metrics: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """What training cost: a row for each run, columns series, run, seed, minutes and speed.

    `minutes` are those of all epochs, evaluation not counted, times the devices; a device is a GPU, or a
    process where there is none. `speed` is images a second of all of them together, median over epochs.

    Args:
        metrics: of `load_metrics`.
        runs: of `load_runs`, for their `ranks`.

    Raises:
        NothingToShow: no run has recorded its times.
    """
    if metrics.empty or not {"seconds", "images_per_second"} <= set(metrics):
        raise NothingToShow("No run has recorded its seconds and its images per second yet.")
    ranks = runs.set_index("run")["ranks"].astype(float)
    named = metrics.assign(series=series_names(metrics))
    found = named.groupby(["series", "run", "seed"], sort=False).agg(
        minutes=("seconds", "sum"), speed=("images_per_second", "median")
    )
    data = found.reset_index()
    return data.assign(minutes=data["minutes"] * data["run"].map(ranks).fillna(1.0) / 60)


@drawn
def cost(data: pd.DataFrame, width: Width = "column") -> Figure:
    """A row for each experiment, a ring for each run: device minutes, or hours, and images a second."""
    long = data["minutes"].max() >= 600
    shown = data.assign(minutes=data["minutes"] / (60 if long else 1))
    titles = COSTS | {"minutes": "device hours" if long else COSTS["minutes"]}
    made, axes = figure(width, REST + LINE * data["series"].nunique(), columns=2, sharey=True)
    for each, (column, title) in zip(axes[0], titles.items(), strict=True):
        sns.stripplot(shown, x=column, y="series", edgecolor=PALETTE[0], size=4, ax=each, **RING)
        each.set(xlabel=title, ylabel="", xlim=(0, 1.08 * shown[column].max()))
    return made


def learning_rate_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Learning rates of weights and biases at the end of each epoch; equal series become one.

    Raises NothingToShow without epochs.
    """
    data = over_runs(metrics, RATES, "a learning rate")
    values = data.assign(mean=data["mean"].round(12)).groupby("series")["mean"].agg(tuple)
    alike = [list(group.index) for _, group in values.groupby(values)]
    names = {first: f"{first} and {len(others)} alike" if others else first for first, *others in alike}
    kept = data[data["series"].isin(names)]
    return kept.assign(series=kept["series"].map(names))


@drawn
def learning_rate(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Learning rates over epochs, logarithmic: weights (with the implicit vectors) and biases."""
    made = _panels(data, RATES, "learning rate", width, sharey=True)
    for each in made.axes if (data["mean"] > 0).any() else ():
        each.set_yscale("log")
        plain(each.yaxis, (1, 2, 5))
    return made


def conflict_data(metrics: pd.DataFrame) -> pd.DataFrame:
    """Cosines between the gradients of two tasks in the shared layers, means over the steps of an epoch.

    Raises NothingToShow where no run trains several tasks.
    """
    pairs = {str(name): "" for name in metrics.columns if str(name).startswith(CONFLICT)}
    if not pairs:
        raise NothingToShow(
            "No run has recorded how its tasks' gradients agree; only runs of several tasks do (Table 3)."
        )
    return over_runs(metrics, pairs, "a cosine of task gradients")


@drawn
def conflict(data: pd.DataFrame, width: Width = "column") -> Figure:
    """Cosines over epochs, a panel for each pair of tasks; below the line at 0 the tasks pull apart."""
    names = {pair: pair.removeprefix(CONFLICT).replace("-", " and ") for pair in data["quantity"].unique()}
    made = _panels(data, names, "cosine", width, sharey=True)
    for each in made.axes:
        each.axhline(0, color=GREY, linewidth=0.8)
    return made


def _panels(
    data: pd.DataFrame,
    titles: Mapping[str, str],
    label: str,
    width: Width,
    phases: Mapping[int, str] | None = None,
    sharey: bool = False,
) -> Figure:
    """A panel for each quantity of `titles`, with at most `SERIES` series; a legend says what is drawn."""
    names, rest = cut(data["series"].unique(), SERIES)
    shown = data[data["series"].isin(names)]
    shown = shown.assign(panel=shown["quantity"].map(titles))
    across = len(titles) if width == "page" else 1
    made, axes = facets(shown, "panel", width, across, 1.5 if len(titles) > 1 else 2.1, sharey=sharey)
    styles = looks(names)
    for panel, each in axes.items():
        _lines(each, shown[shown["panel"] == panel], styles)
        marked = _mark(each, phases, shown["epoch"].max())
        each.set(title=panel, ylabel=label)
    for each in list(axes.values())[-across:]:
        each.set_xlabel("epoch")
    legend(made, made.axes, 3, _explanation(data) + rest + _phases(marked))
    return made


def _lines(axes: Axes, data: pd.DataFrame, styles: Look) -> None:
    """A line for each series as far as all its runs have come, and a thin one where only some have.

    Where there is a single epoch, the series stand side by side, with bars.
    """
    epochs = data["epoch"].unique()
    if len(epochs) == 1:
        names = list(dict.fromkeys(data["series"]))
        beside = dict(zip(names, np.linspace(-0.3, 0.3, len(names) + 2)[1:-1], strict=True))
        data = data.assign(epoch=data["epoch"] + data["series"].map(beside))
        axes.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
    shared = data[data["runs"] == data["of"]]
    curves(axes, shared, "epoch", "series", styles, err_style="bars" if len(epochs) == 1 else "band")
    ends = shared.groupby("series")["epoch"].max()
    rest = data[data["epoch"] >= data["series"].map(ends).fillna(0)]
    thin = rest[rest.groupby("series")["epoch"].transform("nunique") > (rest["series"].isin(ends.index))]
    if len(thin):
        curves(
            axes, thin, "epoch", "series", styles, markers=False, linewidth=0.5, errorbar=None, legend=False
        )
    whole(axes.xaxis)


def _mark(axes: Axes, phases: Mapping[int, str] | None, last: int) -> dict[int, str]:
    """Dotted lines where phases begin; returns those that the panel has."""
    found = {epoch: name for epoch, name in (phases or {}).items() if epoch <= last}
    for epoch in found:
        axes.axvline(epoch - 0.5, color=GREY, lw=0.9, ls=":")
    return found


def _phases(found: Mapping[int, str]) -> str:
    return "\nDotted: " + ", ".join(f"from epoch {e} {name}" for e, name in found.items()) if found else ""


def _explanation(data: pd.DataFrame) -> str:
    thin = " Thin: some runs have not come so far." if (data["runs"] < data["of"]).any() else ""
    return f"{spread(data.assign(runs=data['of']))}.{thin}"
