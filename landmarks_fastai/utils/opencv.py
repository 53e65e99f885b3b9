"""Differences between versions of OpenCV: its messages, and whether it can open windows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

SILENT = 0
ERRORS = 2
"""Levels: no messages, and errors only."""


@contextmanager
def opencv_log_level(opencv: ModuleType, level: int) -> Iterator[None]:
    """Limit what OpenCV writes to the terminal.

    Parameters
    ----------
    opencv
        The module ``cv2``.
    level
        `SILENT` or `ERRORS`.
    """
    logging = getattr(opencv.utils, "logging", opencv)  # before version 4.13 the functions were in cv2
    before = logging.getLogLevel()
    logging.setLogLevel(level)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def has_windows(opencv: ModuleType) -> bool:
    """Return True unless OpenCV was built without window support."""
    if hasattr(opencv, "currentUIFramework"):
        return bool(opencv.currentUIFramework())
    return re.search(r"GUI: +NONE", opencv.getBuildInformation()) is None  # before version 4.13
