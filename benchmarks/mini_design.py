"""Which design of the profile `mini` knows a difference best for its core-hours.

    python benchmarks/mini_design.py OUT [--designs "16 epochs" ...] [--seeds 3] [--jobs 2]
    python benchmarks/mini_design.py benchmarks/mini_designs.csv --draw docs/images/mini-designs.svg

Trains three arms (a baseline, × iPR, + iFA) for the seeds of every design, below OUT, each on one thread; a
finished training is not repeated. Prints AP of the baseline, processor time of a training, and the residual
standard deviation of `ap ~ arm + seed` with its 95 % interval (chi-square). The figure of merit is the
half-width of the 95 % interval of a difference of two arms after one core-hour: 1.96 · sqrt(2) · sd / sqrt(n)
with as many seeds n as an hour trains of both. Half the width takes four times the hours.

A CSV file of such rows may stand in place of OUT: `mini_designs.csv` holds what was measured so far.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis.statistics.blocks import fit

ARMS = ("csp-fast", "csp-fast.mul-pr", "csp-fast.add-fa")
SECONDS = "seconds.jsonl"


def sized(pixels: int) -> tuple[str, ...]:
    """Overrides for images of so many pixels."""
    sizes = [f"{part}.size={pixels}" for part in ("train", "evaluation", "data")]
    return (*sizes, f"model.anchor_scale={2 * pixels / 640}")


BATCH_16 = ("train.batch=16", "train.optimiser.nominal_batch=16", "train.optimiser.lr0=0.06")
RECIPE = ("train.loss.box=0.05", "train.loss.objectness=1", "train.loss.classification=8")

# What each changes about the profile.
DESIGNS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "16 epochs": ("train.epochs=16",),
    "36 epochs": ("train.epochs=36",),
    "72 epochs, 1,000 images": ("train.epochs=72", "data.val_images=1000"),
    "boxes count twice": ("train.loss.box=0.4",),
    "the recipe's gains": RECIPE,
    "the recipe's gains and anchors": (*RECIPE, "model.anchor_scale=0.2"),
    "k-means anchors": ("model.anchors=kmeans",),
    "ends at lr0 / 5": ("train.optimiser.lrf=0.2",),
    "batch 16": BATCH_16,
    "96 px, 48 epochs": (*sized(96), "train.epochs=48"),
    "160 px, 16 epochs": (*sized(160), "train.epochs=16"),
}


@dataclass(frozen=True)
class Training:
    """One run of a design."""

    design: str
    arm: str
    seed: int

    def run(self, out: Path) -> None:
        """Train as a process of its own and note its processor seconds, unless that has been done."""
        results = out / self.design
        results.mkdir(parents=True, exist_ok=True)
        if any((n["arm"], n["seed"]) == (self.arm, self.seed) for n in notes(results)):
            return
        command = [sys.executable, "-m", "ablations", "train", self.arm, "--seed", str(self.seed)]
        for change in (*DESIGNS[self.design], "execution.evaluate_every=0", "execution.tensorboard=false"):
            command += ["--set", change]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (results / f"{self.arm}-s{self.seed}.log").open("w") as log:
            child = subprocess.Popen(
                [*command, "--results", str(results)], stdout=log, stderr=log, env=environment
            )
            _, status, used = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{self}: failed; see {log.name}")
        runs = [json.loads(path.read_text()) for path in results.glob("runs/*/run.json")]
        (own,) = [r["run"] for r in runs if (r["experiment"], r["seed"]) == (self.arm, self.seed)]
        scores = json.loads((results / "runs" / own / "evaluation.json").read_text())
        note = {
            "arm": self.arm,
            "seed": self.seed,
            "seconds": used.ru_utime + used.ru_stime,
            "ap": 100 * scores["detection"]["AP"],
        }
        with (results / SECONDS).open("a") as stream:
            stream.write(json.dumps(note) + "\n")


def notes(results: Path) -> list[dict[str, float]]:
    """What finished trainings of a design have noted."""
    path = results / SECONDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def half_width(minutes: Any) -> Any:
    """Of a difference after one core-hour, at a residual sd of 1, for trainings of so many core-minutes."""
    return 1.96 * 2 * np.sqrt(minutes / 60)


def frontier(out: Path) -> pd.DataFrame:
    """A row for each design below `out` with at least two arms and seeds, best figure of merit first.

    Of a CSV file its rows.
    """
    if out.suffix == ".csv":
        return pd.read_csv(out)
    rows = []
    for path in out.glob(f"*/{SECONDS}"):
        noted = pd.DataFrame(notes(path.parent))
        table = noted.pivot_table(index="arm", columns="seed", values="ap")
        ap = table.reindex(sorted(table.index, key=ARMS.index)).to_numpy(float)
        if min(ap.shape) < 2:
            continue
        model = fit(ap)
        seconds = float(noted["seconds"].mean())
        low, high = stats.chi2.ppf((0.025, 0.975), model.freedom) / model.freedom
        limits = [math.sqrt(model.variance / each) for each in (high, low)]
        spread = math.sqrt(model.variance)
        rows.append(
            {
                "design": path.parent.name,
                "AP of the baseline": float(np.nanmean(ap[0])),
                "core-minutes": seconds / 60,
                "residual sd": spread,
                "from": limits[0],
                "to": limits[1],
                "runs": int(np.isfinite(ap).sum()),
                "± after a core-hour": spread * half_width(seconds / 60),
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values("± after a core-hour", ignore_index=True) if rows else table


def draw(table: pd.DataFrame, path: Path) -> None:
    """What a core-hour buys by each design, with the interval that its number of runs leaves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="whitegrid", context="paper")
    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["svg.hashsalt"] = "mini designs"
    figure, axes = plt.subplots(figsize=(6.8, 0.8 + 0.42 * len(table)), layout="constrained")
    by_sd = half_width(table["core-minutes"])
    middle, low, high = (by_sd * table[column] for column in ("residual sd", "from", "to"))
    places = np.arange(len(table))[::-1]
    axes.errorbar(middle, places, xerr=[middle - low, high - middle], fmt="o", color="C0", capsize=2)
    labels = [
        f"{row['design']}\nAP {row['AP of the baseline']:.0f}, {row['core-minutes']:.1f} core-minutes"
        for _, row in table.iterrows()
    ]
    axes.set_yticks(places, labels)
    axes.set(
        xscale="log",
        xlim=(0.1, None),
        ylim=(-0.6, len(table) - 0.4),
        xlabel="± of a difference after one core-hour (95 %, AP)",
    )
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--designs", nargs="*", choices=DESIGNS, default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--draw", type=Path)
    args = parser.parse_args()
    work = [Training(d, a, s) for d in args.designs for s in range(args.seeds) for a in ARMS]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda each: each.run(args.out), work))
    table = frontier(args.out)
    print(table.round(2).to_string(index=False) if len(table) else "nothing finished yet")
    if args.draw:
        draw(table, args.draw)


if __name__ == "__main__":
    main()
