"""Continue the finished phases of another run: Table 8's fine-tuned row costs 150 epochs, not 450."""

from __future__ import annotations

from typing import Any

from yolor_core.config import RunConfig, Science
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
