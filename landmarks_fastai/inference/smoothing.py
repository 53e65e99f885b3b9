"""Temporal smoothing of the landmarks of one face with One-Euro filters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cutoffs:
    """Parameters of a One-Euro filter (Casiez et al. 2012, "1 € Filter", CHI, section 3).

    Parameters
    ----------
    minimum
        Cutoff frequency at rest in Hz (mincutoff in the paper); lower is smoother.
    speed
        Increase of the cutoff in Hz per face size per second of speed (β in the paper); higher lags less.
    derivative
        Cutoff frequency of the speed estimate in Hz (dcutoff in the paper).
    """

    minimum: float
    speed: float
    derivative: float = 1.0


CENTROID_CUTOFFS = Cutoffs(minimum=3.0, speed=25.0, derivative=2.0)
"""For the centroid of a face, which is the mean of all landmarks and therefore has little jitter. Tuned in
benchmarks/smoothing.md, like `SHAPE_CUTOFFS`."""

SHAPE_CUTOFFS = Cutoffs(minimum=0.7, speed=25.0)
"""For each landmark relative to the centroid: most of the jitter, but little motion."""


FULL_VISIBILITY = 0.9
"""A landmark that is visible with at least this probability is smoothed like without visibility."""

MIN_CUTOFF_FACTOR = 0.05
"""Smallest factor of the cutoff of an occluded landmark, which must still follow the face."""


class OneEuroFilter:
    """Low-pass filter whose cutoff increases with speed (Casiez et al. 2012, "1 € Filter", CHI).

    Speed is measured in face sizes per second, so that the same parameters suit faces of 50 and of 500
    pixels.

    Parameters
    ----------
    cutoffs
        Parameters of the filter.
    """

    def __init__(self, cutoffs: Cutoffs) -> None:
        self.cutoffs = cutoffs
        self.value: Floats | None = None
        self.velocity: Floats | None = None

    def __call__(
        self, value: Floats, elapsed: float, size: float, cutoff_factor: Floats | float = 1.0
    ) -> Floats:
        """Filter the next measurement.

        Parameters
        ----------
        value
            (K, 2) measured positions. A position that is NaN, or was NaN before, is returned unchanged.
        elapsed
            Seconds since the last call; at 0 or less the last result is returned.
        size
            Size of the face, in the unit of `value`.
        cutoff_factor
            (K,) or scalar factor of the cutoff; 1 is the filter of the paper.

        Returns
        -------
        NDArray[np.float64]
            (K, 2) filtered positions.
        """
        if self.value is None or self.velocity is None:
            self.value, self.velocity = value.copy(), np.zeros_like(value)
            return value
        if elapsed > 0:
            unknown = ~np.isfinite(self.value + value).all(axis=1, keepdims=True)
            previous = np.where(unknown, value, self.value)
            velocity = (value - previous) / (elapsed * size)
            factor = _smoothing_factor(np.array(self.cutoffs.derivative), elapsed)
            velocity = np.where(unknown, 0.0, self.velocity + factor * (velocity - self.velocity))
            cutoff = self.cutoffs.minimum + self.cutoffs.speed * np.hypot(*velocity.T)
            factor = _smoothing_factor(cutoff_factor * cutoff, elapsed)
            self.value = previous + factor[:, None] * (value - previous)
            self.velocity = velocity
        return self.value.copy()


def _smoothing_factor(cutoff: Floats, elapsed: float) -> Floats:
    """Return α = 1 / (1 + τ / T) with τ = 1 / (2π f) for a cutoff f in Hz and T elapsed seconds (eq. 4)."""
    return np.asarray(1 / (1 + 1 / (2 * math.pi * cutoff * elapsed)))


class LandmarkSmoother:
    """Smooths the landmarks of one face from frame to frame.

    A head moves as a whole, and the mean of all landmarks locates it precisely: the centroid is filtered
    lightly, so that it does not lag, and the shape relative to it strongly. Landmarks with less confidence
    than the median, and landmarks that are probably occluded, are filtered more strongly.
    """

    def __init__(self) -> None:
        self._centroid, self._shape = OneEuroFilter(CENTROID_CUTOFFS), OneEuroFilter(SHAPE_CUTOFFS)
        self._time: float | None = None

    def __call__(
        self,
        points: NDArray[np.floating],
        time: float,
        confidence: NDArray[np.floating] | None = None,
        visibility: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float32]:
        """Smooth the landmarks of the next frame.

        Parameters
        ----------
        points
            (K, 2) pixels of the frame; NaN is returned unchanged.
        time
            Time of the frame in seconds.
        confidence
            (K,) confidence; None or NaN if unknown.
        visibility
            (K,) probability that a landmark is visible; None or NaN if unknown.

        Returns
        -------
        NDArray[np.float32]
            (K, 2) pixels of the frame.
        """
        positions = points.astype(np.float64)
        known = np.isfinite(positions).all(axis=1)
        if not known.any():
            return points.astype(np.float32)
        elapsed = 0.0 if self._time is None else time - self._time
        self._time = time
        centroid = positions[known].mean(axis=0)
        size = face_size(positions[known])
        factor = np.minimum(_cutoff_factor(confidence), _visibility_factor(visibility))
        shape = self._shape(positions - centroid, elapsed, size, factor)
        smoothed = self._centroid(centroid[None], elapsed, size) + shape
        return smoothed.astype(np.float32)


def _cutoff_factor(confidence: NDArray[np.floating] | None) -> Floats | float:
    """Return the squared ratio of each confidence to the median, at most 1; 1 if confidence is unknown.

    Squared like a variance. This reduces the jitter of a partly occluded face by another third
    (benchmarks/smoothing.md).
    """
    if confidence is None or not np.isfinite(confidence).all() or not confidence.any():
        return 1.0
    values = confidence.astype(np.float64)
    median = np.median(values)
    return np.minimum(1.0, values / median) ** 2 if median > 0 else 1.0


def _visibility_factor(visibility: NDArray[np.floating] | None) -> Floats | float:
    """Return the squared ratio of each visibility to `FULL_VISIBILITY`, at most 1; 1 where it is unknown.

    The smaller of this factor and that of the confidence is used, not their product, because an occluded
    landmark usually has less confidence, too (benchmarks/visibility.md). Weighting the centroid by visibility
    was tried as well; it moves when the weights change, and was not better.
    """
    if visibility is None:
        return 1.0
    ratios = visibility.astype(np.float64) / FULL_VISIBILITY
    return np.asarray(np.clip(np.nan_to_num(ratios, nan=1.0) ** 2, MIN_CUTOFF_FACTOR, 1.0), np.float64)


def face_size(points: NDArray[np.floating]) -> float:
    """Return the approximate side of a face's crop: four times the RMS distance of landmarks from their mean.

    Parameters
    ----------
    points
        (K, 2) finite landmarks, pixels.

    Returns
    -------
    float
        Pixels; 1 if all landmarks coincide.
    """
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())) * 4 or 1.0
