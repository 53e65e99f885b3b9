"""Visibility in predictions: crops, flip, refinement, ensembles, tracking and smoothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.models import make_header
from numpy.typing import NDArray

from landmarks_fastai.inference.averaging import average_landmarks, mean_visibility
from landmarks_fastai.inference.detectors.base import Detections
from landmarks_fastai.inference.ensemble import Ensemble
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.smoothing import LandmarkSmoother
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.schemas import schema_from_names

SCHEMA = schema_from_names("three", ["left_eye", "right_eye", "nose"])
POSITIONS = np.array([[0.7, 0.3], [0.3, 0.3], [0.5, 0.6]], np.float32)
SIZE = 32
Floats = NDArray[np.float32]


def make_predictor(scales: bool, visibility: list[float] | None) -> Predictor:
    """Return a model with constant output; in brighter crops, landmarks are more visible."""

    def backend(crops: NDArray[np.uint8]) -> tuple[Floats, ...]:
        outputs = [np.tile(POSITIONS * SIZE - 0.5, (len(crops), 1, 1))]
        if scales:
            outputs.append(np.ones((len(crops), 3), np.float32))
        if visibility is not None:
            bright = crops[:, :, : SIZE // 2].mean((1, 2, 3), dtype=np.float32)[:, None] / 255
            outputs.append(np.array([visibility], np.float32) * (1 - bright))
        return tuple(outputs)

    head = {"visibility": True} if visibility is not None else {}
    fields = {"head": head, "mean_shape": POSITIONS.tolist()}
    return Predictor(make_header(SIZE, SCHEMA, 1, **fields), backend)


BLACK = np.zeros((64, 64, 1), np.uint8)


@pytest.mark.parametrize("scales", [False, True])
def test_visibility_is_the_last_output_with_and_without_scales(scales: bool) -> None:
    predicted = make_predictor(scales, [0.9, 0.2, 0.6]).predict(BLACK)
    np.testing.assert_allclose(predicted.visibility, [[0.9, 0.2, 0.6]])
    assert np.isfinite(predicted.scales).all() == scales
    assert predicted.occluded.tolist() == [[False, True, False]]


@pytest.mark.parametrize("scales", [False, True])
def test_visibility_of_model_without_it_is_nan(scales: bool) -> None:
    predictor = make_predictor(scales, None)
    predicted = predictor.predict_batch(np.zeros((3, SIZE, SIZE, 1), np.uint8))
    assert not predictor.predicts_visibility
    assert predicted.visibility.shape == (3, 3)
    assert np.isnan(predicted.visibility).all()
    assert not predicted.occluded.any()


def test_flip_averages_visibility_of_mirrored_landmarks() -> None:
    image = np.zeros((SIZE, SIZE, 1), np.uint8)
    image[:, : SIZE // 2] = 255  # only the mirrored crop has a dark left half
    predicted = make_predictor(True, [0.9, 0.2, 0.6]).predict(image, flip=True)
    np.testing.assert_allclose(predicted.visibility, [[0.2 / 2, 0.9 / 2, 0.6 / 2]], atol=1e-6)


def test_refinement_keeps_visibility() -> None:
    for scales in (False, True):
        predicted = make_predictor(scales, [0.9, 0.2, 0.6]).predict(BLACK, refine=2)
        np.testing.assert_allclose(predicted.visibility, [[0.9, 0.2, 0.6]], atol=1e-6)


def test_ensemble_averages_visibility_of_the_members_that_predict_it() -> None:
    members = [make_predictor(True, values) for values in (None, [0.9, 0.2, 0.6], [0.5, 0.4, 0.2])]
    ensemble = Ensemble(members)
    assert ensemble.predicts_visibility
    np.testing.assert_allclose(ensemble.predict(BLACK).visibility, [[0.7, 0.3, 0.4]], atol=1e-6)
    assert not Ensemble(members[:1]).predicts_visibility


def test_mean_visibility_ignores_unknown_values() -> None:
    nan = np.nan
    mean = mean_visibility([np.array([[0.2, nan, nan]], np.float32), np.array([[0.4, 0.6, nan]], np.float32)])
    np.testing.assert_allclose(mean, [[0.3, 0.6, nan]], atol=1e-7)


def test_average_of_predictions_has_their_visibility() -> None:
    predicted = make_predictor(True, [0.9, 0.2, 0.6]).predict(BLACK)
    other = replace(predicted, visibility=np.float32(1) - predicted.visibility)
    np.testing.assert_allclose(average_landmarks([predicted, other]).visibility, [[0.5] * 3])


def test_tracker_keeps_visibility() -> None:
    box = np.array([[0.0, 0.0, 63.0, 63.0]])
    tracker = Tracker(make_predictor(True, [0.9, 0.2, 0.6]), lambda _: Detections(box, np.ones(1)))
    for frame in range(3):
        tracked = tracker(BLACK, frame / 25)
        np.testing.assert_allclose(tracked.visibility, [[0.9, 0.2, 0.6]], atol=1e-6)


# --- smoothing -----------------------------------------------------------------------------------

FACE = np.array([[70.0, 80], [130, 80], [100, 115], [80, 140], [120, 140]])


def smooth(points: NDArray[np.float64], visibility: list[float] | None) -> NDArray[np.float64]:
    smoother = LandmarkSmoother()
    flags = None if visibility is None else np.array(visibility, np.float32)
    confidence = np.full(len(FACE), 0.8, np.float32)
    return np.array(
        [smoother(face, frame / 25, confidence, flags) for frame, face in enumerate(points)], np.float64
    )


def jitter(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of the second differences of each landmark."""
    return np.asarray(np.diff(points, n=2, axis=0).std(axis=(0, 2)))


def test_occluded_landmark_is_smoothed_more_and_the_others_alike() -> None:
    noisy = FACE + np.random.default_rng(0).normal(0, 0.8, (150, *FACE.shape))
    without, occluded = smooth(noisy, None), smooth(noisy, [0.91, 0.95, 0.1, np.nan, 1.0])
    ratio = jitter(occluded) / jitter(without)
    assert ratio[2] < 0.75
    np.testing.assert_allclose(np.delete(occluded, 2, axis=1), np.delete(without, 2, axis=1), atol=1e-5)


def test_occluded_landmark_follows_the_face() -> None:
    path = np.stack([np.linspace(0, 100, 100), np.linspace(0, 50, 100)], axis=1)
    moving = FACE + path[:, None]
    smoothed = smooth(moving, [0.91, 0.95, 0.0, 0.91, 1.0])
    np.testing.assert_allclose(
        smoothed[-1, 2], smoothed[-1].mean(axis=0) + FACE[2] - FACE.mean(axis=0), atol=1
    )


@pytest.mark.parametrize("visibility", [[np.nan] * 5, [0.91] * 5, [1.0] * 5])
def test_unknown_or_high_visibility_changes_nothing(visibility: list[float]) -> None:
    noisy = FACE + np.random.default_rng(0).normal(0, 0.8, (20, *FACE.shape))
    np.testing.assert_array_equal(smooth(noisy, visibility), smooth(noisy, None))
