"""Scores of predicted visibility, and the errors of visible and of occluded landmarks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.data.annotations import OCCLUDED, VISIBLE
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import BINS

if TYPE_CHECKING:
    from landmarks_fastai.data.dataset import LandmarkDataset
    from landmarks_fastai.landmarks import Landmarks

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

DIGITS = 6
"""Decimal places of numbers in JSON."""


@dataclass(frozen=True)
class VisibilityErrors:
    """Errors of the landmarks with one visibility, in pixels of the evaluated images; NaN if there are none.

    Parameters
    ----------
    landmarks
        Number of landmarks labeled with this visibility.
    mean_distance, median_distance
        Mean and median distance of prediction and label.
    rmse
        Root mean squared error of the coordinates.
    """

    landmarks: int
    mean_distance: float
    median_distance: float
    rmse: float


@dataclass(frozen=True)
class DetectionScores:
    """How well the landmarks with one visibility are told from the others; NaN if undefined.

    Parameters
    ----------
    precision
        Fraction of the landmarks predicted to have this visibility that have it.
    recall
        Fraction of the landmarks with this visibility that are predicted to have it.
    average_precision
        Area under the curve of precision and recall over all thresholds, see `average_precision`; a random
        order has the fraction of the landmarks with this visibility.
    """

    precision: float
    recall: float
    average_precision: float


@dataclass(frozen=True)
class VisibilityBin:
    """Landmarks with similar predicted probabilities of being visible.

    Parameters
    ----------
    landmarks
        Number of landmarks.
    mean_predicted
        Mean of their predicted probabilities.
    observed
        Fraction of them that is visible.
    """

    landmarks: int
    mean_predicted: float
    observed: float


@dataclass(frozen=True)
class VisibilityPrediction:
    """Scores of the predicted probability that a landmark is visible.

    Parameters
    ----------
    landmarks
        Number of landmarks with a label and a prediction of visibility.
    threshold
        Probability below which a landmark counts as occluded in precision and recall.
    mean_predicted, observed
        Mean of the predicted probabilities, and fraction of the landmarks that is visible.
    ece
        Expected calibration error, over bins with equal numbers of landmarks, as in `Calibration`.
    brier
        Mean squared difference of probability and label (Brier 1950).
    occluded, visible
        Scores of finding the occluded and the visible landmarks.
    bins
        From the lowest probability to the highest.
    """

    landmarks: int
    threshold: float
    mean_predicted: float
    observed: float
    ece: float
    brier: float
    occluded: DetectionScores
    visible: DetectionScores
    bins: tuple[VisibilityBin, ...]


@dataclass(frozen=True)
class VisibilityReport:
    """The part of an evaluation that depends on visibility.

    Parameters
    ----------
    visible, occluded
        Errors of the positions.
    prediction
        Scores of the predicted visibility; None if the model does not predict it.
    """

    visible: VisibilityErrors
    occluded: VisibilityErrors
    prediction: VisibilityPrediction | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-serializable values: at most 6 decimals, None for NaN."""
        plain: dict[str, Any] = _to_plain(asdict(self))
        return plain


def evaluate_visibility(predicted: Landmarks, dataset: LandmarkDataset) -> VisibilityReport | None:
    """Evaluate the visibility of the predicted landmarks of a data set, and their errors by visibility.

    Parameters
    ----------
    predicted
        Landmarks of the N rows, in pixels of the data set's images. The landmarks of the data set must be
        among them.
    dataset
        N rows with labels.

    Returns
    -------
    VisibilityReport or None
        None if the labels have no visibility, or all have the same.

    Raises
    ------
    UserError
        If `predicted` has other landmarks, or another number of rows.
    """
    if dataset.visibility is None:
        return None
    selected = predicted.select(dataset.schema)
    if selected.points.shape != dataset.points.shape:
        raise UserError(f"{len(dataset)} rows need {len(dataset)} predictions, not {len(selected)}")
    visible = (dataset.visibility == VISIBLE) & dataset.labeled
    occluded = (dataset.visibility == OCCLUDED) & dataset.labeled
    if not (visible.any() and occluded.any()):
        return None
    differences = (selected.points - dataset.points).astype(np.float64)
    known = (visible | occluded) & np.isfinite(selected.visibility)
    return VisibilityReport(
        visible=_errors(differences[visible]),
        occluded=_errors(differences[occluded]),
        prediction=score_visibility(selected.visibility[known], visible[known]) if known.any() else None,
    )


def score_visibility(probabilities: ArrayLike, visible: ArrayLike) -> VisibilityPrediction:
    """Score predicted probabilities of being visible.

    Parameters
    ----------
    probabilities
        (M,) finite, M at least 1.
    visible
        (M,) bool, the labels.
    """
    from landmarks_fastai.landmarks import MIN_VISIBILITY  # imports Pillow, which plots do not need

    values, labels = np.asarray(probabilities, np.float64), np.asarray(visible, bool)
    predicted = values >= MIN_VISIBILITY
    bins = _bins(values, labels)
    gaps = [group.landmarks * abs(group.mean_predicted - group.observed) for group in bins]
    return VisibilityPrediction(
        landmarks=len(values),
        threshold=MIN_VISIBILITY,
        mean_predicted=float(values.mean()),
        observed=float(labels.mean()),
        ece=sum(gaps) / len(values),
        brier=float(np.mean((values - labels) ** 2)),
        occluded=_detection(~predicted, ~labels, -values),
        visible=_detection(predicted, labels, values),
        bins=bins,
    )


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Return ``Σ (R_n - R_{n-1}) P_n`` over the distinct scores, from the highest to the lowest.

    P_n and R_n are the precision and the recall of the landmarks with at least the n-th score. Unlike the
    area under a curve interpolated between these points, it is not too optimistic (Davis & Goadrich 2006,
    "The Relationship Between Precision-Recall and ROC Curves").

    Parameters
    ----------
    scores
        (M,), higher for landmarks that are more probably positive.
    positive
        (M,) bool, the labels.

    Returns
    -------
    float
        From 0 to 1; NaN if no landmark is positive.
    """
    values, labels = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if not labels.any():
        return math.nan
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(labels[order])
    last = np.flatnonzero(np.append(np.diff(values) != 0, True))  # the last landmark with each score
    recall = hits[last] / hits[-1]
    precision = hits[last] / (last + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _detection(predicted: Mask, positive: Mask, scores: Floats) -> DetectionScores:
    hits = int((predicted & positive).sum())
    return DetectionScores(
        precision=hits / int(predicted.sum()) if predicted.any() else math.nan,
        recall=hits / int(positive.sum()) if positive.any() else math.nan,
        average_precision=average_precision(scores, positive),
    )


def _bins(values: Floats, labels: Mask) -> tuple[VisibilityBin, ...]:
    """Divide the landmarks into bins of equal numbers, by probability."""
    order = np.argsort(values, kind="stable")
    return tuple(
        VisibilityBin(len(rows), float(values[rows].mean()), float(labels[rows].mean()))
        for rows in np.array_split(order, min(BINS, len(order)))
    )


def _errors(differences: Floats) -> VisibilityErrors:
    """Return the errors of (M, 2) differences of prediction and label."""
    distances = np.hypot(differences[:, 0], differences[:, 1])
    return VisibilityErrors(
        landmarks=len(distances),
        mean_distance=float(distances.mean()),
        median_distance=float(np.median(distances)),
        rmse=float(np.sqrt(np.mean(differences**2))),
    )


def _to_plain(value: Any) -> Any:
    """Return nested values as JSON: floats rounded and NaN as None, tuples as lists."""
    if isinstance(value, dict):
        return {key: _to_plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_to_plain(entry) for entry in value]
    if not isinstance(value, float):
        return value
    return round(value, DIGITS) if math.isfinite(value) else None
