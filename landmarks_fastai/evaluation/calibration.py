"""Calibration: how well predicted confidences and errors agree with observed ones.

A model with confidence predicts for each landmark a scale b, its expected absolute error along x and along y.
It is trained as the scale of a Laplace distribution with density ``exp(-|e| / b) / 2b`` of the error e.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError

Floats = NDArray[np.float64]

CONFIDENCE_RADIUS = 0.025
"""Maximum error along x and along y of an accurate landmark, as a fraction of the side of its crop."""

MIN_PROBABILITY = 1e-7
"""Probabilities are clipped to this and 1 minus this before their log-odds are computed."""

MIN_SLOPE = 0.01
"""Smallest slope of the calibration of visibility."""

BINS = 10
"""Number of bins, each with the same number of landmarks."""

_erf = np.frompyfunc(math.erf, 1, 1)  # scipy's would be slow to import, and every prediction needs it


def confidence_from_scale(scales: ArrayLike, side: ArrayLike) -> Floats:
    """Return the probability that a landmark's errors along x and along y are within the confidence radius.

    ``erf(radius / (b √π))²`` with radius ``CONFIDENCE_RADIUS * side``: the squared probability of one
    coordinate under a normal distribution with mean absolute error b. The errors of all landmarks together
    follow a Laplace distribution; those of landmarks with the same b are closer to normal, because b already
    separates difficult landmarks from easy ones. With the Laplace distribution, the confidences of the
    released models were 3 to 6 percentage points too low.

    Parameters
    ----------
    scales
        Scales b, the mean absolute errors in pixels; NaN where unknown.
    side
        Side of the landmarks' crop in pixels; broadcast against `scales`.

    Returns
    -------
    NDArray[np.float64]
        In [0, 1], in the shape of `scales`; NaN where the scale is NaN.
    """
    radius = CONFIDENCE_RADIUS * np.asarray(side, np.float64)
    ratios = radius / (math.sqrt(math.pi) * np.asarray(scales, np.float64))
    return np.square(np.asarray(_erf(ratios), np.float64))


def scale_from_confidence(confidence: ArrayLike, side: ArrayLike) -> Floats:
    """Return the scale in pixels that has this confidence: the inverse of `confidence_from_scale`.

    Only confidences above 0 and below 1 have a positive, finite scale.
    """
    from scipy.special import erfinv

    radius = CONFIDENCE_RADIUS * np.asarray(side, np.float64)
    return np.asarray(radius / (math.sqrt(math.pi) * erfinv(np.sqrt(np.asarray(confidence, np.float64)))))


def fit_scale_factor(pred: ArrayLike, true: ArrayLike, scales: ArrayLike) -> float:
    """Return the factor by which all scales must be multiplied to fit the observed errors best.

    ``mean(|error| / b)`` over the labeled coordinates, which maximizes the likelihood of Laplace
    distributions with the scales ``factor * b``. It is the counterpart of temperature scaling for a softmax
    (Guo et al. 2017, "On Calibration of Modern Neural Networks", ICML, section 4.2); the order of the
    landmarks is unchanged.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.
    scales
        (N, K) pixels; NaN where unknown.

    Returns
    -------
    float
        Above 1 if the model is overconfident; 1 if no labeled landmark has a scale.
    """
    errors, known_scales = _errors_and_scales(pred, true, scales)
    factor = float(np.mean(np.abs(errors) / known_scales[:, None])) if len(known_scales) else 1.0
    return factor if factor > 0 else 1.0  # a scale must be positive, even if all errors are 0


def fit_visibility_calibration(probabilities: ArrayLike, targets: ArrayLike) -> tuple[float, float]:
    """Return slope and intercept that calibrate the log-odds of predicted probabilities (Platt scaling).

    The calibrated probability is ``1 / (1 + exp(-(slope * log_odds + intercept)))``. Slope and intercept
    maximize the likelihood of the targets, smoothed as in Platt 1999 ("Probabilistic Outputs for Support
    Vector Machines", section 2.2), so that separable predictions do not become certain.

    Parameters
    ----------
    probabilities
        (N, K) predicted probabilities of being visible; NaN where unknown.
    targets
        (N, K): 1 visible, 0 occluded, NaN where this is not labeled.

    Returns
    -------
    tuple of float
        The slope is at least `MIN_SLOPE`, so that the order of the landmarks stays the same. (1, 0), which
        changes nothing, unless both occluded and visible landmarks are labeled.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    predicted, true = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
    known = np.isfinite(predicted) & np.isfinite(true)
    positive = true[known] > 0.5
    count = int(positive.sum())
    if count in (0, len(positive)):
        return 1.0, 0.0
    odds = logit(np.clip(predicted[known], MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    smoothed = np.where(positive, (count + 1) / (count + 2), 1 / (len(positive) - count + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        values = parameters[0] * odds + parameters[1]
        residuals = (expit(values) - smoothed) / len(values)
        return float(np.mean(np.logaddexp(0, values) - smoothed * values)), np.array(
            [residuals @ odds, residuals.sum()]
        )

    bounds = [(MIN_SLOPE, None), (None, None)]
    fit = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    slope, intercept = fit.x.tolist()
    return slope, intercept


def calibrate_visibility(probabilities: ArrayLike, calibration: tuple[float, float]) -> Floats:
    """Apply slope and intercept of `fit_visibility_calibration` to probabilities; NaN stays NaN."""
    from scipy.special import expit, logit

    slope, intercept = calibration
    clipped = np.clip(np.asarray(probabilities, np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(expit(slope * logit(clipped) + intercept))


@dataclass(frozen=True)
class CalibrationBin:
    """Landmarks with similar scales.

    Parameters
    ----------
    landmarks
        Number of landmarks.
    mean_confidence
        Mean of their predicted confidences.
    observed
        Fraction of them within the confidence radius of the label.
    expected_error
        Mean of their scales: the predicted absolute error of a coordinate, pixels.
    observed_error
        Observed mean absolute error of a coordinate, pixels.
    """

    landmarks: int
    mean_confidence: float
    observed: float
    expected_error: float
    observed_error: float


@dataclass(frozen=True)
class Calibration:
    """Agreement of predicted confidences and errors with observed ones, over all labeled landmarks.

    Parameters
    ----------
    landmarks
        Number of labeled landmarks with a scale.
    radius
        The confidence radius in pixels.
    mean_confidence
        Mean of the predicted confidences.
    observed
        Fraction of the landmarks within the confidence radius of the label.
    ece
        Expected calibration error (Guo et al. 2017, eq. 5): the mean over the bins of
        ``|mean_confidence - observed|``, weighted by their landmarks. Unlike there, the bins hold equal
        numbers of landmarks; most bins of equal width would be nearly empty.
    rank_correlation
        Spearman's rank correlation of the confidence with the negative distance to the label: 1 if a
        higher confidence always means a smaller distance, 0 if they are unrelated. NaN if all confidences or
        all distances are equal.
    scale_factor
        `fit_scale_factor` of these landmarks: 1 if the scales are neither too small nor too large.
    bins
        From the lowest confidence to the highest.
    """

    landmarks: int
    radius: float
    mean_confidence: float
    observed: float
    ece: float
    rank_correlation: float
    scale_factor: float
    bins: tuple[CalibrationBin, ...]


def measure_calibration(
    pred: ArrayLike, true: ArrayLike, scales: ArrayLike, side: float
) -> Calibration | None:
    """Compare predicted confidences and errors with observed ones.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.
    scales
        (N, K) predicted scales in pixels; NaN where the model does not estimate them.
    side
        Side of the crop in which the landmarks were predicted, pixels.

    Returns
    -------
    Calibration or None
        None if no labeled landmark has a scale.

    Raises
    ------
    UserError
        If the shapes do not agree.
    """
    errors, known_scales = _errors_and_scales(pred, true, scales)
    if not len(known_scales):
        return None
    order = np.argsort(-known_scales, kind="stable")
    errors, known_scales = errors[order], known_scales[order]
    confidence = confidence_from_scale(known_scales, side)
    radius = CONFIDENCE_RADIUS * side
    accurate = np.abs(errors).max(axis=1) <= radius
    absolute_errors = np.abs(errors).mean(axis=1)
    bins = tuple(
        CalibrationBin(
            landmarks=len(rows),
            mean_confidence=float(confidence[rows].mean()),
            observed=float(accurate[rows].mean()),
            expected_error=float(known_scales[rows].mean()),
            observed_error=float(absolute_errors[rows].mean()),
        )
        for rows in np.array_split(np.arange(len(known_scales)), min(BINS, len(known_scales)))
    )
    gaps = [group.landmarks * abs(group.mean_confidence - group.observed) for group in bins]
    return Calibration(
        landmarks=len(known_scales),
        radius=radius,
        mean_confidence=float(confidence.mean()),
        observed=float(accurate.mean()),
        ece=sum(gaps) / len(known_scales),
        rank_correlation=_rank_correlation(-known_scales, -np.hypot(errors[:, 0], errors[:, 1])),
        scale_factor=fit_scale_factor(pred, true, scales),
        bins=bins,
    )


def _errors_and_scales(pred: ArrayLike, true: ArrayLike, scales: ArrayLike) -> tuple[Floats, Floats]:
    """Return the (M, 2) errors and the (M,) scales of the landmarks that have both a label and a scale."""
    points, labels, spreads = (np.asarray(array, np.float64) for array in (pred, true, scales))
    if points.shape != labels.shape or points.shape != (*spreads.shape, 2):
        raise UserError(
            "predicted points, labels and scales must be (N, K, 2), (N, K, 2) and (N, K), not"
            f" {points.shape}, {labels.shape} and {spreads.shape}"
        )
    known = np.isfinite(labels).all(axis=-1) & np.isfinite(spreads)
    return points[known] - labels[known], spreads[known]


def _rank_correlation(first: Floats, second: Floats) -> float:
    """Return Spearman's rank correlation: Pearson's of the ranks; equal values share their mean rank."""
    from scipy.stats import rankdata

    ranks = rankdata(first), rankdata(second)
    if min(map(np.ptp, ranks)) == 0:
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])
