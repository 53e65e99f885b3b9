"""The type of the callbacks that receive the progress of long operations."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called with the amount done so far and the total, None if unknown: bytes of a download, frames of a
video."""
