"""Signal handlers that only set a flag; whoever works looks at the flag between two steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME_SECONDS = 1.0


class StopFlag:
    """Counts the requests to stop. Calling it tells whether there was one.

    Signals within a second count as one request: `make` and `timeout` pass on a signal that the process group
    got already.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.last = float("-inf")

    def __call__(self) -> bool:
        return self.requests > 0

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler: nothing but the count, because it may interrupt any line of any library."""
        moment = time.monotonic()
        self.requests += moment - self.last > SAME_SECONDS
        self.last = moment


@contextmanager
def stop_on(*signals: signal.Signals, once: bool = False) -> Iterator[StopFlag]:
    """Within the block the given signals only set the flag; afterwards the former handlers are back.

    With `once` that holds for the first request: the former handlers take the second one, so that a second
    Ctrl-C interrupts. A signal that is ignored on entry (SIGHUP under nohup) stays ignored. Main thread only.
    """
    flag = StopFlag()
    former = {s: signal.getsignal(s) for s in signals if signal.getsignal(s) is not signal.SIG_IGN}

    def handle(signum: int, frame: FrameType | None) -> None:
        flag.handle(signum, frame)
        if once and flag.requests > 1:
            signal.signal(signum, former[signal.Signals(signum)])
            os.kill(os.getpid(), signum)

    for signum in former:
        signal.signal(signum, handle)
    try:
        yield flag
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


@contextmanager
def held_back(*signals: signal.Signals) -> Iterator[None]:
    """Within the block the given signals wait. A process started here holds them back for all its life.

    So a terminal's Ctrl-C, which reaches every process of the foreground group, is left to the launcher.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
