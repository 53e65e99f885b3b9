"""The time since a moment, from a clock that tests can replace."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Counts the seconds since it was created.

    Parameters
    ----------
    clock
        Returns the time in seconds; its zero has no meaning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.started = clock()

    def elapsed(self) -> float:
        """Return the seconds since the stopwatch was created."""
        return self.clock() - self.started
