"""Tasks on all cores of this machine, or one after another where there is little to do."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from ablations.machine import cores

Submit = Callable[..., "Future[Any]"]
FEWEST = 4  # tasks for each process, which needs seconds to start


@contextmanager
def submitting(tasks: int, processes: int | None = None) -> Iterator[Submit]:
    """A function that starts a task and gives its future.

    Args:
        tasks: that will be submitted.
        processes: at most; by default as many as cores and tasks are worth. 1 runs each task at once.

    An interruption ends the processes.
    """
    count = max(1, min(cores(), tasks // FEWEST)) if processes is None else processes
    if count == 1:
        yield _here
        return
    before = set(multiprocessing.active_children())
    # A fork would copy the locks of the threads that numpy and pyarrow have started.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _quiet)
    try:
        yield pool.submit
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


def _quiet() -> None:
    """Ctrl-C ends a worker without a word; the first process says it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _here(task: Callable[..., Any], *arguments: Any) -> Future[Any]:
    done: Future[Any] = Future()
    try:
        done.set_result(task(*arguments))
    except Exception as error:
        done.set_exception(error)
    return done
