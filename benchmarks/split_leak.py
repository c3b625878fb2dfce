"""What a random split of overlapping pictures is worth in AP.

    python benchmarks/split_leak.py PICTURES OUT [--splits 5] [--jobs 2] [--csv FILE]

PICTURES is a folder that `ablate data convert` reads, with the `groups.json` by file name that `ablate data
check --near --groups-out` wrote for it. Each split is made twice, at random and with groups whole, with a
third of the pictures for validation, and a baseline of profile `mini` is trained on both, with the number of
the split as its seed. Prints a row for each training, and the mean difference with its 95 % interval (t over
the pairs). Other validation pictures alone give another AP, so one split of each kind would say little. A
finished training is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis.statistics.seeds import over_seeds

KINDS = ("random", "groups whole")


@dataclass(frozen=True)
class Training:
    """The baseline on one split of one kind."""

    pictures: Path
    out: Path
    kind: str
    split: int

    @property
    def data(self) -> Path:
        """The folder of this split."""
        return self.out / f"{self.kind.replace(' ', '-')}-{self.split}"

    @property
    def results(self) -> Path:
        """Where its run is."""
        return self.out / "results" / self.data.name

    def run(self) -> None:
        """Split and train, as far as that has not been done."""
        if not self.data.exists():
            whole = ("--groups", str(self.pictures / "groups.json")) if self.kind == KINDS[1] else ()
            self.ablate(
                "data", "convert", self.pictures, self.data, "--val", "0.33333", "--seed", self.split, *whole
            )
        self.ablate(
            *("launch", "csp-fast", "--data", self.data, "--seeds", f"{self.split},", "--jobs", 1),
            *("--results", self.results),
        )

    def ablate(self, *words: object) -> None:
        """One command in a process of its own; its output is kept beside the results."""
        with (self.out / f"{self.data.name}.log").open("a") as log:
            command = [sys.executable, "-m", "ablations", *map(str, words)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            if subprocess.run(command, stdout=log, stderr=log, env=environment).returncode:
                raise SystemExit(f"{' '.join(command)}: failed; see {log.name}")

    def row(self) -> dict[str, object]:
        """What it scored, and on how many pictures that have one of their group in training."""
        groups = json.loads((self.pictures / "groups.json").read_text())["groups"]
        files = {
            side: [
                image["file_name"]
                for image in json.loads((self.data / "annotations" / f"instances_{side}.json").read_text())[
                    "images"
                ]
            ]
            for side in ("train", "val")
        }
        seen = {groups[name] for name in files["train"]}
        (evaluation,) = self.results.glob("runs/*/evaluation.json")
        scores = json.loads(evaluation.read_text())["detection"]
        return {
            "split": self.split,
            "kind": self.kind,
            "train": len(files["train"]),
            "val": len(files["val"]),
            "val in a group of train": sum(groups[name] in seen for name in files["val"]),
            "AP": 100 * scores["AP"],
            "AP50": 100 * scores["AP50"],
        }


def main() -> None:
    """Train what is missing, then print rows and differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    work = [Training(args.pictures, args.out, kind, k) for k in range(args.splits) for kind in KINDS]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(Training.run, work))
    table = pd.DataFrame([each.row() for each in work])
    if args.csv:
        table.to_csv(args.csv, index=False, float_format="%.4f")
    print(table.round(2).to_string(index=False))
    for score in ("AP", "AP50"):
        wide = table.pivot(index="split", columns="kind", values=score)
        found = over_seeds((wide[KINDS[0]] - wide[KINDS[1]]).tolist())
        interval = "" if found.half_width is None else f" ± {found.half_width:.2f}"
        print(f"{score}: {KINDS[0]} - {KINDS[1]} = {found.mean:+.2f}{interval}")


if __name__ == "__main__":
    main()
