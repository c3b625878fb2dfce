"""The order in which jobs are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm.job import Job, longest_first


def make(name: str, cost: float, after: str | None = None) -> Job:
    return Job(name, Path(name), lambda stop: "done", after, cost)


def test_a_chain_counts_as_one_long_job() -> None:
    jobs = [make("a", 3), make("tail", 2, after="head"), make("head", 2), make("b", 3.5)]
    assert [job.name for job in longest_first(jobs)] == ["head", "b", "a", "tail"]


def test_equal_costs_keep_their_order() -> None:
    assert [job.name for job in longest_first([make(name, 0) for name in "cab"])] == ["c", "a", "b"]


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle: a, b"):
        longest_first([make("a", 1, after="b"), make("b", 1, after="a")])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="share a name: a"):
        longest_first([make("a", 1), make("a", 2)])
