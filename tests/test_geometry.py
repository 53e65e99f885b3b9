"""Crops, rotations and similarity fits, for images and for landmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.geometry import (
    ROLL_TOLERANCE,
    Crop,
    center_crop,
    crop_distance,
    excess_roll,
    extract_crop,
    extract_input,
    fit_crop,
    fit_similarity,
    outside_square,
    rotate_points,
    square_crop,
    to_complex,
)

MEAN_SHAPE = np.array([[0.7, 0.35], [0.3, 0.35], [0.5, 0.6], [0.5, 0.85]])
DEGREES = st.floats(-177, 177)


# --- crops ---------------------------------------------------------------------------------------


@given(roll=DEGREES, side=st.floats(2, 3000), x=st.floats(-5, 70), y=st.floats(-5, 70))
def test_crop_to_crop_inverts_to_image(roll: float, side: float, x: float, y: float) -> None:
    crop = Crop(-20.0, 35.0, side, roll)
    point = crop.to_image(np.array([[x, y]], np.float32), 64)
    np.testing.assert_allclose(crop.to_crop(point, 64), [[x, y]], atol=1e-3)


def test_crop_roll_is_clockwise_on_screen() -> None:
    corner = np.array([[-0.5, -0.5]], np.float32)
    crop = Crop(10, 20, 40, 90.0)
    np.testing.assert_allclose(crop.to_image(corner, 8), [[49.5, 19.5]], atol=1e-5)
    assert crop.shifted(1, 2) == Crop(11, 22, 40, 90.0)


def test_crop_box_and_center_are_edge_coordinates() -> None:
    crop = Crop(10, 20, 40, 30.0)
    assert crop.box == (10, 20, 50, 60)
    assert crop.center == (30, 40)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(60, 40, Crop(10, 0, 40)), (61, 40, Crop(10, 0, 40)), (40, 63, Crop(0, 11, 40)), (5, 5, Crop(0, 0, 5))],
)
def test_center_crop_is_largest_and_aligned_to_whole_pixels(width: int, height: int, expected: Crop) -> None:
    assert center_crop(width, height) == expected


def test_crop_distance_adds_relative_shift_and_log_ratio_of_sides() -> None:
    crop = Crop(10, 20, 40)
    assert crop_distance(crop, crop) == 0
    assert crop_distance(crop, Crop(10, 20, 40, 45.0)) == 0
    assert crop_distance(crop, crop.shifted(3, 4)) == pytest.approx(5 / 40)
    doubled = Crop(-10, 0, 80)  # the same center
    assert crop_distance(crop, doubled) == pytest.approx(math.log(2))
    assert crop_distance(doubled, crop) == pytest.approx(math.log(2))


# --- fitting crops -------------------------------------------------------------------------------


@given(left=st.floats(-500, 5000), top=st.floats(-500, 5000), side=st.floats(2, 3000), degrees=DEGREES)
def test_fit_crop_places_landmarks_as_in_mean_shape_up_to_roll_tolerance(
    left: float, top: float, side: float, degrees: float
) -> None:
    points = rotate_points(MEAN_SHAPE, degrees, (0.5, 0.5)) * side + (left, top) - 0.5
    crop = fit_crop(points, MEAN_SHAPE)
    assert crop is not None
    assert crop.side == pytest.approx(side)
    remaining = min(ROLL_TOLERANCE, max(-ROLL_TOLERANCE, degrees))
    assert crop.roll == pytest.approx(degrees - remaining, abs=5e-5)
    expected = rotate_points(MEAN_SHAPE, remaining, tuple(MEAN_SHAPE.mean(axis=0))) * 64 - 0.5
    np.testing.assert_allclose(crop.to_crop(points, 64), expected, atol=1e-6)


def test_fit_crop_ignores_unknown_landmarks() -> None:
    points = MEAN_SHAPE * 50 + (10, 20) - 0.5
    points[1] = np.nan
    crop = fit_crop(points, MEAN_SHAPE)
    assert crop is not None
    assert crop.box == pytest.approx((10, 20, 60, 70))


def test_fit_crop_of_fewer_than_two_distinct_landmarks_is_none() -> None:
    points = np.full((4, 2), np.nan)
    points[2] = 5, 5
    assert fit_crop(points, MEAN_SHAPE) is None
    assert fit_crop(np.full((4, 2), 7.0), MEAN_SHAPE) is None


def test_excess_roll_is_part_beyond_tolerance_with_sign() -> None:
    degrees = np.array([0.0, ROLL_TOLERANCE, -ROLL_TOLERANCE, 25.0, -170.0])
    expected = [0.0, 0.0, 0.0, 25.0 - ROLL_TOLERANCE, -170.0 + ROLL_TOLERANCE]
    np.testing.assert_allclose(excess_roll(degrees), expected)


# --- extracting crops ----------------------------------------------------------------------------


def test_extract_crop_of_whole_pixels_is_exact_and_repeats_edges() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(extract_crop(image, Crop(2, 1, 5), 5, 3), image[1:6, 2:7])
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(extract_crop(image, Crop(-3, -3, 8), 8, 3), padded[:8, :8])
    np.testing.assert_array_equal(extract_crop(image, Crop(4, 2, 8), 8, 3), padded[5:13, 7:15])


@settings(max_examples=40, deadline=None)
@example(corner=(0.0, -3.0), side=1.0, size=1)  # entirely above the image
@given(
    corner=st.tuples(st.floats(-30, 50), st.floats(-30, 40)),
    side=st.floats(1, 90),
    size=st.sampled_from([1, 8, 33]),
)
def test_extract_crop_equals_crop_of_padded_image(
    corner: tuple[float, float], side: float, size: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    padded = Image.fromarray(np.pad(image, ((300, 300), (300, 300), (0, 0)), mode="edge"))
    left, top = corner[0] + 300, corner[1] + 300
    box = (left, top, left + side, top + side)
    expected = np.asarray(padded.resize((size, size), Image.Resampling.BILINEAR, box=box), dtype=int)
    # Pillow stores boxes as float32, so that pixels may be rounded differently at large coordinates
    actual = extract_crop(image, Crop(*corner, side), size, 3)
    assert np.abs(actual - expected).max() <= 1


def test_extract_crop_reduced_is_antialiased() -> None:
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    reduced = extract_crop(checkerboard, Crop(0, 0, 64), 8, 1)
    assert np.abs(reduced.astype(int) - 127).max() <= 5


def test_extract_crop_converts_between_color_and_gray() -> None:
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)
    assert extract_crop(colors, Crop(0, 0, 2), 2, 1)[..., 0].tolist() == [[76, 150], [29, 9]]
    for gray in (colors[..., 0], colors[..., :1]):
        assert extract_crop(gray, Crop(0, 0, 2), 2, 3).tolist() == [[[255] * 3, [0] * 3], [[0] * 3, [9] * 3]]


@settings(max_examples=40, deadline=None)
@given(roll=DEGREES, side=st.floats(80, 120), size=st.sampled_from([8, 16, 96]))
def test_extract_crop_rotated_agrees_with_to_image(roll: float, side: float, size: int) -> None:
    x = np.arange(240, dtype=np.float64)
    coordinates = np.stack(np.meshgrid(x, x), -1)
    image = np.concatenate([coordinates, np.full((240, 240, 1), 9)], -1).astype(np.uint8)
    crop = Crop(118.3 - side / 2, 121.9 - side / 2, side, roll)
    line = np.arange(size, dtype=np.float32)
    pixels = np.stack(np.meshgrid(line, line), -1)
    extracted = extract_crop(image, crop, size, 3)
    # an offset of half a pixel would be at least 2.5 at the small sizes; two roundings are less
    np.testing.assert_allclose(extracted[..., :2], crop.to_image(pixels, size), atol=1.6)
    assert (extracted[..., 2] == 9).all()
    gray = extract_crop(image[..., :1], crop, size, 1)
    np.testing.assert_allclose(gray[..., 0], crop.to_image(pixels, size)[..., 0], atol=1.6)


def test_extract_crop_rotated_is_antialiased() -> None:
    checkerboard = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    reduced = extract_crop(checkerboard, Crop(16, 16, 64, 40.0), 8, 1)
    assert np.abs(reduced.astype(int) - 127).max() <= 6


# --- points --------------------------------------------------------------------------------------


def test_outside_square_is_true_beyond_edges_of_border_pixels() -> None:
    points = np.array(
        [[-0.5, 3.0], [-0.51, 3.0], [7.5, 7.5], [7.51, 0.0], [0.0, -1.0], [3.0, 9.0], [np.nan, np.nan]]
    )
    expected = [False, True, False, True, True, True, False]
    assert outside_square(points, 8).tolist() == expected
    assert outside_square(torch.from_numpy(points)[None], 8).tolist() == [expected]


@given(
    scale=st.floats(0.1, 100),
    degrees=DEGREES,
    x=st.floats(-100, 100),
    y=st.floats(-100, 100),
    missing=st.integers(0, 3),
)
def test_fit_similarity_recovers_transform_despite_missing_landmarks(
    scale: float, degrees: float, x: float, y: float, missing: int
) -> None:
    points = rotate_points(MEAN_SHAPE, degrees, (0.0, 0.0)) * scale + (x, y)
    shape, target = to_complex(MEAN_SHAPE), to_complex(points)[None]
    mask = np.ones((1, 4), bool)
    mask[0, missing] = False
    observed = np.where(mask, target, 0)
    fit = fit_similarity(observed, shape, mask)
    assert abs(fit.transform[0]) == pytest.approx(scale)
    assert np.angle(fit.transform[0], deg=True) == pytest.approx(degrees, abs=1e-6)
    np.testing.assert_allclose(fit.to_shape(target)[0], shape, atol=1e-9)


def test_fit_similarity_minimizes_weighted_squared_distances() -> None:
    rng = np.random.default_rng(0)
    points = to_complex(rng.normal(size=(5, 4, 2)))
    shape, weights = to_complex(MEAN_SHAPE), rng.uniform(0.1, 2, (5, 4))
    fit = fit_similarity(points, shape, weights)

    def loss(transform: np.ndarray, points_mean: np.ndarray) -> np.ndarray:
        predicted = points_mean[:, None] + transform[:, None] * (shape - fit.shape_mean[:, None])
        return (weights * abs(points - predicted) ** 2).sum(axis=1)

    best = loss(fit.transform, fit.points_mean)
    for change in (0.01, -0.01, 0.01j, -0.01j):
        assert (loss(fit.transform + change, fit.points_mean) > best).all()
        assert (loss(fit.transform, fit.points_mean + change) > best).all()


def test_fit_similarity_of_coinciding_shape_points_has_transform_0() -> None:
    fit = fit_similarity(np.array([[1 + 2j, 3 + 4j]]), np.array([1 + 1j, 1 + 1j]), np.ones((1, 2)))
    assert fit.transform.tolist() == [0]
    assert fit.scatter.tolist() == [0]


# --- values of conventions -----------------------------------------------------------------------


def test_roll_tolerance_is_that_of_the_benchmark() -> None:
    assert ROLL_TOLERANCE == 10.0
    np.testing.assert_array_equal(excess_roll(np.array([-25.0, -10, 3, 10.5])), [-15, 0, 0, 0.5])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 40, 30), Crop(10, 10, 30)),
        ((10, 20, 14, 40), Crop(2, 20, 20)),
        ((-6, 2, 0, 8), Crop(-6, 2, 6)),
    ],
)
def test_square_crop_has_center_and_longer_side_of_box(box: tuple[float, ...], expected: Crop) -> None:
    assert square_crop(*box) == expected


def test_fit_similarity_of_shape_in_fractions_has_scale_in_pixels() -> None:
    # two points 0.1 apart: the scatter of the shape is far below 1
    shape = np.array([0.45 + 0.5j, 0.55 + 0.5j])
    fit = fit_similarity((40 * shape + (3 - 7j))[None], shape, np.ones((1, 2)))
    np.testing.assert_allclose(fit.transform, [40], rtol=1e-12)
    np.testing.assert_allclose(fit.scatter, [0.005], rtol=1e-12)
    np.testing.assert_allclose(fit.to_shape((40 * shape + (3 - 7j))[None])[0], shape, rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 50.0])
def test_fit_similarity_depends_on_relative_weights_only(factor: float) -> None:
    shape = to_complex(MEAN_SHAPE)
    points = (30j * shape + 5)[None] + np.array([[0, 0, 0, 1]])
    weights = np.array([[1.0, 2.0, 1.0, 0.5]])
    fit, scaled = (fit_similarity(points, shape, w) for w in (weights, factor * weights))
    np.testing.assert_allclose(scaled.transform, fit.transform, rtol=1e-9)
    np.testing.assert_allclose(scaled.points_mean, fit.points_mean, rtol=1e-9)


def test_fit_crop_leaves_out_landmarks_with_one_unknown_coordinate() -> None:
    points = MEAN_SHAPE * 50 + 20 - 0.5
    complete = fit_crop(points, MEAN_SHAPE)
    assert complete is not None
    np.testing.assert_allclose(complete.box, (20, 20, 70, 70), atol=1e-9)
    points[2, 1] = np.nan
    partial = fit_crop(points, MEAN_SHAPE)
    assert partial is not None
    np.testing.assert_allclose(partial.box, complete.box, atol=1e-9)


@pytest.mark.parametrize("image_size", [None, 24, 48])
def test_extract_input_resizes_by_way_of_the_stored_side(image_size: int | None) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    crop = Crop(12.5, 4.0, 70.0)
    expected = extract_crop(image, crop, 24, 1)
    if image_size == 48:
        expected = extract_crop(extract_crop(image, crop, 48, 1), Crop(0, 0, 48), 24, 1)
        assert (expected != extract_crop(image, crop, 24, 1)).any()
    np.testing.assert_array_equal(extract_input(image, crop, 24, 1, image_size), expected)
