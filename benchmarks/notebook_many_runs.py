"""Notebook 02 on many runs: seconds from the start of its kernel to its last cell, against its files alone.

    python benchmarks/notebook_many_runs.py [--runs 100] [--values 600]

Makes run folders as large as those of the profile mini (experiments of Tables 1-8 with implicit knowledge, 24
epochs, VALUES implicit values a site and epoch), without any weights, executes the notebook as Jupyter does,
and prints its seconds and the ratio to a process that imports pandas and reads the same Parquet files, of all
epochs, once. Without any runs too, which is the kernel and its imports, and with a tenth of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from report import fabricate, seconds_of

from ablations.plan import plan_runs

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "02_implicit_vectors.ipynb"

READ = """
import pathlib, sys
import pandas as pd
for file in sorted(pathlib.Path(sys.argv[1]).glob('runs/*/*.parquet')):
    if file.stem != 'detections': pd.read_parquet(file)
"""


def main() -> None:
    """Make the runs, execute the notebook, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--values", type=int, default=600, help="implicit values a site and epoch")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"no runs: {min(execute(Path(folder)) for _ in range(2)):.1f} s")
    for number in sorted({max(1, chosen.runs // 10), chosen.runs}):
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder)
            seeds = list(range(number))
            planned = plan_runs((), "mini", seeds, results=results, fingerprint="f" * 64)
            for run in sorted(
                (each for each in planned if each.config.science.model.implicit),
                key=lambda each: each.config.seed,
            )[:number]:
                fabricate(run, chosen.values)
            assert not list(results.rglob("*.safetensors"))
            bare = min(seconds_of([sys.executable, "-c", READ, str(results)]) for _ in range(3))
            spent = min(execute(results) for _ in range(2))
            print(f"{number} runs: {spent:.1f} s, {spent / bare:.1f} times the files alone ({bare:.1f} s)")


def execute(results: Path) -> float:
    """Seconds of the notebook, the start of its kernel included; an error in a cell is raised."""
    os.environ |= {"ABLATE_RESULTS": str(results), "ABLATE_PROFILE": "mini"}
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    began = time.monotonic()
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
