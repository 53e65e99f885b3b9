"""The type of the callbacks that receive the progress of long operations."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Progress(Protocol):
    """Called with the amount done so far and the total, None if unknown.

    The unit is "bytes" of a download, "images" that are decoded, or "frames" of a video.
    """

    def __call__(self, done: int, total: int | None, unit: str = "bytes", /) -> None:
        """Report progress."""


@runtime_checkable
class AnnouncedProgress(Progress, Protocol):
    """Progress that also shows a sentence about what is going to take time, such as a download."""

    def announce(self, text: str, /) -> None:
        """Show a sentence."""


def announce(progress: Progress | None, text: str) -> None:
    """Show a sentence if `progress` is an `AnnouncedProgress`."""
    if isinstance(progress, AnnouncedProgress):
        progress.announce(text)
