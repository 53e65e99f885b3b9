"""The type of the callbacks that receive the progress of long operations."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the amount done so far and the total, None if unknown.

    The unit is "bytes" of a download, "images" that are decoded, or "frames" of a video.
    """

    def __call__(self, done: int, total: int | None, unit: str = "bytes", /) -> None:
        """Report progress."""
