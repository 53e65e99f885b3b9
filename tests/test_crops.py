"""Upright crops: exact pixels, repeated edges, antialiasing, conversion of channels, and their distance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.geometry import Crop, crop_distance, extract_crop


def test_crop_of_whole_pixels_is_exact_and_repeats_edge() -> None:
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
def test_crop_equals_that_of_padded_image(corner: tuple[float, float], side: float, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    padded = Image.fromarray(np.pad(image, ((300, 300), (300, 300), (0, 0)), mode="edge"))
    left, top = corner[0] + 300, corner[1] + 300
    box = (left, top, left + side, top + side)
    expected = np.asarray(padded.resize((size, size), Image.Resampling.BILINEAR, box=box), dtype=int)
    # Pillow stores boxes as float32, so that far from the corner a value may round differently
    actual = extract_crop(image, Crop(*corner, side), size, 3)
    assert np.abs(actual - expected).max() <= 1


def test_reduced_crop_is_antialiased() -> None:
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    reduced = extract_crop(checkerboard, Crop(0, 0, 64), 8, 1)
    assert np.abs(reduced.astype(int) - 127).max() <= 5


def test_crop_converts_between_color_and_gray() -> None:
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)
    assert extract_crop(colors, Crop(0, 0, 2), 2, 1)[..., 0].tolist() == [[76, 150], [29, 9]]
    for gray in (colors[..., 0], colors[..., :1]):
        assert extract_crop(gray, Crop(0, 0, 2), 2, 3).tolist() == [[[255] * 3, [0] * 3], [[0] * 3, [9] * 3]]


def test_crop_distance_combines_position_and_size() -> None:
    crop = Crop(10, 20, 40)
    assert crop_distance(crop, crop) == 0
    assert crop_distance(crop, Crop(10 + 12, 20 + 16, 40)) == pytest.approx(0.5)
    # the same center, e times larger
    assert crop_distance(Crop(-50, -50, 100), Crop(-50 * np.e, -50 * np.e, 100 * np.e)) == pytest.approx(1)
    assert crop_distance(crop, Crop(10, 20, 40, 57.3)) == crop_distance(crop, Crop(10, 20, 40))
    assert crop_distance(crop, Crop(0, 0, 55)) == crop_distance(Crop(0, 0, 55), crop)
