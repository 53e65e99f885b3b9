"""The Landmarks value type: shapes, indexing, iteration, concatenation, selection of landmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema

SCHEMA = LandmarkSchema("three", ("a", "b", "c"))


def make_landmarks(count: int, first: int = 0) -> Landmarks:
    """Return faces with distinct values, with crops and track IDs."""
    values = np.arange(first * 6, (first + count) * 6, dtype=np.float32)
    return Landmarks(
        points=values.reshape(count, 3, 2),
        schema=SCHEMA,
        confidence=values[::2].reshape(count, 3) / 1000,
        scales=values[1::2].reshape(count, 3),
        crops=tuple(Crop(first + i, 0, 10) for i in range(count)),
        track_ids=tuple(range(first, first + count)),
    )


def assert_equal(actual: Landmarks, expected: Landmarks) -> None:
    np.testing.assert_array_equal(actual.points, expected.points)
    np.testing.assert_array_equal(actual.confidence, expected.confidence)
    np.testing.assert_array_equal(actual.scales, expected.scales)
    assert (actual.schema, actual.crops, actual.track_ids) == (
        expected.schema,
        expected.crops,
        expected.track_ids,
    )


# --- construction --------------------------------------------------------------------------------


def test_from_points_has_no_confidence_and_no_crops() -> None:
    points = np.arange(12).reshape(2, 3, 2)
    landmarks = Landmarks.from_points(points, SCHEMA)
    assert len(landmarks) == 2
    assert landmarks.points.dtype == np.float32
    np.testing.assert_array_equal(landmarks.points, points)
    assert landmarks.confidence.shape == landmarks.scales.shape == (2, 3)
    assert np.isnan(landmarks.confidence).all()
    assert np.isnan(landmarks.scales).all()
    assert landmarks.crops is None
    assert landmarks.track_ids is None


def test_from_points_of_one_face_adds_axis() -> None:
    landmarks = Landmarks.from_points([[0, 1], [2, 3], [4, 5]], SCHEMA)
    assert landmarks.points.tolist() == [[[0, 1], [2, 3], [4, 5]]]


def test_empty_has_no_faces() -> None:
    landmarks = Landmarks.empty(SCHEMA)
    assert len(landmarks) == 0
    assert landmarks.points.shape == (0, 3, 2)
    assert landmarks.confidence.shape == (0, 3)
    assert list(landmarks) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "points",
            np.zeros((2, 4, 2), np.float32),
            r"schema three needs points of shape \(N, 3, 2\), not \(2, 4, 2\)",
        ),
        (
            "points",
            np.zeros((2, 3), np.float32),
            r"schema three needs points of shape \(N, 3, 2\), not \(2, 3\)",
        ),
        (
            "confidence",
            np.zeros((2, 2), np.float32),
            r"confidence and scales must be \(2, 3\), not \(2, 2\) and \(2, 3\)",
        ),
        (
            "scales",
            np.zeros((1, 3), np.float32),
            r"confidence and scales must be \(2, 3\), not \(2, 3\) and \(1, 3\)",
        ),
        ("crops", (Crop(0, 0, 1),), "2 faces need 2 crops, not 1"),
        ("track_ids", (1, 2, 3), "2 faces need 2 track_ids, not 3"),
    ],
)
def test_landmarks_with_inconsistent_shapes_raise(field: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        replace(make_landmarks(2), **{field: value})


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[2, 0], np.array([2, 0])])
def test_landmarks_index_returns_rows_in_given_order(rows: list[int]) -> None:
    chosen = make_landmarks(3)[rows]
    assert chosen.points[:, 0, 0].tolist() == [12, 0]
    assert chosen.confidence[:, 0].tolist() == pytest.approx([0.012, 0.0])
    assert chosen.scales[:, 0].tolist() == [13, 1]
    assert chosen.crops == (Crop(2, 0, 10), Crop(0, 0, 10))
    assert chosen.track_ids == (2, 0)


def test_landmarks_slice_returns_rows() -> None:
    landmarks = make_landmarks(4)
    assert_equal(landmarks[1:3], make_landmarks(2, first=1))
    assert_equal(landmarks[::-1], landmarks[[3, 2, 1, 0]])
    assert len(landmarks[:0]) == 0


def test_landmarks_index_of_labels_keeps_missing_crops() -> None:
    labels = Landmarks.from_points(np.zeros((3, 3, 2)), SCHEMA)[[1]]
    assert (len(labels), labels.crops, labels.track_ids) == (1, None, None)


def test_landmarks_index_out_of_range_raises() -> None:
    with pytest.raises(IndexError):
        make_landmarks(2)[[2]]


def test_landmarks_iteration_yields_single_faces() -> None:
    faces = list(make_landmarks(3))
    assert [len(face) for face in faces] == [1, 1, 1]
    for number, face in enumerate(faces):
        assert_equal(face, make_landmarks(1, first=number))


# --- concatenate ---------------------------------------------------------------------------------


def test_concatenate_joins_faces_in_order() -> None:
    joined = Landmarks.concatenate([make_landmarks(2), make_landmarks(1, first=2)], SCHEMA)
    assert_equal(joined, make_landmarks(3))


def test_concatenate_inverts_iteration() -> None:
    landmarks = make_landmarks(3)
    assert_equal(Landmarks.concatenate(list(landmarks), SCHEMA), landmarks)


def test_concatenate_of_no_parts_is_empty() -> None:
    assert_equal(Landmarks.concatenate([], SCHEMA), Landmarks.empty(SCHEMA))


def test_concatenate_with_labels_drops_crops_and_track_ids() -> None:
    labels = Landmarks.from_points(np.zeros((1, 3, 2)), SCHEMA)
    joined = Landmarks.concatenate([make_landmarks(1), labels], SCHEMA)
    assert (len(joined), joined.crops, joined.track_ids) == (2, None, None)


# --- select --------------------------------------------------------------------------------------


def test_select_returns_named_landmarks_in_order_of_schema() -> None:
    target = LandmarkSchema("two", ("c", "a"))
    landmarks = make_landmarks(2)
    selected = landmarks.select(target)
    assert selected.schema == target
    np.testing.assert_array_equal(selected.points, landmarks.points[:, [2, 0]])
    np.testing.assert_array_equal(selected.confidence, landmarks.confidence[:, [2, 0]])
    np.testing.assert_array_equal(selected.scales, landmarks.scales[:, [2, 0]])
    assert (selected.crops, selected.track_ids) == (landmarks.crops, landmarks.track_ids)


def test_select_of_missing_landmark_raises() -> None:
    with pytest.raises(UserError) as error:
        make_landmarks(1).select(LandmarkSchema("other", ("a", "d", "e")))
    assert str(error.value) == (
        "the model predicts the landmarks of three, which has no 'd' (2 of the 3 landmarks of other are"
        " missing); choose other data"
    )


# --- visibility ----------------------------------------------------------------------------------


def test_visibility_is_nan_if_omitted() -> None:
    for landmarks in (
        make_landmarks(2),
        Landmarks.empty(SCHEMA),
        Landmarks.from_points([[0, 1]] * 3, SCHEMA),
    ):
        assert landmarks.visibility.shape == (len(landmarks), 3)
        assert np.isnan(landmarks.visibility).all()
        assert not landmarks.occluded.any()


def test_visibility_follows_indexing_concatenation_and_selection() -> None:
    flags = np.array([[0.1, 0.5, 0.9], [0.2, 0.4, 0.7]], np.float32)
    faces = replace(make_landmarks(2), visibility=flags)
    np.testing.assert_array_equal(faces[[1]].visibility, flags[[1]])
    joined = Landmarks.concatenate([faces, make_landmarks(1)], SCHEMA)
    np.testing.assert_array_equal(joined.visibility, [*flags, [np.nan] * 3])
    selected = faces.select(LandmarkSchema("two", ("c", "a")))
    np.testing.assert_array_equal(selected.visibility, flags[:, [2, 0]])
    assert faces.occluded.tolist() == [[True, False, False], [True, True, False]]


def test_visibility_of_wrong_shape_is_error() -> None:
    with pytest.raises(UserError, match="visibility"):
        replace(make_landmarks(2), visibility=np.zeros((2, 2), np.float32))
