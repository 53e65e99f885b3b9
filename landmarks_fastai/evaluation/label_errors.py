"""Ranking of probable label errors: labels far from out-of-fold predictions.

A difficult face is not a label error. Each distance is therefore divided by the error that the model expects
and by the median for that landmark. Faces are then compared in two ways, because a single wrong landmark and
labels that are all shifted or belong to another face differ from the predictions in different ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.evaluation.calibration import scale_from_confidence
from landmarks_fastai.evaluation.metrics import point_distances
from landmarks_fastai.evaluation.out_of_fold import OutOfFoldPredictions

Floats = NDArray[np.float64]

EPSILON = 1e-3
"""Lower bound of divisors and of values whose logarithm is taken."""

ALIGNED_SHARE = 0.8
"""A face is shifted if the length of its mean offset exceeds this fraction of its mean distance."""

MAD_TO_DEVIATION = 1.4826
"""Ratio of the standard deviation of a normal distribution to its median absolute deviation."""

LANDMARK, SHIFT, FACE = "landmark", "shift", "face"
"""Kinds of label errors: one wrong landmark, a shift of all landmarks, most landmarks wrong."""


@dataclass(frozen=True)
class LabelError:
    """How probably, and in which way, the labels of a face are wrong.

    Parameters
    ----------
    row
        Index of the face in the data set.
    score
        How much the face deviates from the others, in robust standard deviations (`rank_label_errors`).
    kind
        `LANDMARK`, `SHIFT` or `FACE`.
    landmark
        Index of the landmark that deviates most.
    distance
        Distance of that landmark's label from the prediction, pixels.
    shift
        Mean of label minus prediction, (x, y) in pixels.
    """

    row: int
    score: float
    kind: str
    landmark: int
    distance: float
    shift: tuple[float, float]


def rank_label_errors(dataset: LandmarkDataset, predictions: OutOfFoldPredictions) -> list[LabelError]:
    """Rank the labeled faces by how probably their labels are wrong, the most probable first.

    Two quantities are computed for each face: the mean distance of its labels from the predictions, and the
    largest offset of one label after the face's median offset has been subtracted. Distances and offsets are
    relative: divided by the error that the model expects and by the median for that landmark. Each quantity
    is expressed in robust standard deviations of its logarithm above the median of all faces (from the MAD);
    the score is the larger of the two.

    Parameters
    ----------
    dataset
        N rows with labels.
    predictions
        Out-of-fold predictions of the same rows.
    """
    rows = np.flatnonzero(dataset.labeled.any(axis=1))
    labels = dataset.points[rows].astype(np.float64)
    predicted = predictions.landmarks.points[rows].astype(np.float64)
    offsets = labels - predicted
    distances = point_distances(predicted, labels)
    expected = _expected_errors(predictions.landmarks.confidence[rows], dataset.size)
    relative = _relative_to_median(distances / expected)
    # the median offset of a face is an error of the whole face, not of one landmark
    residuals = offsets - np.nanmedian(offsets, axis=1, keepdims=True)
    relative_residuals = _relative_to_median(np.hypot(*np.moveaxis(residuals, -1, 0)) / expected)
    landmark_scores = _robust_deviations(np.nanmax(relative_residuals, axis=1))
    face_scores = _robust_deviations(np.nanmean(relative, axis=1))
    shifts = np.nanmean(offsets, axis=1)
    aligned = np.hypot(*shifts.T) > ALIGNED_SHARE * np.nanmean(distances, axis=1)
    label_errors = []
    for i, row in enumerate(rows.tolist()):
        single = landmark_scores[i] > face_scores[i]
        kind = LANDMARK if single else SHIFT if aligned[i] else FACE
        landmark = int(np.nanargmax((relative_residuals if single else relative)[i]))
        score = max(float(landmark_scores[i]), float(face_scores[i]))
        x, y = shifts[i].tolist()
        label_errors.append(LabelError(row, score, kind, landmark, float(distances[i, landmark]), (x, y)))
    return sorted(label_errors, key=lambda label_error: -label_error.score)


def _expected_errors(confidence: NDArray[np.float32], size: int) -> Floats:
    """Return the expected errors (scales) for (n, K) confidences, pixels; 1 where a confidence is unknown."""
    clipped = np.clip(confidence.astype(np.float64), 1e-4, 1 - 1e-4)  # 0 and 1 have no scale
    return np.where(np.isnan(confidence), 1.0, scale_from_confidence(clipped, size))


def _relative_to_median(errors: Floats) -> Floats:
    """Divide the (n, K) errors of each landmark by their median."""
    columns = [column[~np.isnan(column)] for column in errors.T]
    medians = [max(float(np.median(column)), EPSILON) if len(column) else 1.0 for column in columns]
    return np.asarray(errors / medians)


def _robust_deviations(values: Floats) -> Floats:
    """Return how far each value is above the median, in robust standard deviations of the logarithm."""
    logs = np.log(np.maximum(values, EPSILON))
    deviations = logs - np.median(logs)
    scale = MAD_TO_DEVIATION * float(np.median(abs(deviations)))
    return np.asarray(deviations / max(scale, EPSILON))
