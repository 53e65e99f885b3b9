"""Ctrl-C as a request to stop: a long operation ends between two steps and keeps its results."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupt:
    """Context manager that turns the first Ctrl-C into a flag.

    The first SIGINT sets `requested`; the second raises KeyboardInterrupt. Outside the main thread no handler
    is installed, because Python delivers signals to the main thread only.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        """Install the handler."""
        try:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        except ValueError:
            self._previous = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handler."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
