"""Metrics of predicted landmarks as pure functions of arrays.

A landmark is labeled where both true coordinates are numbers; all others are masked, never filled in. A
prediction that is NaN is not masked, so that a diverged model does not score well.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import Groups, LandmarkSchema

Floats = NDArray[np.float64]

MIN_BOX_LANDMARKS = 3
"""Number of labeled landmarks below which `box_size` is undefined."""


# --- errors in pixels ----------------------------------------------------------------------------


def l1(pred: ArrayLike, true: ArrayLike) -> float:
    """Return the mean absolute coordinate error, which is the training loss of the original config.

    ``mean(|pred - true|)`` over the labeled coordinates of all faces, x and y alike.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.

    Returns
    -------
    float
        Pixels; NaN if nothing is labeled.
    """
    return mean_or_nan(np.abs(_labeled_differences(pred, true)))


def rmse(pred: ArrayLike, true: ArrayLike) -> float:
    """Return the root mean squared coordinate error, the metric of Kaggle's Facial Keypoints Detection.

    ``sqrt(mean((pred - true)²))`` over the labeled coordinates of all faces together, not the mean of
    per-face RMSEs: a face with 15 labeled landmarks weighs more than one with 4
    (https://www.kaggle.com/c/facial-keypoints-detection/overview/evaluation).

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.

    Returns
    -------
    float
        Pixels; NaN if nothing is labeled.
    """
    return math.sqrt(mean_or_nan(_labeled_differences(pred, true) ** 2))


def point_distances(pred: ArrayLike, true: ArrayLike) -> Floats:
    """Return the Euclidean distance of each predicted point from the true one.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.

    Returns
    -------
    NDArray[np.float64]
        (N, K) pixels; NaN where the landmark is unlabeled.
    """
    pred, true = check_pair(pred, true)
    distances = np.hypot(*np.moveaxis(pred - true, -1, 0))
    return np.where(is_labeled(true), distances, np.nan)


# --- normalized errors ---------------------------------------------------------------------------


def inter_ocular_distance(true: ArrayLike, schema: LandmarkSchema) -> Floats:
    """Return the distance between the means of the schema's two groups of eye landmarks.

    In kaggle15 these are the two labeled eye centers. In ibug68 they are the means of the six landmarks
    around each eye, which makes it an inter-pupil normalizer (Ren et al. 2014, "Face Alignment at 3000 FPS",
    CVPR). The 300-W challenge itself divides by the distance of the outer eye corners, landmarks 36 and 45 of
    ibug68 (Sagonas et al. 2016, "300 Faces In-The-Wild Challenge: database and results", Image and Vision
    Computing 47). That distance is longer and gives a smaller NME, so numbers with different normalizers,
    including `box_size`, are not comparable.

    Parameters
    ----------
    true
        (N, K, 2) points, (x, y) in pixels; NaN where unlabeled.
    schema
        Names the landmarks of the eyes.

    Returns
    -------
    NDArray[np.float64]
        (N,) pixels; NaN where an eye landmark is unlabeled, the eyes coincide or the schema has no eyes.
    """
    true = _as_points(true)
    return np.full(len(true), np.nan) if schema.eyes is None else _group_distance(true, schema, schema.eyes)


def normalizing_distance(true: ArrayLike, schema: LandmarkSchema) -> Floats:
    """Return the distance by which the errors of each face are divided.

    The distance between the means of the two groups of landmarks that the schema names for it, by default the
    eyes; `box_size` if it names none.

    Parameters
    ----------
    true
        (N, K, 2) points, (x, y) in pixels; NaN where unlabeled.
    schema
        Names of the K landmarks.

    Returns
    -------
    NDArray[np.float64]
        (N,) pixels; NaN where it is undefined.
    """
    groups = schema.distance_groups
    return box_size(true) if groups is None else _group_distance(_as_points(true), schema, groups)


def box_size(true: ArrayLike) -> Floats:
    """Return the size of the upright box around each face's labeled landmarks: ``sqrt(width * height)``.

    The normalizer of Bulat & Tzimiropoulos 2017, "How far are we from solving the 2D & 3D Face Alignment
    problem?" (ICCV, arXiv:1703.07332). It depends on which landmarks are labeled, so only faces with the same
    labeled landmarks are comparable.

    Parameters
    ----------
    true
        (N, K, 2) points, (x, y) in pixels; NaN where unlabeled.

    Returns
    -------
    NDArray[np.float64]
        (N,) pixels; NaN where fewer than `MIN_BOX_LANDMARKS` landmarks are labeled or the box has no area.
    """
    true = _as_points(true)
    labeled = is_labeled(true)
    low = np.where(labeled[..., None], true, np.inf).min(axis=1)
    high = np.where(labeled[..., None], true, -np.inf).max(axis=1)
    enough = labeled.sum(axis=1) >= MIN_BOX_LANDMARKS
    sides = np.where(enough[:, None], high, 0.0) - np.where(enough[:, None], low, 0.0)
    size = np.sqrt(sides.prod(axis=1))
    return np.where(size > 0, size, np.nan)


def nme(pred: ArrayLike, true: ArrayLike, normalizer: ArrayLike) -> Floats:
    """Return the normalized mean error of each face: ``mean(distance of labeled landmarks) / normalizer``.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.
    normalizer
        (N,) pixels: `inter_ocular_distance` or `box_size` of the true points.

    Returns
    -------
    NDArray[np.float64]
        (N,) fractions (0.05 is 5 %); NaN where no landmark is labeled or the normalizer is not a positive
        number.

    Raises
    ------
    UserError
        If the shapes do not agree.
    """
    distances = point_distances(pred, true)
    labeled = is_labeled(_as_points(true))
    counts = labeled.sum(axis=1)
    sums = np.where(labeled, distances, 0.0).sum(axis=1)
    divisor = np.asarray(normalizer, np.float64)
    if divisor.shape != counts.shape:
        raise UserError(f"{len(counts)} faces need {len(counts)} normalizers, not shape {divisor.shape}")
    usable = (counts > 0) & (divisor > 0) & np.isfinite(divisor)
    return np.where(usable, sums / np.where(usable, counts * divisor, 1.0), np.nan)


# --- distribution of the NME ---------------------------------------------------------------------


def failure_rate(nme: ArrayLike, threshold: float) -> float:
    """Return the fraction of faces whose NME is larger than `threshold`: ``mean(nme > threshold)``.

    Common thresholds are 8 % (300-W, Sagonas et al. 2016) and 10 % (WFLW, Wu et al. 2018, "Look at Boundary",
    CVPR). A face whose NME equals the threshold is not a failure.

    Parameters
    ----------
    nme
        (N,) NMEs as fractions; NaN (a face that cannot be normalized) is left out.
    threshold
        A fraction: 0.08 is 8 %.

    Returns
    -------
    float
        In [0, 1]; NaN if no face has an NME.
    """
    return mean_or_nan((known_values(nme) > threshold).astype(np.float64))


def auc(nme: ArrayLike, threshold: float) -> float:
    """Return the area under the cumulative error distribution from 0 to `threshold`, divided by `threshold`.

    Computed exactly, not as a sum over bins: the cumulative error distribution (CED) is a step function, and
    each face contributes the part of the range above its error, ``mean(max(0, 1 - nme / threshold))``. The
    metric of 300-VW and of Bulat & Tzimiropoulos 2017; 1 is perfect.

    Parameters
    ----------
    nme
        (N,) NMEs as fractions; NaN (a face that cannot be normalized) is left out.
    threshold
        A fraction larger than 0: 0.08 is 8 %.

    Returns
    -------
    float
        In [0, 1]; NaN if no face has an NME.

    Raises
    ------
    UserError
        If the threshold is not larger than 0.
    """
    if not threshold > 0:
        raise UserError(f"the threshold of an AUC must be larger than 0, not {threshold}")
    return mean_or_nan(np.maximum(0.0, 1.0 - known_values(nme) / threshold))


def ced(nme: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Return the cumulative error distribution: the fraction of faces whose NME is at most each threshold.

    Parameters
    ----------
    nme
        (N,) NMEs as fractions; NaN (a face that cannot be normalized) is left out.
    thresholds
        (T,) fractions, in any order.

    Returns
    -------
    NDArray[np.float64]
        (T,) in [0, 1]; NaN if no face has an NME.
    """
    known = np.sort(known_values(nme))
    limits = np.asarray(thresholds, np.float64)
    if not len(known):
        return np.full(limits.shape, np.nan)
    return np.searchsorted(known, limits, side="right") / len(known)


# --- masks and checks ----------------------------------------------------------------------------


def check_pair(pred: ArrayLike, true: ArrayLike) -> tuple[Floats, Floats]:
    """Return predicted and true points as (N, K, 2) float64.

    Raises
    ------
    UserError
        If they are not (N, K, 2), or differ in shape.
    """
    predicted, labels = _as_points(pred), _as_points(true)
    if predicted.shape != labels.shape:
        raise UserError(
            f"predicted and true points must have the same shape, not {predicted.shape} and {labels.shape}"
        )
    return predicted, labels


def is_labeled(true: Floats) -> NDArray[np.bool_]:
    """Return the (…) mask of (…, 2) true points that are labeled."""
    return np.asarray(np.isfinite(true).all(axis=-1))


def known_values(values: ArrayLike) -> Floats:
    """Return the values that are not NaN."""
    array = np.asarray(values, np.float64)
    return array[~np.isnan(array)]


def mean_or_nan(values: Floats) -> float:
    """Return the mean, or NaN without a warning if there are no values."""
    return float(values.mean()) if values.size else math.nan


def _as_points(points: ArrayLike) -> Floats:
    array = np.asarray(points, np.float64)
    if array.ndim != 3 or array.shape[2] != 2:
        raise UserError(f"points must be (N, K, 2), not {array.shape}")
    return array


def _group_distance(true: Floats, schema: LandmarkSchema, groups: Groups) -> Floats:
    """Return the (N,) distances between the means of two groups of landmarks; NaN where 0 or unknown."""
    # a plain mean, which is NaN if one landmark is unlabeled: the mean of the others is not the center
    first, second = (true[:, schema.indices(group)].mean(axis=1) for group in groups)
    distance = np.hypot(*np.moveaxis(first - second, -1, 0))
    return np.where(distance > 0, distance, np.nan)


def _labeled_differences(pred: ArrayLike, true: ArrayLike) -> Floats:
    """Return predicted minus true coordinates of the labeled landmarks, (M, 2)."""
    predicted, labels = check_pair(pred, true)
    labeled = is_labeled(labels)
    return predicted[labeled] - labels[labeled]
