"""A signature changes with every field of the science and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
from pydantic import BaseModel

from ablations.experiments import ADD_FA, ADD_FA_NETWORK, CLASSIFICATION, CSP, MUL_PR, P6_LIGHT
from ablations.plan import plan_runs
from ablations.registry import resolve
from yolor_core.config import Science, leaves
from yolor_core.identity import signature

# Between them these have every kind of field: three phases, several implicit parts, a branch with its own.
SCIENCES = {
    "finetuned": resolve(P6_LIGHT.plus(ADD_FA, MUL_PR).finetuned(), "mini"),
    "joint": resolve(CSP.joint_implicit(CLASSIFICATION, ADD_FA_NETWORK, "jdc"), "paper"),
}
CASES = [(name, path) for name, science in SCIENCES.items() for path, _ in leaves(science)]


def changed(value: Any, path: list[str]) -> Any:
    """A copy of a configuration with one leaf changed, not validated: identity rests on no validation."""
    if not path:
        return _other(value)
    key, *rest = path
    if isinstance(value, BaseModel):
        return value.model_copy(update={key: changed(getattr(value, key), rest)})
    index = int(key)
    return (*value[:index], changed(value[index], rest), *value[index + 1 :])


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return (ADD_FA,)
    raise AssertionError(f"no other value for {value!r}")


@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{n}-{p}" for n, p in CASES])
def test_every_field_changes_the_signature(name: str, path: str) -> None:
    science = SCIENCES[name]
    other: Science = changed(science, path.split("."))
    assert dict(leaves(science)) == dict(leaves(SCIENCES[name]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a Literal field holds a value that it does not list
        assert signature(other) != signature(science)


def test_an_equal_science_has_the_same_signature() -> None:
    for science in SCIENCES.values():
        copy = Science.model_validate_json(science.model_dump_json())
        assert copy is not science
        assert signature(copy) == signature(science)


def test_execution_data_and_seed_do_not_enter() -> None:
    plain = resolve("csp-fast", "mini")
    other = resolve("csp-fast", "mini", ["execution.workers=7", "data.seed=9", "execution.device=cuda"])
    assert signature(plain) == signature(other)


def test_run_ids_change_with_seed_and_data_but_not_with_execution() -> None:
    def name(seed: int = 0, fingerprint: str = "a", overrides: tuple[str, ...] = ()) -> str:
        return plan_runs(["csp"], "smoke", [seed], overrides, fingerprint=fingerprint)[0].run_id

    assert name() == name(overrides=("execution.workers=7",))
    assert len({name(), name(seed=1), name(fingerprint="b"), name(overrides=("train.batch=4",))}) == 4


def test_signature_is_the_same_in_another_process() -> None:
    code = (
        "from ablations.registry import resolve; from yolor_core.identity import signature;"
        "print(signature(resolve('csp-fast.add-fa', 'mini')))"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "12345",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == signature(resolve("csp-fast.add-fa", "mini"))
