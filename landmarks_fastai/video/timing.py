"""Frame rates, time bases and spans of videos, as exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite

from landmarks_fastai.errors import UserError

DEFAULT_RATE = Fraction(25)
"""Frames per second of a source that does not state its rate."""

TIME_BASE = Fraction(1, 360_000)
"""Unit of times in seconds. Milliseconds, 90 kHz ticks and the frame durations of all common rates, including
30000/1001, are multiples of it."""

MAX_DENOMINATOR = 1_000_000


def parse_frame_rate(fps: float | Fraction) -> Fraction:
    """Return a frame rate as a fraction with a small denominator: 30000/1001 for 29.97002997.

    Raises
    ------
    UserError
        If it is not a number from 0.001 to 1000, frames per second.
    """
    if not (isfinite(fps) and 0.001 <= fps <= 1000):
        raise UserError(f"--fps {float(fps):g}: must be a number of frames per second from 0.001 to 1000")
    return _to_fraction(fps)


def average_rate(times: Sequence[Fraction]) -> Fraction:
    """Return the average number of frames per second of increasing times in seconds.

    The fraction fits into the 32-bit integers of libav and is exact for 30000/1001. For a single time, it is
    `DEFAULT_RATE`.
    """
    if len(times) < 2:
        return DEFAULT_RATE
    rate = (len(times) - 1) / (times[-1] - times[0])
    return max(rate.limit_denominator(5000), Fraction(1, 5000))


def check_span(start: float | Fraction, end: float | Fraction | None) -> tuple[Fraction, Fraction | None]:
    """Return the start and the end of a span in seconds as fractions.

    Raises
    ------
    UserError
        If the start is negative, or the end is not later than the start.
    """
    if not (isfinite(start) and start >= 0):
        raise UserError(f"--start {float(start):g}: must be 0 or more, in seconds from the beginning")
    if end is None:
        return _to_fraction(start), None
    if not (isfinite(end) and end > start):
        raise UserError(
            f"--end {float(end):g}: must be more than --start {float(start):g}, in seconds from the beginning"
        )
    return _to_fraction(start), _to_fraction(end)


def _to_fraction(value: float | Fraction) -> Fraction:
    return Fraction(value).limit_denominator(MAX_DENOMINATOR)
