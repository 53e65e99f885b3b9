"""Synthetic faces with injected label errors, and simulated predictions that the errors do not affect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.evaluation.calibration import confidence_from_scale
from landmarks_fastai.evaluation.out_of_fold import OutOfFoldPredictions
from landmarks_fastai.landmarks import Landmarks

FACES = draw_synthetic_faces(120, seed=8)

DIFFICULT = slice(100, 120)
"""Rows with five times larger errors, which the predicted confidence reflects."""

LANDMARK_OFFSET = (7.0, 8.0)
SHIFT_OFFSET = (6.0, -5.0)


def sample_predictions(dataset: LandmarkDataset, seed: int) -> OutOfFoldPredictions:
    """Return the labels plus Laplace errors with a scale of 1 pixel, 2 pixels for landmarks 10 to 14."""
    rng = np.random.default_rng(seed)
    scales = np.ones(dataset.points.shape[:2])
    scales[:, 10:] *= 2
    scales[DIFFICULT] *= 5
    points = dataset.points + rng.laplace(size=dataset.points.shape) * scales[..., None]
    confidence = confidence_from_scale(scales, dataset.size)
    return OutOfFoldPredictions(
        np.ones(len(dataset), np.int64),
        Landmarks(
            points.astype(np.float32),
            dataset.schema,
            confidence.astype(np.float32),
            scales.astype(np.float32),
        ),
    )


def without_confidence(predictions: OutOfFoldPredictions) -> OutOfFoldPredictions:
    """Return the same predictions without confidence and scales."""
    landmarks = predictions.landmarks
    return replace(predictions, landmarks=Landmarks.from_points(landmarks.points, landmarks.schema))


def inject_label_errors(dataset: LandmarkDataset) -> LandmarkDataset:
    """Exchange the labels of rows 0 to 9, shift those of rows 10 to 14, move landmark 3 of rows 15 to 19."""
    points = dataset.points.copy()
    points[:10] = np.roll(points[:10], 1, axis=0)
    points[10:15] += np.array(SHIFT_OFFSET, np.float32)
    points[15:20, 3] += np.array(LANDMARK_OFFSET, np.float32)
    return replace(dataset, points=points)
