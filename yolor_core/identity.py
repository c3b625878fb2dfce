"""Who a run is: the signature of its science, its id, the hash of the code that ran it, and its run.json."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from yolor_core.config import SCHEMA_VERSION, RunConfig, Science
from yolor_core.errors import RunError
from yolor_core.runs.directory import now, read_json

PACKAGE = Path(__file__).parent


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, the same on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def signature(science: Science) -> str:
    """SHA-256 (hex) over the full resolved science and the schema version; no seed, no data."""
    return written_signature(science.model_dump(mode="json"), SCHEMA_VERSION)


def written_signature(science: dict[str, Any], schema: object) -> str:
    """`signature` of science as run.json has it, which another version of the code may have written.

    Released anchors are left out, so that runs from before there was a choice keep their signature.
    """
    model = {key: value for key, value in science["model"].items() if (key, value) != ("anchors", "released")}
    content = {"schema": schema, "science": science | {"model": model}}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def run_id(config: RunConfig, fingerprint: str) -> str:
    """`<slug>-<profile>-s<seed>-<first 10 hex of SHA-256(signature, seed, data fingerprint)>`."""
    key = canonical_json([signature(config.science), config.seed, fingerprint])
    digest = hashlib.sha256(key.encode()).hexdigest()[:10]
    return f"{config.experiment}-{config.science.profile}-s{config.seed}-{digest}"


def joined_sources(earlier: str, present: str) -> str:
    """Source hash of a run that was begun by one version of the code and goes on with another: `a+b`.

    It equals that of no run made by one version, so tables do not take the two for the same.
    """
    parts = earlier.split("+")
    return earlier if parts[-1] == present else f"{earlier}+{present}"


def source_hash(package: Path = PACKAGE) -> str:
    """SHA-256 (hex) over the Python sources of yolor_core, in path order."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


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
        "packages": {name: version_of(name) for name in PACKAGES},
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


def version_of(package: str) -> str | None:
    """Of an installed package; None where it is not installed."""
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
