"""Ctrl-C as a question: a long job ends between two steps, and what it did is kept.

Knows signals; nothing about what is interrupted.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupt:
    """A context in which a first Ctrl-C sets `asked`, and a second one raises KeyboardInterrupt.

    Outside of the main thread it listens to nothing: whoever runs us there handles signals.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        """Listen."""
        try:
            self._before = signal.signal(signal.SIGINT, self._hear)
        except ValueError:
            self._before = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave signals as they were."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
