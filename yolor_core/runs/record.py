"""What run.json says about a run: its configuration, its code, its machine."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from yolor_core.config import SCHEMA_VERSION, RunConfig
from yolor_core.errors import RunError
from yolor_core.identity import PACKAGE, run_id, signature, source_hash
from yolor_core.runs.directory import now
from yolor_core.runs.files import read_json

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "opencv-python-headless", "pillow", "submitit")


def describe_run(
    config: RunConfig, fingerprint: str, device: str, data_report: dict[str, Any], parameters: int
) -> dict[str, Any]:
    """Content of run.json for a run that starts now."""
    commit, dirty = code_commit()
    return {
        "schema": SCHEMA_VERSION,
        "experiment": config.experiment,
        "run": run_id(config, fingerprint),
        "signature": signature(config.science),
        "seed": config.seed,
        "fingerprint": fingerprint,
        "config": config.model_dump(mode="json"),
        "source_hash": source_hash(),
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "jobs": job_ids(),
        "data_report": data_report,
        "parameters": parameters,
        "started": now(),
        "ended": None,
        "resumes": 0,
    }


def job_ids() -> list[str]:
    """The scheduler's job ids of this process, if any."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return [f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"]
    job = os.environ.get("SLURM_JOB_ID")
    return [job] if job else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code_commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout the code is run from and whether it was changed; None outside a checkout.

    A frozen copy of a checkout has a `snapshot.json` that says it. Installed from a wheel, the code may lie
    in somebody else's repository (an environment inside it), whose commit says nothing of ours.
    """
    root = Path(PACKAGE).parent
    with suppress(RunError):
        frozen = read_json(root / "snapshot.json")
        if frozen is not None:
            return frozen.get("commit"), frozen.get("dirty")
    try:
        _git(root, "ls-files", "--error-unmatch", str(Path(PACKAGE) / "__init__.py"))
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
