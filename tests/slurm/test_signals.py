"""Signal handlers only set a flag."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from slurm.signals import StopFlag, held_back, stop_on


def test_a_signal_only_sets_the_flag_and_the_handler_goes_back() -> None:
    former = signal.getsignal(signal.SIGUSR1)
    with stop_on(signal.SIGUSR1) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop()
    assert signal.getsignal(signal.SIGUSR1) is former


def test_signals_within_a_second_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 10.2, 12.0])
    monkeypatch.setattr("slurm.signals.time.monotonic", lambda: next(moments))
    flag = StopFlag()
    counts = []
    for _ in range(3):
        flag.handle(signal.SIGTERM, None)
        counts.append(flag.requests)
    assert counts == [1, 1, 2]


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with stop_on(signal.SIGUSR1) as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not stop()
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_with_once_a_second_interrupt_interrupts() -> None:
    with stop_on(signal.SIGINT, once=True) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # at once: the same request
        assert stop.requests == 1
        stop.last -= 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_process_started_while_signals_are_held_back_never_sees_them() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    with held_back(signal.SIGINT):
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout == "alive\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
