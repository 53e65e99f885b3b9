"""Checks of labels in pixels of the source images: normalized, placeholders, outside image or crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.data.annotation_checks import (
    BLOCK_POINTS,
    check_annotations,
    check_coordinates,
    check_crops,
    find_placeholders,
    name_rows,
    row_blocks,
)
from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema

ROWS, LANDMARKS = 40, 5
SCHEMA = LandmarkSchema("five", ("a", "b", "c", "d", "e"))
PIXELS = np.random.default_rng(2).uniform(20, 300, (ROWS, LANDMARKS, 2))
NAMES = tuple(f"{row}.png" for row in range(ROWS))


def make_annotations(points: np.ndarray) -> Annotations:
    """Return rows of five landmarks, each on its own image."""
    images = tuple(ImageSource(Path(name)) for name in NAMES[: len(points)])
    rows = np.arange(len(points))
    return Annotations(SCHEMA, images, rows, points, NAMES[: len(points)], "labels.csv")


def test_check_annotations_of_pixels_finds_nothing():
    points = PIXELS.copy()
    points[:5, 2], points[7] = np.nan, np.nan
    assert check_annotations(make_annotations(points)) == []
    assert check_annotations(make_annotations(points[:0])) == []
    assert check_annotations(make_annotations(np.full_like(points, np.nan))) == []


@pytest.mark.parametrize(
    ("scale", "shift", "text"),
    [
        (1 / 320, 0.0, "between 0 and 1, but pixels are needed: multiply x by the width and y by the height"),
        (1 / 160, -1.0, "between -1 and 1, but pixels are needed: add 1 to both"),
    ],
)
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_check_annotations_normalized_coordinates_are_an_error(scale, shift, text, fraction):
    points = PIXELS.copy()
    normalized = round(fraction * ROWS)
    points[:normalized] = points[:normalized] * scale + shift
    points[0, :3] = np.nan
    points[1, 0] = 0
    with pytest.raises(UserError) as error:
        check_annotations(make_annotations(points))
    message = str(error.value)
    assert message.startswith(
        f"labels.csv: the coordinates look normalized, because those of {normalized} of 40 rows"
    )
    assert text in message
    assert "\n" not in message


def test_check_annotations_names_few_normalized_rows():
    points = PIXELS.copy()
    points[[3, 8]] /= 320
    (line,) = check_annotations(make_annotations(points))
    assert line.startswith(
        "2 rows with coordinates between 0 and 1, as if normalized (3.png, 8.png): multiply x"
    )


def test_check_annotations_of_one_landmark_in_a_corner_is_no_error():
    points = np.random.default_rng(0).uniform(0, 300, (ROWS, 1, 2))
    points[:10] = 1.0
    (line,) = check_coordinates(points, NAMES, "x")
    assert line.startswith("10 rows")
    with pytest.raises(UserError, match="40 of 40 rows"):
        check_coordinates(points / 320, NAMES, "x")


def test_check_annotations_counts_landmarks_and_rows_of_placeholders():
    points = PIXELS.copy()
    points[:30, 1:4] = 0
    points[35, 4] = -1
    assert check_annotations(make_annotations(points)) == [
        "3 landmarks at exactly (0, 0) in 30 rows: leave the cell empty where a landmark is not labeled",
        "1 landmark at exactly (-1, -1) in 1 row (35.png): leave the cell empty where a landmark is not"
        " labeled",
    ]
    points[:] = 0  # all landmarks are placeholders, not normalized
    assert check_annotations(make_annotations(points)) == [
        "5 landmarks at exactly (0, 0) in 40 rows: leave the cell empty where a landmark is not labeled"
    ]


def test_find_placeholders_needs_equal_coordinates():
    points = np.array([[0, 0], [-1, -1], [0, -1], [0.001, 0], [1, 1], [np.nan, np.nan]])
    assert find_placeholders(points).tolist() == [True, True, False, False, False, False]


def test_check_crops_reports_rows_outside_image_and_crop():
    points, sizes = PIXELS.copy(), np.full((ROWS, 2), (400, 310))
    crops = points.copy()
    sizes[3] = (400, 100)
    points[3] = [[50, 99.5], [50, 50], [50, 50], [50, 50], [50, 50]]  # the lower edge is at 99.5
    points[5, 0] = (-0.6, 40)
    points[6, 0] = (-1, -1)
    points[9, 2] = np.nan
    crops[[5, 6, 7, 8, 9], [0, 0, 1, 1, 2]] = np.nan
    assert check_crops(make_annotations(points), sizes, crops) == [
        "1 row with landmarks outside the image: 5.png",
        "2 rows with landmarks outside the crop, which count as not labeled: 7.png, 8.png",
    ]
    sizes[3] = (50, 100)
    assert check_crops(make_annotations(points), sizes, crops)[0].endswith("image: 3.png, 5.png")


@given(st.integers(0, 2000), st.integers(1, 400))
def test_row_blocks_cover_each_row_once(rows, landmarks):
    points = np.empty((rows, landmarks, 0))
    blocks = [np.arange(rows)[block] for block in row_blocks(points)]
    assert np.array_equal(np.concatenate([np.arange(0), *blocks]), np.arange(rows))
    assert all(len(block) * landmarks <= BLOCK_POINTS for block in blocks)


def test_name_rows_shows_three_and_separates_names_with_commas():
    assert name_rows(NAMES, [0]) == "0.png"
    assert name_rows(NAMES, [4, 0, 2]) == "4.png, 0.png, 2.png"
    assert name_rows(NAMES, range(12)) == "0.png, 1.png, 2.png and 9 more"
    assert name_rows(["x.csv, line 2", "x.csv, line 3"], [0, 1]) == "x.csv, line 2; x.csv, line 3"
