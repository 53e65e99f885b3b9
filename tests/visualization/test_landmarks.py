"""Drawings of landmarks: positions and colors of dots, lines, names, labels and captions."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from helpers.drawing import GRAY, NOSE, TRIANGLE, gray_image, kaggle_points, pixel, style_color
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import IBUG68, KAGGLE15
from landmarks_fastai.visualization.canvas import text_size
from landmarks_fastai.visualization.landmarks import draw_landmarks, number_faces

NAN = float("nan")


def draw(
    image: NDArray[np.uint8], points: ArrayLike, schema: LandmarkSchema, **options: Any
) -> NDArray[np.uint8]:
    """Draw the landmarks of one face without confidence, or of N faces."""
    return draw_landmarks(image, Landmarks.from_points(points, schema), **options)


def labels_of(points: ArrayLike, schema: LandmarkSchema = NOSE) -> Landmarks:
    return Landmarks.from_points(points, schema)


def changed_box(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the pixels that differ."""
    rows, columns = np.nonzero((first != second).any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


# --- dots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 48), (700, 500), (60, 8000)])
@settings(max_examples=12, deadline=None)
@given(st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_dot_is_centered_on_its_point(size: tuple[int, int], x: float, y: float) -> None:
    height, width = size
    point = np.array([x * width, y * height])
    drawing = draw(gray_image(height, width), [point], NOSE).astype(int)
    change = np.abs(drawing - GRAY[0]).sum(axis=2)
    rows, columns = np.nonzero(change)
    weights = change[rows, columns]
    centroid = np.average(columns, weights=weights), np.average(rows, weights=weights)
    assert np.abs(np.array(centroid) - point).max() < 0.1
    assert np.hypot(columns - point[0], rows - point[1]).max() < 3 + 0.03 * min(size)


def test_dots_of_kaggle15_have_color_of_their_side() -> None:
    points = kaggle_points(960)
    drawing = draw(np.zeros((960, 960, 3), np.uint8), points, KAGGLE15)
    for name, (x, y) in zip(KAGGLE15.names, points, strict=True):
        side = next((side for side in ("left", "right") if side in name), "middle")
        assert pixel(drawing, x, y) == style_color(side), name


def test_dots_of_ibug68_have_color_of_subjects_side() -> None:
    points = np.stack(np.meshgrid(np.arange(9) * 60.0 + 30, np.arange(8) * 60.0 + 30), axis=2)
    points = points.reshape(-1, 2)[:68]
    drawing = draw(gray_image(500, 560), points, IBUG68)
    # the subject's right is the left half of the image
    assert pixel(drawing, *points[36]) == pixel(drawing, *points[0]) == style_color("right")
    assert pixel(drawing, *points[45]) == pixel(drawing, *points[16]) == style_color("left")
    assert pixel(drawing, *points[30]) == style_color("middle")


@pytest.mark.parametrize(
    "background",
    [(0, 0, 0), (255, 255, 255), style_color("left"), style_color("right"), style_color("middle")],
)
def test_dots_contrast_with_any_background(background: tuple[int, int, int]) -> None:
    image = np.broadcast_to(np.array(background, np.uint8), (96, 96, 3))
    drawing = draw(image, kaggle_points(96), KAGGLE15, skeleton=False).astype(int)
    for x, y in kaggle_points(96).astype(int):
        region = drawing[y - 3 : y + 5, x - 3 : x + 5].reshape(-1, 3)
        assert (region.max(axis=0) - region.min(axis=0)).max() > 120  # a bright dot or a dark outline


def test_dot_with_low_confidence_is_hollow() -> None:
    points = kaggle_points(960)
    confidence = np.full((1, 15), 0.9, np.float32)
    confidence[0, [0, 10, 11]] = 0.49, NAN, 0.5
    labels = Landmarks.from_points(points, KAGGLE15)
    predicted = Landmarks(labels.points, KAGGLE15, confidence, labels.scales)
    drawing = draw_landmarks(gray_image(960, 960), predicted, skeleton=False)
    assert pixel(drawing, *points[0]) == style_color("outline")
    right_of_center = drawing[round(points[0][1]), round(points[0][0]) :].astype(int)
    assert (np.abs(right_of_center - style_color("left")).max(axis=1) <= 2).any()
    filled = draw_landmarks(gray_image(960, 960), labels, skeleton=False)
    changed = np.argwhere((drawing != filled).any(axis=2))[:, ::-1]
    assert np.hypot(*(changed - points[0]).T).max() < 20  # all other dots are filled


def test_occluded_landmark_is_cross() -> None:
    points = kaggle_points(960)
    labels = Landmarks.from_points(points, KAGGLE15)
    visibility = np.full((1, 15), 0.9, np.float32)
    visibility[0, [0, 10, 11]] = 0.49, NAN, 0.5
    drawing = draw_landmarks(gray_image(960, 960), replace(labels, visibility=visibility), skeleton=False)
    plain = draw_landmarks(gray_image(960, 960), labels, skeleton=False)
    changed = np.argwhere((drawing != plain).any(axis=2))[:, ::-1]
    assert np.hypot(*(changed - points[0]).T).max() < 24  # all other landmarks are dots
    x, y = np.rint(points[0]).astype(int)
    assert pixel(drawing, x, y) == style_color("left")
    for dx, dy in ((5, 5), (-5, 5), (5, -5), (-5, -5)):  # the arms
        assert pixel(drawing, x + dx, y + dy) == style_color("left")
    for dx, dy in ((12, 0), (-12, 0), (0, 12), (0, -12)):  # between them
        assert pixel(drawing, x + dx, y + dy) != style_color("left")
        assert pixel(plain, x + dx, y + dy) != pixel(drawing, x + dx, y + dy)


def test_sizes_follow_size_of_face() -> None:
    def changed_fraction(size: int) -> float:
        drawing = draw(gray_image(size, size), kaggle_points(size), KAGGLE15)
        return float((drawing != GRAY).any(axis=2).mean())

    assert changed_fraction(1920) == pytest.approx(changed_fraction(960), rel=0.05)  # antialiased edges
    small_face = draw(gray_image(1920, 1920), kaggle_points(480), KAGGLE15)
    assert (small_face != GRAY).any(axis=2).sum() == pytest.approx(changed_fraction(480) * 480**2)


# --- skeleton and labels -------------------------------------------------------------------------


def test_skeleton_connects_landmarks_and_can_be_left_out() -> None:
    points = [[30, 20], [170, 20], [30, 180]]
    assert pixel(draw(gray_image(200, 200), points, TRIANGLE), 30, 100) == style_color("left")
    assert pixel(draw(gray_image(200, 200), points, TRIANGLE, skeleton=False), 30, 100) == GRAY
    # no line to an unknown landmark
    points[2] = [NAN, NAN]
    assert pixel(draw(gray_image(200, 200), points, TRIANGLE), 30, 100) == GRAY


def test_truth_is_ring_connected_to_prediction() -> None:
    drawing = draw(gray_image(400, 400), [[100, 200]], NOSE, truth=labels_of([[300, 200]]))
    assert pixel(drawing, 100, 200) == style_color("middle")
    assert pixel(drawing, 200, 200) == style_color("truth")  # halfway: the connecting line
    right_of_label = drawing[200, 301:, :].astype(int)
    assert (right_of_label == 255).all(axis=1).any()  # the ring
    unlabeled = draw(gray_image(400, 400), [[100, 200]], NOSE, truth=labels_of([[NAN, NAN]]))
    assert pixel(unlabeled, 200, 200) == GRAY


# --- names ---------------------------------------------------------------------------------------


def test_names_are_written_only_where_there_is_space() -> None:
    plain = draw(gray_image(120, 300), [[150, 60]], NOSE)
    named = draw(gray_image(120, 300), [[150, 60]], NOSE, names=True)
    assert (named != plain).any()
    small = [[10, 10]]
    np.testing.assert_array_equal(
        draw(gray_image(20, 20), small, NOSE, names=True), draw(gray_image(20, 20), small, NOSE)
    )


def test_name_of_single_landmark_is_to_its_right() -> None:
    plain = draw(gray_image(120, 300), [[150, 60]], NOSE)
    left, top, right, bottom = changed_box(plain, draw(gray_image(120, 300), [[150, 60]], NOSE, names=True))
    assert 150 < left < right
    assert top < 60 < bottom


def test_names_of_neighboring_landmarks_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: dict[str, tuple[int, int, int, int]] = {}

    def record(
        canvas: NDArray[np.uint8], left: int, top: int, text: str, size: int, *colors: str | None
    ) -> None:
        width, height = text_size(text, size)
        boxes[text] = (left, top, left + width, top + height)

    monkeypatch.setattr("landmarks_fastai.visualization.landmarks.draw_text", record)
    schema = LandmarkSchema("ears", ("left_ear", "left_ear_tip", "right_ear", "right_ear_tip"))
    points = [[100, 100], [104, 100], [108, 100], [112, 100]]
    draw(gray_image(240, 400), points, schema, names=True)
    assert boxes.keys() == set(schema.names)
    for first, second in combinations(boxes.values(), 2):
        # one pixel of tolerance, because boxes are rounded to whole pixels when they are drawn
        apart = [first[0] >= second[2] - 1, second[0] >= first[2] - 1]
        apart += [first[1] >= second[3] - 1, second[1] >= first[3] - 1]
        assert any(apart), (first, second)
    # away from the center of the face
    assert boxes["left_ear"][2] < 100
    assert boxes["right_ear_tip"][0] > 112


# --- several faces -------------------------------------------------------------------------------


def test_all_faces_are_drawn_with_their_own_truth_and_caption() -> None:
    points = np.array([[[60, 120]], [[260, 120]]], float)
    truth = labels_of(points + np.array([0, 60]))
    image = gray_image(240, 320)
    drawing = draw(image, points, NOSE, truth=truth, captions=["first", "second"])
    for (x, y), caption in zip(points[:, 0], ["first", "second"], strict=True):
        assert pixel(drawing, x, y) == style_color("middle")
        assert pixel(drawing, x, y + 30) == style_color("truth")
        alone = draw(image, [[x, y]], NOSE, truth=labels_of([[x, y + 60]]), captions=[caption])
        columns = slice(0, 160) if x < 160 else slice(160, 320)
        np.testing.assert_array_equal(drawing[:, columns], alone[:, columns])


def test_captions_are_written_above_faces_or_below_at_top_of_image() -> None:
    image = gray_image(240, 320)
    for y, above in ((120, True), (6, False)):
        plain = draw(image, [[160, y]], NOSE)
        _, top, _, bottom = changed_box(plain, draw(image, [[160, y]], NOSE, captions=["7"]))
        assert bottom < y if above else top > y


def test_drawing_of_no_face_is_the_image() -> None:
    drawing = draw_landmarks(gray_image(9, 9), Landmarks.empty(NOSE))
    assert drawing.shape == (9, 9, 3)
    assert (drawing == GRAY).all()


def test_faces_are_numbered_by_track_id_or_index_unless_single() -> None:
    faces = labels_of(np.zeros((3, 1, 2)))
    assert number_faces(faces) == ["0", "1", "2"]
    tracked = Landmarks(faces.points, NOSE, faces.confidence, faces.scales, faces.crops, track_ids=(4, 7, 9))
    assert number_faces(tracked) == ["4", "7", "9"]
    assert number_faces(tracked[[1]]) is None


# --- input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 1), (60, 80, 3)])
def test_image_of_any_shape_becomes_rgb_and_is_not_modified(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image.setflags(write=False)
    unchanged = draw(image, np.full((3, 2), NAN), TRIANGLE)
    assert unchanged.shape == (60, 80, 3)
    np.testing.assert_array_equal(unchanged, np.broadcast_to(image.reshape(60, 80, -1), (60, 80, 3)))
    drawing = draw(image, [[20, 20], [NAN, NAN], [60, 40]], TRIANGLE)
    assert (drawing != unchanged).any()
    np.testing.assert_array_equal(drawing[:10], unchanged[:10])


def test_points_outside_image_are_clipped() -> None:
    drawing = draw(gray_image(64, 64), [[1e12, -1e12], [-1e12, 1e12], [np.inf, 3]], TRIANGLE)
    assert (drawing == GRAY).all()
    partial = draw(gray_image(64, 64), [[-0.5, 30], [30, 30], [40, 63.4]], TRIANGLE)
    assert pixel(partial, 0, 30) != GRAY


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((9, 9)), {}, "uint8"),
        (np.zeros((9, 9, 4), np.uint8), {}, r"\(H, W"),
        (gray_image(9, 9), {"captions": ["a", "b"]}, "1 faces need 1 captions, not 2"),
        (gray_image(9, 9), {"truth": labels_of(np.zeros((2, 1, 2)))}, "1 faces need 1 labeled faces, not 2"),
    ],
)
def test_input_of_other_shape_is_refused(
    image: NDArray[np.uint8], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        draw(image, [[1, 1]], NOSE, **options)


def test_points_of_other_shape_are_refused() -> None:
    with pytest.raises(UserError, match=r"schema nose needs points of shape \(N, 1, 2\)"):
        draw(gray_image(9, 9), [[1, 1], [2, 2]], NOSE)


def test_drawing_in_place_is_the_drawing_of_a_copy() -> None:
    image = np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8)
    copy = draw(image, kaggle_points(96), KAGGLE15)
    drawn = draw(image, kaggle_points(96), KAGGLE15, in_place=True)
    assert drawn is image
    np.testing.assert_array_equal(image, copy)
