"""Refinement: which faces the model runs on again, and that every face has the result it would have alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from helpers.models import make_header
from numpy.typing import NDArray

from landmarks_fastai.geometry import Crop, fit_crop
from landmarks_fastai.inference.averaging import average_landmarks, confidence_of
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.refinement import (
    CONFIDENT_RATIO,
    MIN_CROP_CHANGE,
    crop_change,
    refine_landmarks,
)
from landmarks_fastai.inference.rejection import typical_confidence
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import schema_from_names

SCHEMA = schema_from_names("triangle", ["left_eye", "right_eye", "chin"])
MEAN_SHAPE = np.array([[0.7, 0.3], [0.3, 0.3], [0.5, 0.8]])
SHARP, BLURRED = 1.0, 4.0
"""Scales in percent of the side of the crop, of confident and of other faces."""

NEAR = 0.4 * MIN_CROP_CHANGE
FAR = 1.6 * MIN_CROP_CHANGE


class Model:
    """Predict landmarks in crops of side 100, which are displaced from the face by a part of the side.

    Parameters
    ----------
    scale
        Scale of the landmarks, in percent of the side of the crop.
    """

    def __init__(self, scale: float = SHARP) -> None:
        self.scale = scale
        self.calls: list[int] = []

    def __call__(self, crops: Sequence[Crop]) -> Landmarks:
        """Return landmarks around the face nearest to each crop: faces lie at multiples of 1000 px."""
        self.calls.append(len(crops))
        lefts = np.array([crop.left for crop in crops])
        faces = 1000 * np.round(lefts / 1000)
        # a displaced crop shows a third of its displacement as an error
        points = MEAN_SHAPE * 100 - 0.5 + np.stack([faces + (lefts - faces) / 3, 0 * faces], 1)[:, None]
        sides = np.array([crop.side for crop in crops])
        scales = np.full((len(crops), 3), self.scale, np.float32) * (1 + len(self.calls) / 10)
        return Landmarks(
            points.astype(np.float32),
            SCHEMA,
            confidence_of(scales.astype(np.float32), sides),
            scales.astype(np.float32),
            tuple(crops),
        )


def crop_around(points: NDArray[np.float32]) -> Crop | None:
    """Return the crop in which the landmarks lie as in training."""
    return fit_crop(points, MEAN_SHAPE)


def displaced(*shifts: float) -> list[Crop]:
    """Return crops that will change by the given amounts."""
    return [Crop(1000.0 * index + 150 * shift, 0.0, 100.0) for index, shift in enumerate(shifts)]


def confident_limit() -> float:
    """Return a limit between the confidences of `SHARP` and `BLURRED` landmarks."""
    scales = np.array([[1.2 * SHARP], [BLURRED]], np.float32)
    return float(confidence_of(scales, np.array([100, 100])).mean())


def assert_same(actual: Landmarks, expected: Landmarks) -> None:
    """Assert that landmarks are equal to the last bit."""
    np.testing.assert_array_equal(actual.points, expected.points)
    np.testing.assert_array_equal(actual.scales, expected.scales)
    np.testing.assert_array_equal(actual.confidence, expected.confidence)
    assert actual.crops == expected.crops


def test_crops_change_by_the_amounts_of_this_test() -> None:
    for shift in (NEAR, FAR):
        crop = displaced(shift)[0]
        estimated = crop_around(Model()([crop]).points[0])
        assert estimated is not None
        assert crop_change(crop, estimated) == pytest.approx(shift, abs=1e-6)


def test_confident_face_in_similar_crop_has_the_result_of_one_pass() -> None:
    model = Model()
    crops = displaced(NEAR)
    assert_same(refine_landmarks(model, crop_around, crops, 3, confident_limit()), Model()(crops))
    assert model.calls == [1]


@pytest.mark.parametrize(
    ("scale", "shift"), [(SHARP, FAR), (BLURRED, NEAR)], ids=["crop is far away", "face is not confident"]
)
def test_other_face_has_the_average_of_two_passes(scale: float, shift: float) -> None:
    model, alone = Model(scale), Model(scale)
    crops = displaced(shift)
    refined = refine_landmarks(model, crop_around, crops, 1, confident_limit())
    first = alone(crops)
    second_crop = crop_around(first.points[0])
    assert second_crop is not None
    assert_same(refined, average_landmarks([first, alone([second_crop])]))
    assert np.abs(refined.points - first.points).max() > 0.1
    assert model.calls == [1, 1]


def test_faces_of_one_image_are_refined_independently() -> None:
    model = Model()
    shifts = (FAR, NEAR, -FAR, -NEAR)
    together = refine_landmarks(model, crop_around, displaced(*shifts), 1, confident_limit())
    assert model.calls == [4, 2]
    for index, face in enumerate(together):
        crops = displaced(*shifts)[index : index + 1]
        assert_same(face, refine_landmarks(Model(), crop_around, crops, 1, confident_limit()))


def test_every_face_is_refined_if_no_confidence_suffices() -> None:
    model = Model()
    refine_landmarks(model, crop_around, displaced(NEAR, FAR), 2, math.inf)
    assert model.calls == [2, 2, 2]


def test_face_of_unknown_confidence_is_refined_and_has_the_last_pass() -> None:
    model = Model(math.nan)
    crops = displaced(NEAR)
    refined = refine_landmarks(model, crop_around, crops, 1, confident_limit())
    assert model.calls == [1, 1]
    second_crop = crop_around(Model(math.nan)(crops).points[0])
    assert refined.crops == (second_crop,)


def test_no_faces_run_once() -> None:
    model = Model()
    assert len(refine_landmarks(model, crop_around, [], 1, 0.5)) == 0
    assert model.calls == [0]


@pytest.mark.parametrize("ratio", [0.99, 1.01])
def test_predictor_refines_faces_less_confident_than_typical(ratio: float) -> None:
    header = make_header(60, SCHEMA, mean_shape=MEAN_SHAPE.tolist(), metrics={"l1": 1.0, "image_size": 60})
    typical = typical_confidence(header)
    assert typical is not None
    # of a Laplace distribution, the confidence is the square of 1 - exp(-0.025 side / scale)
    limit = ratio * CONFIDENT_RATIO * typical
    candidates = np.linspace(0.2, 5, 5000)
    confidences = confidence_of(candidates[:, None].astype(np.float32), np.full(5000, 60))[:, 0]
    scale = candidates[np.abs(confidences - limit).argmin()]
    calls = []

    def backend(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        calls.append(len(crops))
        points = np.repeat(MEAN_SHAPE[None] * 60 - 0.5 + 1, len(crops), axis=0)
        return points.astype(np.float32), np.full((len(crops), 3), scale, np.float32)

    predictor = Predictor(header, backend)
    image = np.zeros((60, 60, 3), np.uint8)
    assert predictor.default_refine == "auto"
    predictor.predict(image, refine="auto")
    assert calls == ([1, 1] if ratio < 1 else [1])
    calls.clear()
    predictor.predict(image, refine=1)
    assert calls == [1, 1]
