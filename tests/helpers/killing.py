"""Processes that are killed at a random moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def run_killed(delay: float, run: Callable[[], object]) -> bool:
    """Call a function in a forked process, kill it after a delay; return whether it was done before."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFEXITED(os.waitpid(child, 0)[1])
