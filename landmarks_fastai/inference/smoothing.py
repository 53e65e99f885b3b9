"""Steady points: the One-Euro filter, on where a face is and on how its points lie about it.

Knows times and points of one face. Knows nothing about pictures, networks or tracks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cutoffs:
    """How a One-Euro filter weighs steadiness against lag (Casiez et al. 2012, section 3).

    Parameters
    ----------
    still
        Cutoff frequency for what stands still, Hz (the paper's mincutoff): less is steadier.
    speed
        How much the cutoff grows with speed, Hz for one face's size a second (the paper's β): more lags less.
    of_speed
        Cutoff frequency of the speed itself, Hz (the paper's dcutoff).
    """

    still: float
    speed: float
    of_speed: float = 1.0


MOVING = Cutoffs(still=3.0, speed=25.0, of_speed=2.0)
"""For the middle of a face: all points together say where it is, so there is little to steady. Both are tuned
in benchmarks/smoothing.md."""

LYING = Cutoffs(still=0.7, speed=25.0)
"""For each point about that middle: most of the jitter, and little speed, stand here."""


class OneEuro:
    """Casiez et al. 2012, "1 € Filter": a low-pass filter whose cutoff grows with speed.

    Lengths are divided by `size` before they count as speed, so that the same numbers serve a face of
    50 px and of 500.
    """

    def __init__(self, cutoffs: Cutoffs) -> None:
        self.cutoffs = cutoffs
        self.value: Floats | None = None
        self.velocity: Floats | None = None

    def __call__(self, value: Floats, elapsed: float, size: float, trust: Floats | float = 1.0) -> Floats:
        """Return the steadied places.

        Parameters
        ----------
        value
            (K, 2) places as they were measured. A place that is NaN, or was so before, is taken as it is.
        elapsed
            Seconds since the last call; at 0 or less the place before is kept.
        size
            Length that counts as one face.
        trust
            (K,) or one: by what each place's cutoff is multiplied, 1 is the paper's filter.
        """
        if self.value is None or self.velocity is None:
            self.value, self.velocity = value.copy(), np.zeros_like(value)
            return value
        if elapsed > 0:
            fresh = ~np.isfinite(self.value + value).all(axis=1, keepdims=True)
            before = np.where(fresh, value, self.value)
            velocity = (value - before) / (elapsed * size)
            share = _share(np.array(self.cutoffs.of_speed), elapsed)
            velocity = np.where(fresh, 0.0, self.velocity + share * (velocity - self.velocity))
            cutoff = self.cutoffs.still + self.cutoffs.speed * np.hypot(*velocity.T)
            share = _share(trust * cutoff, elapsed)
            self.value = before + share[:, None] * (value - before)
            self.velocity = velocity
        return self.value.copy()


def _share(cutoff: Floats, elapsed: float) -> Floats:
    """Return how much of a step is taken at once, α = 1 / (1 + τ / T) with τ = 1 / (2π f) (eq. 4)."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * cutoff * elapsed)))


class SteadyFace:
    """The points of one face, steadied frame by frame.

    A head moves as a whole, and all its points together tell where it is: their middle is filtered
    lightly, so that it does not lag, and how the points lie about it strongly. The less sure of a point the
    model is than of most, the more it stays where it lay.
    """

    def __init__(self) -> None:
        self.middle, self.lying = OneEuro(MOVING), OneEuro(LYING)
        self.time: float | None = None

    def __call__(
        self, points: NDArray[np.floating], time: float, confidence: NDArray[np.floating] | None = None
    ) -> NDArray[np.float32]:
        """Return (K, 2) steadied points, px.

        Parameters
        ----------
        points
            (K, 2), x then y, px of the frame; NaN is left as it is.
        time
            Of the frame, in seconds.
        confidence
            (K,), as `Landmarks.confidence`; None or NaN where it is not known.
        """
        places = points.astype(np.float64)
        known = np.isfinite(places).all(axis=1)
        if not known.any():
            return points.astype(np.float32)
        elapsed = 0.0 if self.time is None else time - self.time
        self.time = time
        middle = places[known].mean(axis=0)
        size = face_size(places[known])
        lying = self.lying(places - middle, elapsed, size, _trust(confidence))
        steady = self.middle(middle[None], elapsed, size) + lying
        return steady.astype(np.float32)


def _trust(confidence: NDArray[np.floating] | None) -> Floats | float:
    """Return the square of each point's confidence as a share of the median, at most 1; 1 if none is known.

    Its square, as a variance: so hidden points keep a third less of their jitter, and the others all theirs
    (benchmarks/smoothing.md).
    """
    if confidence is None or not np.isfinite(confidence).all() or not confidence.any():
        return 1.0
    sure = confidence.astype(np.float64)
    return np.minimum(1.0, sure / np.median(sure)) ** 2 if np.median(sure) > 0 else 1.0


def face_size(points: NDArray[np.floating]) -> float:
    """Return about the side of a face's square, px: four times the spread of its (K, 2) known points."""
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())) * 4 or 1.0
