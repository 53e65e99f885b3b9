"""The callback type through which long operations report how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called with the amount done so far and the total (None if unknown): bytes of a download, frames of a
video."""
