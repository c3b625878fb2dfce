"""Fixtures shared by all tests, and the rule that CI must not skip what it can run."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _size in ("COLUMNS", "LINES"):  # which readline sets for the processes that pytest starts
    os.environ.pop(_size, None)

# Background jobs of a shell begin with these ignored, and so would every process that a test interrupts.
for _signal in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.default_int_handler if _signal == signal.SIGINT else signal.SIG_DFL)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    path = Path(value)
    if not path.is_dir():
        pytest.fail(f"{variable}={value} is not a folder")
    return path


@pytest.fixture
def real_data() -> Path:
    """Folder of real COCO subsets and evaluation references."""
    return _folder("YOLOR_REAL_DATA")


@pytest.fixture
def golden() -> Path:
    """Folder of reference outputs of the authors' models."""
    return _folder("YOLOR_GOLDEN")


@pytest.fixture
def faults() -> Path:
    """Folder of small inputs that were once read wrongly."""
    return _folder("YOLOR_FAULTS")


@pytest.fixture
def stats_reference() -> Path:
    """Folder of statistics of arms x seeds by R and Python."""
    return _folder("YOLOR_STATS")


ON_SLURM = "slurm/cluster/"  # tests that take turns on the clusters there are
CHAINS = (("test_life", "test_limits"), ("test_grid", "test_faults"))  # of about the same length


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on SLURM first: they mostly wait, so that another worker computes meanwhile."""
    items.sort(key=lambda item: ON_SLURM not in item.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """A file is one worker's; two workers have all the tests on SLURM, which mostly wait."""

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            chain = (names for names in CHAINS if ON_SLURM in file and Path(file).stem in names)
            return " ".join(next(chain, [file]))

    return ByFile(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """With YOLOR_NO_SKIP=1 a skipped test fails, unless it is marked `gpu` (no machine of CI has one)."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("YOLOR_NO_SKIP") == "1" and report.skipped and item.get_closest_marker("gpu") is None:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but every test has to run here: {report.longrepr}"
