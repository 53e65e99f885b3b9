"""Inverse-variance weighting: the average of several predictions of the same landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.evaluation.calibration import confidence_from_scale
from landmarks_fastai.landmarks import Landmarks


def average_landmarks(
    predictions: Sequence[Landmarks], included: NDArray[np.bool_] | None = None
) -> Landmarks:
    """Average predictions of the same faces by several models or passes, weighted by inverse variance.

    A point with Laplace scale b has weight ``1 / b²``, which minimizes the variance of the mean if the errors
    are independent. Where a scale is unknown, the mean is unweighted and its scale unknown.

    The scale of the mean is the weighted mean of the scales. That is exact if the errors are fully
    correlated, and otherwise too large, by a factor of at most √n for n predictions; the correlation is not
    known. Visibility is the mean of the predictions that estimate it.

    Parameters
    ----------
    predictions
        P ≥ 1, of the same N faces and K landmarks.
    included
        (P, N) mask of the predictions that count for each face, at least one per face. None: all.

    Returns
    -------
    Landmarks
        With the crops of the last prediction.
    """
    points = np.stack([one.points for one in predictions]).astype(np.float64)
    scales = np.stack([one.scales for one in predictions]).astype(np.float64)
    weights = np.where(np.isfinite(scales).all(axis=0), scales**-2.0, 1.0)
    visibility = np.stack([one.visibility for one in predictions])
    if included is not None:
        weights *= included[..., None]
        visibility = np.where(included[..., None], visibility, np.nan)
    weights /= weights.sum(axis=0)
    last = predictions[-1]
    mean_scales = (weights * scales).sum(axis=0).astype(np.float32)
    sides = np.array([crop.side for crop in last.crops or ()])
    return Landmarks(
        (weights[..., None] * points).sum(axis=0).astype(np.float32),
        last.schema,
        confidence_of(mean_scales, sides),
        mean_scales,
        last.crops,
        visibility=mean_visibility(visibility),
    )


def mean_visibility(predictions: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the known probabilities, (N, K); NaN where none is known."""
    stacked = np.stack([values.astype(np.float64) for values in predictions])
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return np.asarray(total / known.sum(axis=0), np.float32)


def confidence_of(scales: NDArray[np.float32], sides: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the (N, K) confidence for (N, K) scales and (N,) sides of the crops, both in pixels."""
    return confidence_from_scale(scales, sides[:, None]).astype(np.float32)
