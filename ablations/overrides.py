"""`--set train.optimiser.lr0=0.02`: change any field of a resolved configuration.

A path starts with a part of the science (`model`, `train`, `evaluation`, `numerics`), or with `execution` or
`data`. Values are JSON, or plain text where they are not. `train.epochs=30` is short for shortening every
phase so that the first one, 300 epochs in the paper, has 30; so a fine-tuned run can still continue its
implicit run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ablations.profiles import rescale
from yolor_core.config import Config, DataConfig, Execution, Science, explain, leaves
from yolor_core.errors import ConfigError, UnknownNameError

SCIENCE_PARTS = ("model", "train", "evaluation", "numerics")
PARTS = (*SCIENCE_PARTS, "execution", "data")
EPOCHS = "train.epochs"
_C = TypeVar("_C", bound=Config)


@dataclass(frozen=True)
class Override:
    """One parsed `path=value`."""

    path: str
    value: Any

    @property
    def part(self) -> str:
        """What it changes: the first word of the path, as `train` or `data`."""
        return self.path.split(".", 1)[0]


def parse_overrides(texts: Iterable[str]) -> tuple[Override, ...]:
    """Parse `path=value` texts. Raises ConfigError for anything else, UnknownNameError for no such part."""
    return tuple(_parse(text) for text in texts)


def _parse(text: str) -> Override:
    path, equals, value = text.partition("=")
    path = path.strip().removeprefix("science.")
    if not equals or not path:
        raise ConfigError(f"override {text!r}: expected FIELD=VALUE, as in train.optimiser.lr0=0.02")
    part = path.split(".", 1)[0]
    if part in ("seed", "seeds", "profile", "experiment"):
        raise ConfigError(
            f"override {text!r}: {part} is not a field to set; it has an option or argument of its own"
        )
    if part not in PARTS:
        raise UnknownNameError("field", path, [*_all_fields(), *PARTS])
    try:
        return Override(path, json.loads(value))
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, thousands of brackets
        return Override(path, value)


def override_science(science: Science, overrides: Sequence[Override]) -> Science:
    """Apply the overrides that concern the science, in order. Raises ConfigError or UnknownNameError."""
    for override in overrides:
        if override.path == EPOCHS:
            science = _with_epochs(science, override.value)
        elif override.part in SCIENCE_PARTS:
            science = _changed(science, override, override.path, extra=(EPOCHS,))
    return science


def override_execution(execution: Execution, overrides: Sequence[Override]) -> Execution:
    """Apply the overrides that start with `execution.`."""
    for override in overrides:
        if override.part == "execution":
            execution = _changed(execution, override, _inner(override), prefix="execution.")
    return execution


def override_data(data: DataConfig, overrides: Sequence[Override]) -> DataConfig:
    """Apply the overrides that start with `data.`; `data.kind` itself is chosen by `--data`."""
    for override in overrides:
        if override.part == "data":
            data = _changed(data, override, _inner(override), prefix="data.")
    return data


def _inner(override: Override) -> str:
    part, dot, rest = override.path.partition(".")
    if not rest:
        raise ConfigError(
            f"override {override.path!r}: name a field of {part}, as in {part}{dot or '.'}NAME=VALUE"
        )
    return rest


def _with_epochs(science: Science, value: Any) -> Science:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{EPOCHS} = {value!r}: allowed are whole numbers from 1")
    phases = rescale(science.train.phases, value, science.train.phases[0].epochs)
    return science.model_copy(update={"train": science.train.model_copy(update={"phases": phases})})


def _changed(config: _C, override: Override, path: str, prefix: str = "", extra: Sequence[str] = ()) -> _C:
    content = config.model_dump(mode="json")
    known = [*(f"{prefix}{leaf}" for leaf, _ in leaves(content)), *extra]
    place: Any = content
    *parents, last = path.split(".")
    for key in parents:
        place = place[_key(place, key, override.path, known)]
    place[_key(place, last, override.path, known)] = override.value
    try:
        return TypeAdapter(type(config)).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{prefix}{explain(error)}") from None


def _key(place: Any, key: str, path: str, known: Sequence[str]) -> Any:
    if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
        return int(key)
    if isinstance(place, dict) and key in place:
        return key
    raise UnknownNameError("field", path, known)


def _all_fields() -> list[str]:
    from ablations.experiments import CSP_FAST
    from ablations.profiles import PROFILES

    profile = PROFILES["paper"]
    content = {
        **CSP_FAST.science.model_dump(mode="json"),
        "execution": profile.execution.model_dump(mode="json"),
        "data": profile.data.model_dump(mode="json"),
    }
    del content["profile"]
    return [path for path, _ in leaves(content)]
