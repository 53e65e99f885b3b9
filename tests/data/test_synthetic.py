"""The drawn faces: points exact to a part of a pixel, the same for the same seed, varied otherwise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from landmarks_fastai.data import face_model
from landmarks_fastai.data.synthetic import _fit, _random_face, _random_rotation, draw_faces, draw_picture
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import KAGGLE15


@pytest.mark.parametrize("seed", range(12))
def test_the_iris_is_drawn_where_the_label_says(seed):
    """Black irises in an otherwise white world: their centre of mass is the label."""
    rng = np.random.default_rng(seed)
    white = (255, 255, 255)
    face = dataclasses.replace(
        _random_face(rng), skin=white, hair=white, cloth=white, iris=(0, 0, 0), eye_open=2.0, glasses=False
    )
    view = _fit(face_model.landmarks(face), _random_rotation(rng), rng, 96)
    eyes = view(face_model.landmarks(face))[:2]
    # only white, iris and pupil of each eye: the lids' edges and all else are left out
    layer = face_model.Image.new("RGBA", (384, 384), "white")
    for side in (1, -1):
        face_model.paint_eyeball(face, face_model.Brush(layer, view, 4), side)
    dark = 255.0 - np.asarray(layer.reduce(4).convert("L"), float)
    dark[dark < 60] = 0  # the white of the eye
    y, x = np.mgrid[:96, :96]
    for eye in eyes:
        near = dark * (np.hypot(x - eye[0], y - eye[1]) < 8)
        found = [(near * x).sum() / near.sum(), (near * y).sum() / near.sum()]
        np.testing.assert_allclose(found, eye, atol=0.12)


def test_a_marked_point_lands_on_its_label():
    """A disc painted round each landmark with the same brush has its centre of mass on the label."""
    off = []
    y, x = np.mgrid[:96, :96]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        face = _random_face(rng)
        view = _fit(face_model.landmarks(face), _random_rotation(rng), rng, 96)
        places = face_model.landmarks(face)
        for place, label in zip(places, view(places), strict=True):
            layer = face_model.Image.new("L", (384, 384))
            disc = place + np.pad(face_model.CIRCLE * 0.06, ((0, 0), (0, 1)))
            face_model.Brush(layer, view, 4)(disc, 255)
            light = np.asarray(layer, float).reshape(96, 4, 96, 4).mean((1, 3))
            found = [(light * x).sum() / light.sum(), (light * y).sum() / light.sum()]
            off.append(found - label)
    assert np.abs(off).max() < 0.1  # Pillow rounds corners to whole pixels of the fourfold layer
    assert np.abs(np.mean(off, axis=0)).max() < 0.02  # and no half pixel is lost on the way


def test_the_finished_picture_is_dark_where_the_eyes_are_labelled():
    """Nothing moves between painting and finishing: eyes are darkest about their labels."""
    table = draw_faces(60, seed=5)
    y, x = np.mgrid[:96, :96]
    off = []
    for i in range(len(table)):
        for eye in table.points[i, :2]:
            window = np.exp(-((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / (2 * 2.0**2))
            dark = 255.0 - table.images[i, ..., 0]
            weight = window * np.maximum(dark - np.quantile(dark[window > 0.3], 0.3), 0)
            off.append([(weight * (x - eye[0])).sum(), (weight * (y - eye[1])).sum()] / weight.sum())
    right, down = np.median(off, axis=0)
    assert abs(right) < 0.1
    assert -0.5 < down < 0.1  # the upper lid is dark too


def test_the_same_seed_draws_the_same_faces_whatever_the_count():
    long, short = draw_faces(6, seed=3), draw_faces(2, seed=3)
    np.testing.assert_array_equal(long.images[:2], short.images)
    np.testing.assert_array_equal(long.points[:2], short.points)
    assert draw_faces(6, seed=3).digest == long.digest
    assert long.digest != short.digest
    assert draw_faces(6, seed=4).digest != long.digest
    assert long.source == "synthetic faces (seed 3)"


def test_gray_is_the_luma_of_colour():
    gray, colour = draw_faces(2, seed=1), draw_faces(2, seed=1, colour=True)
    luma = colour.images.astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(gray.images[..., 0], luma, atol=1.0)
    np.testing.assert_array_equal(gray.points, colour.points)


def test_size_scales_the_points():
    """The geometry is drawn in parts of the side: pixel centres map as x -> (x + 0.5) * 2 - 0.5, nearly."""
    small, large = draw_faces(8, seed=2, size=96), draw_faces(8, seed=2, size=192)
    np.testing.assert_allclose(large.points, (small.points + 0.5) * 2 - 0.5, atol=1.0)


def test_faces_are_labelled_in_the_frame_and_varied():
    table = draw_faces(150, seed=0)
    assert table.images.shape == (150, 96, 96, 1)
    assert table.complete.all()
    assert table.groups is None
    assert table.points.min() >= 0
    assert table.points.max() <= 95
    left, right = KAGGLE15.indices(["left_eye_center", "right_eye_center"])
    eyes = table.points[:, left] - table.points[:, right]
    assert (eyes[:, 0] > 0).all()  # the subject's left eye is on the image's right
    nose, top, bottom = KAGGLE15.indices(["nose_tip", "mouth_center_top_lip", "mouth_center_bottom_lip"])
    assert (table.points[:, bottom, 1] > table.points[:, top, 1]).all()
    turn = (table.points[:, nose, 0] - (table.points[:, left, 0] + table.points[:, right, 0]) / 2) / eyes[
        :, 0
    ]
    assert turn.std() > 0.08  # yaw
    assert np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])).std() > 5  # roll
    assert table.images.mean((1, 2, 3)).std() > 20  # light, skin, background
    gape = (table.points[:, bottom, 1] - table.points[:, top, 1]) / eyes[:, 0]
    assert gape.max() > 2 * np.median(gape)  # open mouths


def test_a_picture_shows_one_face_off_centre():
    picture, points = draw_picture(seed=4, size=(320, 240))
    assert picture.shape == (240, 320, 3)
    assert picture.dtype == np.uint8
    assert points.shape == (15, 2)
    assert (points >= 0).all()
    assert (points < [320, 240]).all()
    assert abs(points[:, 0].mean() - 160) > 20
    again, same = draw_picture(seed=4, size=(320, 240))
    np.testing.assert_array_equal(picture, again)
    np.testing.assert_array_equal(points, same)


@pytest.mark.parametrize(("count", "seed", "size"), [(0, 0, 96), (1, -1, 96), (1, 0, 8)])
def test_impossible_orders_are_refused(count, seed, size):
    with pytest.raises(UserError, match="synthetic faces"):
        draw_faces(count, seed, size)


def test_impossible_pictures_are_refused():
    with pytest.raises(UserError, match="synthetic picture"):
        draw_picture(0, size=(10, 640))
