"""Values in arrays behave like the tuples they stand for."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from yolor_core.data.annotations import Integers, Texts

CASES = [
    (Integers, (5, -3, 2**62, 0)),
    (Integers, ()),
    (Texts, ("a.jpg", "ünï/ço.png", "", "\udc80.png", "x" * 300)),
    (Texts, ()),
]


@pytest.mark.parametrize(("kind", "values"), CASES)
def test_they_behave_like_tuples(kind: type[Sequence[Any]], values: tuple[Any, ...]) -> None:
    held = kind(iter(values))  # type: ignore[call-arg]
    assert list(held) == list(values)
    assert len(held) == len(values)
    assert held == values
    assert values == held
    assert held != (*values, values[0] if values else 1)
    assert held[1:3] == values[1:3]
    assert pickle.loads(pickle.dumps(held)) == values
    assert json.dumps(list(held)) == json.dumps(list(values))
    for position, value in enumerate(values):
        assert held[position] == held[position - len(values)] == value
        assert type(held[position]) is type(value)
        assert held.index(value) == position
        assert value in held
    for outside in (len(values), -len(values) - 1):
        with pytest.raises(IndexError):
            held[outside]


def test_an_array_of_the_integers_is_not_a_copy() -> None:
    held = Integers([1, 2, 3])
    array = np.asarray(held)
    assert array.dtype == np.int64
    assert np.shares_memory(array, np.asarray(held))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 5
    assert np.asarray(held, np.float32).tolist() == [1, 2, 3]
