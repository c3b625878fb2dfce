"""A small finished run, for the commands that look at one."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from safetensors.torch import save_file

from ablations.cli import main
from ablations.plan import plan_runs
from yolor_core.data import load_images
from yolor_core.models import create_model
from yolor_core.runs.directory import RunDirectory


def ablate(*arguments: str | Path) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def train(results: Path, experiment: str = "csp-fast.add-fa.mul-pr") -> Path:
    """Train at profile smoke; the run directory."""
    done = ablate("train", experiment, "--profile", "smoke", "--results", results)
    assert done.exit_code == 0, done.output
    (run,) = (results / "runs").iterdir()
    return run


def untrained(results: Path, experiment: str) -> Path:
    """A run directory of profile smoke that says done, with the weights of initialisation and no scores."""
    (planned,) = plan_runs([experiment], "smoke", results=results)
    config, run = planned.config, RunDirectory(planned.run_dir)
    images = load_images(config.data, "train")
    science = config.science
    model = create_model(
        science.model, len(images.names), identities=images.identity_count, weighting=science.train.tasks
    )
    run.write_state("done", epoch=1, epochs=1)
    run.run.write_text(json.dumps({"run": planned.run_id, "config": json.loads(config.to_json())}))
    save_file(model.state_dict(), run.weights)
    run.evaluation.write_text(json.dumps({"detection": {"AP": None}}))
    return run.path
