"""The first Ctrl-C or SIGTERM sets a flag, the second raises KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from landmarks_fastai.utils import interrupt as interrupt_module
from landmarks_fastai.utils.interrupt import REPEAT_SECONDS, STOP_SIGNALS, Interrupt, terminate_as_interrupt


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Freeze the clock that recognizes repeated signals; the function advances it by some seconds."""
    now = [100.0]
    monkeypatch.setattr(interrupt_module.time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


@pytest.mark.parametrize("first", STOP_SIGNALS)
@pytest.mark.parametrize("second", STOP_SIGNALS)
def test_interrupt_first_signal_sets_flag_and_second_raises(
    first: signal.Signals, second: signal.Signals, clock: Callable[[float], None]
) -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), first)
        assert interrupt.requested
        clock(REPEAT_SECONDS)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_interrupt_repeated_sigterm_counts_once(clock: Callable[[float], None]) -> None:
    with Interrupt() as interrupt:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested


def test_interrupt_outside_main_thread_installs_no_handler() -> None:
    requested: list[bool] = []

    def work() -> None:
        with Interrupt() as interrupt, terminate_as_interrupt():
            requested.append(interrupt.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]


def test_terminate_as_interrupt_raises_and_restores(clock: Callable[[float], None]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned: list[bool] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a repetition does not break off the cleanup
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
        work()
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_terminate_as_interrupt_leaves_signal_to_inner_interrupt(clock: Callable[[float], None]) -> None:
    with terminate_as_interrupt():
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
