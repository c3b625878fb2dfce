"""Seeds as a user writes them: so many, or these."""

from __future__ import annotations

import pytest

from ablations.plan import parse_seeds
from yolor_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1", [0]),
        ("5", [0, 1, 2, 3, 4]),
        ("0-4", [0, 1, 2, 3, 4]),
        ("3-3", [3]),
        ("0,3", [0, 3]),
        ("7,", [7]),
        ("0,", [0]),
        ("2-4,9,3", [2, 3, 4, 9]),
        (" 2 ", [0, 1]),
        (" 1 - 2 , 8 ", [1, 2, 8]),
        ("05", [0, 1, 2, 3, 4]),
    ],
)
def test_a_number_is_so_many_seeds_and_a_list_is_these(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["", " ", ",", "0", "x", "-1", "1.5", "4-2", "1-", "-", "1,,2", "1;2", "0-1-2", ",1", "1e3"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match="0-4"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["10001", "0-10000", "99999999999999999999"])
def test_more_seeds_than_anybody_means_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="10000"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["²", "1²", "½"])
def test_odd_digits_are_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_seeds(text)
