"""OKS: the object keypoint similarity of COCO."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from landmarks_fastai.evaluation.metrics import Floats, box_size, check_pair, is_labeled


def oks(pred: ArrayLike, true: ArrayLike, sigmas: ArrayLike) -> Floats:
    """Return the object keypoint similarity of each face.

    ``mean(exp(-d² / (2 s² κ²)))`` over its labeled landmarks, with the distance d of prediction and label,
    the scale s of the object and ``κ = 2σ`` (https://cocodataset.org/#keypoints-eval). COCO's s² is the area
    of the person's segment. Here it is the area of the upright box around the labeled landmarks
    (`box_size`²), because data sets of landmarks have no segments; the sigmas must refer to the same scale.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.
    sigmas
        (K,) standard deviation σ of the labels of each landmark, as a fraction of s. Landmarks whose sigma is
        NaN are left out.

    Returns
    -------
    NDArray
        (N,) in [0, 1]; NaN for faces without a box or without a labeled landmark that has a sigma. A labeled
        landmark whose prediction is not a number has the similarity 0.
    """
    pred, true = check_pair(pred, true)
    values = np.asarray(sigmas, np.float64)
    scales = box_size(true)
    counted = is_labeled(true) & np.isfinite(values) & np.isfinite(scales)[:, None]
    squares = np.where(counted, ((pred - true) ** 2).sum(axis=2), 0.0)
    squares = np.where(np.isnan(squares), np.inf, squares)
    variances = 2 * (2 * np.nan_to_num(values, nan=1.0)) ** 2 * np.nan_to_num(scales, nan=1.0)[:, None] ** 2
    similarity = np.where(counted, np.exp(-squares / variances), 0.0)
    counts = counted.sum(axis=1)
    return np.where(counts > 0, similarity.sum(axis=1) / np.maximum(counts, 1), np.nan)
