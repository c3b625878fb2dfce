"""A study at profile smoke, trained once, and what executes a notebook on it without a front end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
SECONDS = 240  # for one cell

JUPYTER = ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")

Execute = Callable[..., NotebookNode]
Copies = Callable[..., Path]


def ablate(*arguments: str) -> None:
    """Run the command line; what it said is in the error where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "ablations", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 1 and 2 at profile smoke with two seeds: six runs that are done, two with features."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # one study for all processes
    results = shared / "notebooks-study"
    with FileLock(shared / "notebooks-study.lock"):
        if not (shared / "notebooks-study.made").exists():
            ablate("launch", "1", "2", "--profile", "smoke", "--seeds", "2", "--results", str(results))
            names = [path.name for path in sorted((results / "runs").iterdir())]
            some = [name for name in names if ".add-" in name and "-s0-" in name]
            ablate("features", *some, "--images", "8", "--results", str(results))
            (shared / "notebooks-study.made").touch()
    return results


@pytest.fixture(scope="session")
def execute(tmp_path_factory: pytest.TempPathFactory) -> Execute:
    """Execute a notebook of the project on a results folder, top to bottom, in a kernel of this interpreter.

    Nothing of the user's Jupyter is read or written. Returns the notebook with its outputs; an error in a
    cell is raised. `more` are further cells, behind its last.
    """
    home = tmp_path_factory.mktemp("jupyter")

    def run(name: str, results: Path, *more: str) -> NotebookNode:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        notebook.cells += [nbformat.v4.new_code_cell(text) for text in more]
        with pytest.MonkeyPatch.context() as patch:
            for variable in JUPYTER:
                patch.setenv(variable, str(home / variable))
            patch.setenv("TMPDIR", str(home))
            patch.setenv("ABLATE_RESULTS", str(results))
            patch.setenv("ABLATE_PROFILE", "smoke")
            where = {"metadata": {"path": str(FOLDER)}}
            NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where).execute()
        return notebook

    return run


@pytest.fixture
def copies(study: Path, tmp_path: Path) -> Copies:
    """Make a study of `number` copies of the runs with seed 0, under other seeds and without any weights.

    `names` are the experiments to take, all three by default; returns the folder of results.
    """

    def make(number: int, *names: str, state: str = "done") -> Path:
        found = sorted(path for path in (study / "runs").iterdir() if "-s0-" in path.name)
        originals = [path for path in found if not names or path.name.split("-smoke-")[0] in names]
        for place in range(number):
            seed, which = divmod(place, len(originals))
            name = originals[which].name.replace("-s0-", f"-s{seed}-")
            folder = tmp_path / "runs" / name
            shutil.copytree(
                originals[which], folder, ignore=shutil.ignore_patterns("weights*", "tensorboard")
            )
            record = json.loads((folder / "run.json").read_text())
            record |= {"run": name, "seed": seed, "config": record["config"] | {"seed": seed}}
            (folder / "run.json").write_text(json.dumps(record))
            (folder / "state.json").write_text(json.dumps({"state": state, "epoch": 1, "epochs": 1}))
            if state != "done":
                (folder / "evaluation.json").unlink()
                (folder / "detections.parquet").unlink()
        return tmp_path

    return make
