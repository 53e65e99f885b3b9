"""Synthetic faces: accurate landmarks, reproducibility, variety."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.data.synthetic.faces import (
    draw_synthetic_faces,
    draw_synthetic_photo,
    fit_view,
    random_face,
    random_rotation,
)
from landmarks_fastai.data.synthetic.head_model import landmark_positions
from landmarks_fastai.data.synthetic.rendering import CIRCLE, OVERSAMPLE, Brush, paint_eyeball
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15


@pytest.mark.parametrize("seed", range(12))
def test_paint_eyeball_iris_is_centered_on_label(seed):
    """The center of mass of a black iris, with everything else white, is the label."""
    rng = np.random.default_rng(seed)
    white = (255, 255, 255)
    face = dataclasses.replace(
        random_face(rng), skin=white, hair=white, clothing=white, iris=(0, 0, 0), eye_open=2.0, glasses=False
    )
    view = fit_view(landmark_positions(face), random_rotation(rng), rng, 96)
    eyes = view(landmark_positions(face))[:2]
    # only the white, the iris and the pupil of each eye, without the edges of the lids
    layer = Image.new("RGBA", (96 * OVERSAMPLE, 96 * OVERSAMPLE), "white")
    for side in (1, -1):
        paint_eyeball(face, Brush(layer, view, OVERSAMPLE), side)
    dark = 255.0 - np.asarray(layer.reduce(OVERSAMPLE).convert("L"), float)
    dark[dark < 60] = 0  # the white of the eye
    y, x = np.mgrid[:96, :96]
    for eye in eyes:
        near = dark * (np.hypot(x - eye[0], y - eye[1]) < 8)
        center = [(near * x).sum() / near.sum(), (near * y).sum() / near.sum()]
        np.testing.assert_allclose(center, eye, atol=0.12)


def test_brush_disc_is_centered_on_label():
    """The center of mass of a disc painted around each landmark is the label."""
    errors = []
    y, x = np.mgrid[:96, :96]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        face = random_face(rng)
        view = fit_view(landmark_positions(face), random_rotation(rng), rng, 96)
        landmarks = landmark_positions(face)
        for landmark, label in zip(landmarks, view(landmarks), strict=True):
            layer = Image.new("L", (96 * OVERSAMPLE, 96 * OVERSAMPLE))
            disc = landmark + np.pad(CIRCLE * 0.06, ((0, 0), (0, 1)))
            Brush(layer, view, OVERSAMPLE)(disc, 255)
            light = np.asarray(layer, float).reshape(96, OVERSAMPLE, 96, OVERSAMPLE).mean((1, 3))
            center = [(light * x).sum() / light.sum(), (light * y).sum() / light.sum()]
            errors.append(center - label)
    assert np.abs(errors).max() < 0.1  # Pillow rounds corners to whole pixels of the larger layer
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02  # there is no shift by half a pixel


def test_draw_synthetic_faces_images_are_dark_at_eye_labels():
    """The final image is not shifted relative to the painted layers: eyes are darkest at their labels."""
    dataset = draw_synthetic_faces(60, seed=5)
    y, x = np.mgrid[:96, :96]
    offsets = []
    for i in range(len(dataset)):
        for eye in dataset.points[i, :2]:
            window = np.exp(-((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / (2 * 2.0**2))
            dark = 255.0 - dataset.images[:][i, ..., 0]
            weight = window * np.maximum(dark - np.quantile(dark[window > 0.3], 0.3), 0)
            offsets.append([(weight * (x - eye[0])).sum(), (weight * (y - eye[1])).sum()] / weight.sum())
    right, down = np.median(offsets, axis=0)
    assert abs(right) < 0.1
    assert -0.5 < down < 0.1  # the upper lid is dark too


def test_draw_synthetic_faces_is_reproducible_and_independent_of_count():
    long, short = draw_synthetic_faces(6, seed=3), draw_synthetic_faces(2, seed=3)
    np.testing.assert_array_equal(long.images[:2], short.images)
    np.testing.assert_array_equal(long.points[:2], short.points)
    assert draw_synthetic_faces(6, seed=3).digest == long.digest
    assert long.digest != short.digest
    assert draw_synthetic_faces(6, seed=4).digest != long.digest
    assert long.source == "synthetic faces (seed 3)"


def test_draw_synthetic_faces_gray_is_luma_of_color():
    gray, color = draw_synthetic_faces(2, seed=1), draw_synthetic_faces(2, seed=1, color=True)
    luma = color.images[:].astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(gray.images[:][..., 0], luma, atol=1.0)
    np.testing.assert_array_equal(gray.points, color.points)


def test_draw_synthetic_faces_size_scales_landmarks():
    """Twice the side maps pixel centers by x -> (x + 0.5) * 2 - 0.5, approximately."""
    small, large = draw_synthetic_faces(8, seed=2, size=96), draw_synthetic_faces(8, seed=2, size=192)
    np.testing.assert_allclose(large.points, (small.points + 0.5) * 2 - 0.5, atol=1.0)


def test_draw_synthetic_faces_landmarks_are_inside_and_varied():
    dataset = draw_synthetic_faces(150, seed=0)
    assert dataset.images.shape == (150, 96, 96, 1)
    assert dataset.complete.all()
    assert dataset.groups is None
    assert dataset.points.min() >= 0
    assert dataset.points.max() <= 95
    left, right = KAGGLE15.indices(["left_eye_center", "right_eye_center"])
    eyes = dataset.points[:, left] - dataset.points[:, right]
    assert (eyes[:, 0] > 0).all()  # the subject's left eye is on the right of the image
    nose, top, bottom = KAGGLE15.indices(["nose_tip", "mouth_center_top_lip", "mouth_center_bottom_lip"])
    assert (dataset.points[:, bottom, 1] > dataset.points[:, top, 1]).all()
    yaw = (
        dataset.points[:, nose, 0] - (dataset.points[:, left, 0] + dataset.points[:, right, 0]) / 2
    ) / eyes[:, 0]
    assert yaw.std() > 0.08
    assert np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])).std() > 5  # roll
    assert dataset.images[:].mean((1, 2, 3)).std() > 20  # lighting, skin, background
    opening = (dataset.points[:, bottom, 1] - dataset.points[:, top, 1]) / eyes[:, 0]
    assert opening.max() > 2 * np.median(opening)  # open mouths


def test_draw_synthetic_photo_shows_one_face_off_center():
    photo, points = draw_synthetic_photo(seed=4, size=(320, 240))
    assert photo.shape == (240, 320, 3)
    assert photo.dtype == np.uint8
    assert points.shape == (15, 2)
    assert (points >= 0).all()
    assert (points < [320, 240]).all()
    assert abs(points[:, 0].mean() - 160) > 20
    repeated, repeated_points = draw_synthetic_photo(seed=4, size=(320, 240))
    np.testing.assert_array_equal(photo, repeated)
    np.testing.assert_array_equal(points, repeated_points)


@pytest.mark.parametrize(("count", "seed", "size"), [(0, 0, 96), (1, -1, 96), (1, 0, 8)])
def test_draw_synthetic_faces_number_out_of_range_raises(count, seed, size):
    with pytest.raises(UserError, match="synthetic faces"):
        draw_synthetic_faces(count, seed, size)


def test_draw_synthetic_photo_number_out_of_range_raises():
    with pytest.raises(UserError, match="synthetic photo"):
        draw_synthetic_photo(0, size=(10, 640))
