"""PCK: the percentage of correct keypoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.metrics import Floats, check_pair, is_labeled, mean_or_nan, point_distances

PCK_THRESHOLDS = (0.05, 0.10, 0.20)
"""Default thresholds, as fractions of the normalizer."""


def pck(pred: ArrayLike, true: ArrayLike, normalizer: ArrayLike, threshold: float) -> float:
    """Return the fraction of labeled landmarks that are within ``threshold * normalizer`` of their label.

    Introduced by Yang & Ramanan 2013, "Articulated human detection with flexible mixtures of parts" (TPAMI
    35), for which the normalizer is the longer side of the person's box. All landmarks count the same, so a
    face with 15 labeled landmarks weighs more than one with 4.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.
    normalizer
        (N,) pixels, as for `nme`; faces without a positive number are left out.
    threshold
        A fraction larger than 0. A landmark at exactly this distance is correct.

    Returns
    -------
    float
        In [0, 1]; NaN if no landmark counts.

    Raises
    ------
    UserError
        If the threshold is not larger than 0.
    """
    check_threshold(threshold)
    relative = relative_distances(pred, true, normalizer)
    return mean_or_nan((relative[~np.isnan(relative)] <= threshold).astype(np.float64))


def relative_distances(pred: ArrayLike, true: ArrayLike, normalizer: ArrayLike) -> Floats:
    """Return the distance of each landmark from its label, divided by the normalizer of its face.

    Parameters
    ----------
    pred, true, normalizer
        See `pck`.

    Returns
    -------
    NDArray
        (N, K); NaN where a landmark is unlabeled or its face has no normalizer, infinite for a labeled
        landmark whose prediction is not a number.
    """
    pred, true = check_pair(pred, true)
    divisor = np.asarray(normalizer, np.float64)
    usable: NDArray[np.bool_] = (divisor > 0) & np.isfinite(divisor)
    counted = is_labeled(true) & usable[:, None]
    ratios = point_distances(pred, true) / np.where(usable, divisor, 1.0)[:, None]
    return np.where(counted, np.where(np.isnan(ratios), np.inf, ratios), np.nan)


def check_threshold(threshold: float) -> None:
    """Raise UserError if a threshold is not a positive number."""
    if not 0 < threshold < np.inf:
        raise UserError(f"a PCK threshold must be larger than 0, such as 0.05, not {threshold}")
