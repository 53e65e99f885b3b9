"""Frame rates, time bases and spans of videos, as exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite

from landmarks_fastai.errors import UserError

DEFAULT_RATE = Fraction(25)
"""Frames per second of a source that does not state its rate."""

TIME_BASE = Fraction(1, 360_000)
"""Unit in seconds of which milliseconds, 90 kHz ticks and the frames of all usual rates (30000/1001 and the
like too) are multiples."""

MAX_DENOMINATOR = 1_000_000


def parse_frame_rate(fps: float | Fraction) -> Fraction:
    """Return a frame rate as the fraction that is meant: 29.97002997 is 30000/1001.

    Raises
    ------
    UserError
        If it is not a number from 0.001 to 1000.
    """
    if not (isfinite(fps) and 0.001 <= fps <= 1000):
        raise UserError(f"--fps {float(fps):g}: give a number of frames per second from 0.001 to 1000")
    return _to_fraction(fps)


def average_rate(times: Sequence[Fraction]) -> Fraction:
    """Return the average number of frames per second of increasing times in seconds.

    The fraction is short enough for the 32-bit integers of libav and exact for 30000/1001. A single time
    gives `DEFAULT_RATE`.
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
        raise UserError(f"--start {float(start):g}: give seconds from the beginning, 0 or more")
    if end is None:
        return _to_fraction(start), None
    if not (isfinite(end) and end > start):
        raise UserError(
            f"--end {float(end):g}: give seconds from the beginning, more than --start {float(start):g}"
        )
    return _to_fraction(start), _to_fraction(end)


def _to_fraction(value: float | Fraction) -> Fraction:
    return Fraction(value).limit_denominator(MAX_DENOMINATOR)
