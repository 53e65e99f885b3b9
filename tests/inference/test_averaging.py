"""Inverse-variance weighting of several predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.geometry import Crop
from landmarks_fastai.inference.averaging import average_landmarks
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema

Floats = NDArray[np.float32]


def make_landmarks(points: Floats, scales: Floats) -> Landmarks:
    """Return landmarks predicted in 96 px crops."""
    schema = LandmarkSchema("numbers", tuple(str(index) for index in range(points.shape[1])))
    return Landmarks(points, schema, np.full_like(scales, np.nan), scales, (Crop(0, 0, 96),) * len(points))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_average_lies_between_predictions_and_ignores_their_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    predictions = [
        make_landmarks(
            rng.uniform(0, 96, (3, 5, 2)).astype(np.float32), rng.uniform(0.2, 9, (3, 5)).astype(np.float32)
        )
        for _ in range(count)
    ]
    average, reversed_average = average_landmarks(predictions), average_landmarks(predictions[::-1])
    np.testing.assert_allclose(average.points, reversed_average.points, rtol=1e-5)
    for name, mean in (("points", average.points), ("scales", average.scales)):
        values = np.stack([getattr(one, name) for one in predictions])
        assert (mean >= values.min(0) - 1e-4).all()
        assert (mean <= values.max(0) + 1e-4).all()
    assert average.points.dtype == average.scales.dtype == np.float32


def test_average_of_independent_errors_is_better_than_plain_mean() -> None:
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(size=(3, 500, 4))).astype(np.float32)
    errors = (rng.laplace(size=(3, 500, 4, 2)) * scales[..., None]).astype(np.float32)
    average = average_landmarks([make_landmarks(*one) for one in zip(errors, scales, strict=True)])
    weighted, plain = np.abs(average.points).mean(), np.abs(errors.mean(0)).mean()
    assert weighted < 0.7 * plain
    # the scale of the mean assumes correlated errors
    assert weighted < average.scales.mean()


def test_average_leaves_out_predictions_of_one_face() -> None:
    values = np.array([1, 4, 9], np.float32)
    predictions = [
        replace(
            make_landmarks(np.full((2, 1, 2), value, np.float32), np.ones((2, 1), np.float32)),
            visibility=np.full((2, 1), value / 10, np.float32),
        )
        for value in values
    ]
    average = average_landmarks(predictions, np.array([[True, False], [True, True], [True, True]]))
    np.testing.assert_allclose(average.points[:, 0, 0], [14 / 3, 6.5], rtol=1e-6)
    np.testing.assert_allclose(average.visibility[:, 0], [0.14 / 0.3, 0.65], rtol=1e-6)
