"""Ctrl-C and SIGTERM as a request to stop: a long operation ends between two steps and keeps its results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what schedulers and containers send."""

REPEAT_SECONDS = 1.0
"""A SIGTERM that follows another so soon is the same request: `timeout`, for example, sends it twice."""


class Interrupt:
    """Context manager that turns the first Ctrl-C or SIGTERM into a flag.

    The first signal sets `requested`; the second raises KeyboardInterrupt. Outside the main thread no handler
    is installed, because Python delivers signals to the main thread only.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        """Install the handlers."""
        self._repeats = _Repeats()
        try:
            self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        except ValueError:
            self._previous = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._repeats(number):
            return
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within the block, let SIGTERM raise KeyboardInterrupt, so that with and finally blocks are executed.

    An `Interrupt` in the block takes over until its end. Outside the main thread nothing is changed.
    """
    repeats = _Repeats()

    def handle(number: int, frame: FrameType | None) -> None:
        if not repeats(number):
            raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, handle)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def blocked_signals(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Within the block, let signals wait, in this thread and in the threads and processes that it starts.

    Windows has no such signals: there, nothing is changed.
    """
    if sys.platform == "win32":
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def obey_only_parent() -> None:
    """In a worker process, ignore Ctrl-C, and SIGTERM unless it comes from the process that uses the worker.

    The parent ends its workers by SIGTERM, for example before it exits, and then waits for them. Where the
    system does not tell the sender of a signal (Windows, macOS), SIGTERM is left as it is.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if sys.platform != "linux" or parent is None:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait_for_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)  # like a process that SIGTERM ends: no exit handlers, which could wait for the parent

    threading.Thread(target=wait_for_parent, daemon=True).start()


class _Repeats:
    """Tells whether a SIGTERM repeats an earlier one; a repeated Ctrl-C is a request of its own."""

    def __init__(self) -> None:
        self._last: float | None = None

    def __call__(self, number: int) -> bool:
        """Return True for a SIGTERM that follows another one within `REPEAT_SECONDS`."""
        if number != signal.SIGTERM:
            return False
        now, last = time.monotonic(), self._last
        self._last = now
        return last is not None and now - last < REPEAT_SECONDS
