"""A real SLURM to test on: one of the running testbeds that ABLATE_TESTBED names, for one test at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from tests.slurm.cluster.grid import Grid
from tests.testbed import Testbed


@pytest.fixture
def bed() -> Iterator[Testbed]:
    """The testbed with all its nodes idle; afterwards too, whatever the test did to it."""
    folders = os.environ.get("ABLATE_TESTBED", "")
    if not folders:
        pytest.skip("no SLURM to test on: python -m tests.testbed start, then eval the lines it prints")
    testbeds = [Testbed(folder) for folder in folders.split(os.pathsep)]
    for testbed in testbeds:
        if not testbed.running():
            pytest.fail(f"ABLATE_TESTBED={folders}, but no testbed runs in {testbed.folder}")
    testbed, lock = first_free(testbeds)
    with lock:
        yield testbed
        testbed.ask("scancel", "--user=root")
        for node, alive in testbed.daemons().items():
            if node in testbed.nodes and not alive:
                testbed.revive_node(node)
        testbed.start_accounting()
        deadline = time.monotonic() + 120  # a cancelled job is in the queue until its processes have gone
        while queued := testbed.ask("squeue", "-h", "-r", "-o", "%i %T").splitlines():
            assert time.monotonic() < deadline, f"still in the queue: {queued}"
            time.sleep(0.2)


def first_free(testbeds: Sequence[Testbed]) -> tuple[Testbed, AbstractContextManager[Any]]:
    """One that no other test uses, and the lock on it; waits where there is none."""
    while True:
        for testbed in testbeds:
            with suppress(Timeout):
                return testbed, FileLock(f"{testbed.folder}.lock").acquire(timeout=0)
        time.sleep(0.2)


@pytest.fixture
def grid(bed: Testbed, tmp_path: Path) -> Grid:
    """An empty results folder, and `ablate` on it."""
    return Grid(bed, tmp_path / "results")
