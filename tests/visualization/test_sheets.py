"""Contact sheets: enlarged pixels, captions and the legend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.drawing import NOSE, TRIANGLE, gray_image, kaggle_points, pixel, style_color
from PIL import Image

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.visualization.landmarks import draw_landmarks
from landmarks_fastai.visualization.sheets import evaluation_sheet, landmark_sheet
from landmarks_fastai.visualization.style import STYLE

NAN = float("nan")
TRIANGLES = Landmarks.from_points([[[10, 10], [30, 10], [20, 30]]] * 3, TRIANGLE)
NOSES = Landmarks.from_points([[[1, 1]]] * 2, NOSE)


def test_sheet_places_landmarks_in_enlarged_images() -> None:
    images = np.full((3, 96, 96, 1), 90, np.uint8)
    landmarks = Landmarks.from_points(np.stack([kaggle_points(96)] * 3), KAGGLE15)
    page = landmark_sheet(images, landmarks, columns=2, scale=4)
    gap = STYLE.gap
    assert page.shape[1] == 2 * 384 + 3 * gap
    for left, top in ((gap, gap), (2 * gap + 384, gap), (gap, 2 * gap + 384)):
        x, y = (kaggle_points(96)[0] + 0.5) * 4 - 0.5
        assert pixel(page, left + x, top + y) == style_color("left")
    assert pixel(page, 2 * gap + 384 + 5, 2 * gap + 384 + 5) == style_color("paper")  # no fourth face


@pytest.mark.parametrize("scale", [1, 2, 5, None])
def test_sheet_centers_dot_on_enlarged_pixel(scale: int | None) -> None:
    landmarks = Landmarks.from_points([[[30.25, 50.5]]], NOSE)
    page = landmark_sheet([gray_image(90, 90)], landmarks, scale=scale).astype(int)
    side, gap = page.shape[1] - 2 * STYLE.gap, STYLE.gap
    assert side == (STYLE.cell if scale is None else 90 * scale)
    rows, columns = np.mgrid[:side, :side]
    change = np.abs(page[gap : gap + side, gap : gap + side] - 128).sum(axis=2)
    centroid = np.array([np.average(columns, weights=change), np.average(rows, weights=change)])
    expected = np.array([30.75, 51.0]) * side / 90 - 0.5
    assert np.abs(centroid - expected).max() < 0.1


def test_sheet_of_images_of_all_sizes_has_captions_and_legend() -> None:
    images = [gray_image(48, 40), np.zeros((300, 500, 3), np.uint8), gray_image(96, 96)]
    captions = ["first", "a caption that is far too long for the face above it", "líne\nbreak"]
    unlabeled = Landmarks.from_points(np.full((3, 3, 2), NAN), TRIANGLE)
    without = landmark_sheet(images, TRIANGLES)
    page = landmark_sheet(images, TRIANGLES, truth=unlabeled, captions=captions, columns=3)
    assert without.shape[1] == page.shape[1] == 3 * STYLE.cell + 4 * STYLE.gap
    assert page.shape[0] > without.shape[0]
    for side in ("left", "right", "middle"):
        assert (page[-20:] == style_color(side)).all(axis=2).any()
    assert (page[:, -STYLE.gap :] == 255).all()  # no caption extends over the edge


def test_sheet_truncates_captions_with_ellipsis() -> None:
    def sheet(caption: str) -> np.ndarray:
        return landmark_sheet([gray_image(90, 90)], NOSES[[0]], captions=[caption], scale=1)

    assert (sheet("row 7") != sheet("row 8")).any()
    # only the part that is cut off differs
    long = "a caption that is far too long"
    np.testing.assert_array_equal(sheet(f"{long} (1)"), sheet(f"{long} (2)"))
    shortest = [sheet(long[:end].rstrip() + "…") for end in range(1, len(long))]
    assert any((page == sheet(long)).all() for page in shortest)
    assert (sheet(long)[:, -STYLE.gap :] == 255).all()


def test_evaluation_sheet_shows_rows_with_label_prediction_and_nme(dataset: LandmarkDataset) -> None:
    points = np.nan_to_num(dataset.points, nan=48.0) + np.float32(3)
    predicted = Landmarks.from_points(points, dataset.schema)
    nme = np.linspace(0, 0.59, len(dataset))
    rows = np.array([7, 2])
    page = evaluation_sheet(dataset, predicted, nme, rows)
    expected = landmark_sheet(
        dataset.images[rows],
        predicted[rows],
        truth=dataset.landmarks[rows],
        captions=["synthetic face 7: 7.0%", "synthetic face 2: 2.0%"],
        columns=4,
    )
    np.testing.assert_array_equal(page, expected)


def test_sheet_at_original_size_is_the_drawing(dataset: LandmarkDataset) -> None:
    page = landmark_sheet(dataset.images[:1], dataset.landmarks[:1], scale=1)
    drawing = draw_landmarks(dataset.images[0], dataset.landmarks[:1])
    cell = page[STYLE.gap : STYLE.gap + 96, STYLE.gap : STYLE.gap + 96]
    np.testing.assert_array_equal(cell, drawing)
    assert Image.fromarray(page).size[0] == 96 + 2 * STYLE.gap


def test_sheet_without_images_or_with_other_counts_is_refused() -> None:
    with pytest.raises(UserError, match="at least one image"):
        landmark_sheet([], Landmarks.empty(NOSE))
    with pytest.raises(UserError, match="2 images needs 2 captions, not 1"):
        landmark_sheet([gray_image(9, 9)] * 2, NOSES, captions=["one"])
    with pytest.raises(UserError, match="3 images needs 3 faces, not 2"):
        landmark_sheet([gray_image(9, 9)] * 3, NOSES)
    with pytest.raises(UserError, match="columns and scale of a sheet must be 1 or more"):
        landmark_sheet([gray_image(9, 9)], NOSES[[0]], scale=0)


def test_sheet_shows_occluded_landmarks_and_explains_the_cross() -> None:
    images = np.full((2, 96, 96, 1), 90, np.uint8)
    plain = Landmarks.from_points(np.stack([kaggle_points(96)] * 2), KAGGLE15)
    visibility = np.full((2, 15), 0.9, np.float32)
    visible = replace(plain, visibility=visibility.copy())
    visibility[1, 10] = 0.1
    without, same, page = (
        landmark_sheet(images, landmarks, scale=4)
        for landmarks in (plain, visible, replace(plain, visibility=visibility))
    )
    np.testing.assert_array_equal(same, without)
    assert page.shape == without.shape
    changed = (page != without).any(axis=2)
    gap = STYLE.gap
    assert not changed[: gap + 384, : gap + 384].any()  # the first face
    assert changed[: gap + 384, gap + 384 :].any()
    assert changed[2 * gap + 384 :].any()  # the legend
