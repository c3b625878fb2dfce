"""What a run may start from: its own earlier attempt, or the finished phases of another run.

Table 8's fine-tuned row continues the implicit run, so it costs 150 epochs, not 450.
"""

from __future__ import annotations

from typing import Any

from yolor_core.config import RunConfig, Science, leaves
from yolor_core.data.fingerprint import annotation_fingerprint
from yolor_core.errors import RunError
from yolor_core.runs.directory import RunDirectory
from yolor_core.training.checkpoint import load_checkpoint


def continue_from(
    source: RunDirectory, config: RunConfig, fingerprint: str
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The state that `config` itself would have had after its first phases, and run.json of its maker.

    None when that run has dropped its checkpoint.

    Raises:
        RunError: when the other run is not finished, or is not the same experiment, seed and data up to its
            own end.
    """
    record, state = source.read_run(), source.read_state()
    if record is None or state is None or state["state"] != "done":
        raise RunError(f"{source.path} is not a finished run, so {config.experiment} cannot continue it")
    science = Science.model_validate(record["config"]["science"])
    count = len(science.train.phases)
    shortened = config.science.train.model_copy(update={"phases": config.science.train.phases[:count]})
    expected = config.science.model_copy(update={"train": shortened})
    if science != expected or record["seed"] != config.seed or record["fingerprint"] != fingerprint:
        raise RunError(
            f"{source.path} is not the first {count} phase(s) of {config.experiment} with seed {config.seed} "
            "on the same data, so it cannot be continued"
        )
    saved = load_checkpoint(source)
    return None if saved is None else (saved, record)


def check_same_run(run: RunDirectory, earlier: dict[str, Any], record: dict[str, Any]) -> None:
    """Raises RunError, naming what differs, unless the run.json of an earlier attempt is of the same run."""
    if earlier.get("run") == record["run"]:
        return
    if earlier.get("signature") == record["signature"] and earlier.get("seed") == record["seed"]:
        before = earlier.get("fingerprint")
        if before == annotation_fingerprint(RunConfig.model_validate(record["config"]).data):
            raise RunError(
                f"{run.path}: this run was begun by version 0.1.0, which did not write down its pictures "
                f"(fingerprint {before}, now {record['fingerprint']}). End it with that version, or remove "
                "the folder and start the run anew"
            )
        raise RunError(
            f"{run.path}: annotation files or pictures have changed since this run began (fingerprint "
            f"{before}, now {record['fingerprint']}). Restore them to go on, or start a run of its own on "
            "the new data in another folder"
        )
    there, here = (dict(leaves(_science(r))) | {"seed": r.get("seed")} for r in (earlier, record))
    missing = object()
    changed = [
        f"{name} = {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, missing) != here.get(name, missing)
    ]
    differences = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
    raise RunError(
        f"{run.path} holds the run {earlier.get('run')}, not {record['run']}: {differences or 'other data'}. "
        "Train this one in another folder"
    )


def _science(record: dict[str, Any]) -> Any:
    return record.get("config", {}).get("science", {})
