"""Who a run is: the signature of its science, its id, and the hash of the code that ran it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from yolor_core.config import SCHEMA_VERSION, RunConfig, Science

PACKAGE = Path(__file__).parent


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, the same on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def signature(science: Science) -> str:
    """SHA-256 (hex) over the full resolved science and the schema version; no seed, no data."""
    content = {"schema": SCHEMA_VERSION, "science": science.model_dump(mode="json")}
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
