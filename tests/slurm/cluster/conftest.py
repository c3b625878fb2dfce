"""A real SLURM to test on: the running testbed that ABLATE_TESTBED names, for one test at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.slurm.cluster.grid import Grid
from tests.testbed import Testbed


@pytest.fixture
def bed() -> Iterator[Testbed]:
    """The testbed with all its nodes idle; afterwards too, whatever the test did to it."""
    folder = os.environ.get("ABLATE_TESTBED")
    if not folder:
        pytest.skip("no SLURM to test on: python -m tests.testbed start, then eval the lines it prints")
    testbed = Testbed(folder)
    if not testbed.running():
        pytest.fail(f"ABLATE_TESTBED={folder}, but no testbed runs there")
    with FileLock(f"{folder}.lock"):
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


@pytest.fixture
def grid(bed: Testbed, tmp_path: Path) -> Grid:
    """An empty results folder, and `ablate` on it."""
    return Grid(bed, tmp_path / "results")
