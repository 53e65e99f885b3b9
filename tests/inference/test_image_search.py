"""Searching an image with a model that knows its object only in crops like those of training."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.models import make_header
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.data.crops import MARGIN
from landmarks_fastai.geometry import Crop, crop_distance
from landmarks_fastai.inference.detectors.base import Detections
from landmarks_fastai.inference.face_detection import SEARCH, open_detector
from landmarks_fastai.inference.image_search import (
    STRIDE,
    landmark_motion,
    search_image,
    search_windows,
    window_disagreement,
)
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

SCHEMA = LandmarkSchema("lamps", ("red", "green", "blue"))
SIZE = 32
EXTENT = 1 / MARGIN
"""Longer side of the bounding box of the landmarks in a training crop, as a fraction of its side."""

MEAN_SHAPE = 0.5 + EXTENT * np.array([[-0.5, -0.3], [0.5, -0.1], [0.1, 0.3]])
DECOY = 200
"""Gray level of an area in which the model is confident but wrong."""


def lamp_backend(crops: Image) -> tuple[Floats, Floats]:
    """Locate a red, a green and a blue lamp whose distances are like those in training crops.

    Elsewhere, predict the mean shape: with a large expected error, or a small one where a decoy is.
    """
    pixels = crops.astype(np.float32)
    others = np.stack([pixels[..., [1, 2]], pixels[..., [0, 2]], pixels[..., [0, 1]]], axis=-2).max(axis=-1)
    light = np.maximum(pixels - others - 20, 0)
    total = light.sum(axis=(1, 2))
    y, x = np.indices(crops.shape[1:3], np.float32)
    centers = np.stack([np.einsum("bijc,ij->bc", light, axis) for axis in (x, y)], axis=-1)
    centers /= np.maximum(total, 1)[..., None]
    extents = np.ptp(centers, axis=1).max(axis=1) / crops.shape[1] / EXTENT
    is_object = ((total > 60).all(axis=1) & (extents > 0.6) & (extents < 1.5))[:, None]
    decoys = ((crops.min(axis=3) > DECOY - 20).mean(axis=(1, 2)) > 0.3)[:, None]
    mean_shape = (MEAN_SHAPE * crops.shape[1] - 0.5).astype(np.float32)
    points = np.where(is_object[..., None], centers, mean_shape).astype(np.float32)
    scales = np.where(is_object, 0.5, np.where(decoys, 0.1, 9.0)).astype(np.float32)
    return points, np.repeat(scales, 3, axis=1)


def lamp_predictor() -> Predictor:
    return Predictor(make_header(SIZE, SCHEMA, mean_shape=MEAN_SHAPE.tolist()), lamp_backend)


def draw_lamps(width: int, height: int, crop: Crop, decoys: bool = False) -> Image:
    """Draw the lamps as they are in a training crop on black, optionally beside decoys."""
    image = np.zeros((height, width, 3), np.uint8)
    if decoys:
        image[: height // 3] = DECOY
        image[:, : width // 4] = DECOY
    rows, columns = np.indices((height, width))
    for channel, (x, y) in enumerate(MEAN_SHAPE * crop.side + (crop.left, crop.top)):
        radius = 0.07 * crop.side
        lamp = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < radius**2
        image[lamp] = np.eye(3, dtype=np.uint8)[channel] * 255
    return image


@settings(max_examples=8, deadline=None)
@given(
    size=st.sampled_from([0.1, 0.17, 0.3, 0.5, 0.8]),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    shape=st.sampled_from([(160, 120), (120, 160), (300, 120)]),
    decoys=st.booleans(),
)
def test_search_finds_object_of_any_size_and_place(
    size: float, place: tuple[float, float], shape: tuple[int, int], decoys: bool
) -> None:
    side = MARGIN * size * min(shape)
    low, extent = MEAN_SHAPE.min(axis=0), np.ptp(MEAN_SHAPE, axis=0)
    # the lamps, with their radius, are inside the image, whose edge pixels are repeated outside
    left, top = 1 + np.array(place) * (np.array(shape) - 2 - side * (extent + 0.16)) - side * (low - 0.08)
    crop = Crop(float(left), float(top), side)
    detections = search_image(lamp_predictor(), draw_lamps(*shape, crop, decoys))
    assert len(detections.crops) == 1
    assert crop_distance(detections.crops[0], crop) < 0.1
    assert detections.scores[0] > 0.5


@pytest.mark.parametrize("decoys", [False, True])
def test_search_finds_nothing_in_image_without_object(decoys: bool) -> None:
    image = draw_lamps(160, 120, Crop(-900, -900, 40), decoys)
    assert search_image(lamp_predictor(), image).crops == []


def test_search_in_large_image_returns_pixels_of_that_image() -> None:
    crop = Crop(1500, 700, 400)
    (found,) = search_image(lamp_predictor(), draw_lamps(2400, 1800, crop)).crops
    assert crop_distance(found, crop) < 0.05


@settings(max_examples=10, deadline=None)
@given(width=st.integers(100, 400), height=st.integers(100, 400))
def test_windows_cover_objects_of_all_sizes(width: int, height: int) -> None:
    windows = search_windows(width, height)
    centers = np.array([window.center for window in windows])
    sides = np.array([window.side for window in windows])
    rng = np.random.default_rng(width * height)
    for size in (0.1, 0.23, 0.8):
        extent = size * min(width, height)
        x, y = extent / 2 + rng.uniform(0, 1, 2) * (np.array([width, height]) - extent)
        side = MARGIN * extent
        shift = np.abs(centers - (x, y)).max(axis=1) / side
        fits = np.maximum(sides / side, side / sides) < 1.2
        assert shift[fits].min() <= 1.2 * STRIDE / 2
    assert len(windows) < 3_000


def test_windows_of_panorama_are_not_larger_than_its_height_allows() -> None:
    sides = [window.side for window in search_windows(4000, 40)]
    assert max(sides) == pytest.approx(MARGIN * 0.8 * 80)
    assert min(sides) == pytest.approx(MARGIN * 0.1 * 40)


def test_disagreement_is_distance_to_nearest_prediction() -> None:
    shape = np.array([[0, 0], [3, 4]], np.float32)
    shifts = np.array([[0, 0], [3, 0], [10, 0], [90, 0]], np.float32)
    windows = [Crop(0, 0, side) for side in (10, 20, 5, 100)]
    disagreement = window_disagreement(shape + shifts[:, None], windows)
    # distances divided by the smaller side of both windows
    np.testing.assert_allclose(disagreement, [3 / 10, 3 / 10, 7 / 5, 87 / 20])


def test_motion_is_zero_on_object_and_that_of_displacements_elsewhere() -> None:
    crop = Crop(40, 30, 60)
    image, predictor = draw_lamps(200, 150, crop), lamp_predictor()
    on_object, elsewhere = landmark_motion(predictor, image, [crop, Crop(120, 60, 60)])
    assert on_object < 0.02
    # the mean shape moves by 0.1 of the side with four of the copies
    assert elsewhere > 0.08


# --- videos --------------------------------------------------------------------------------------


def track(places: list[Crop | None], decoys: bool = False) -> tuple[list[Landmarks], Tracker]:
    """Track the lamps at a place in each frame; None: they are not there."""
    predictor = lamp_predictor()
    tracker = Tracker(predictor, open_detector(SEARCH, predictor=predictor), smooth=False, single=True)
    away = Crop(-900, -900, 40)
    frames = [draw_lamps(160, 120, place or away, decoys) for place in places]
    return [tracker(frame, index / 25) for index, frame in enumerate(frames)], tracker


def test_tracker_searches_first_frames_and_then_follows_landmarks() -> None:
    places: list[Crop | None] = [Crop(20 + 3 * frame, 30, 40) for frame in range(12)]
    found, tracker = track(places)
    for landmarks, place in zip(found, places, strict=True):
        assert place is not None
        assert landmarks.track_ids == (0,)
        expected = MEAN_SHAPE * place.side + (place.left, place.top) - 0.5
        assert np.abs(landmarks.points[0] - expected).max() < 1
    assert tracker.detections == 2  # found and confirmed


def test_tracker_searches_again_where_object_was_lost() -> None:
    first, second = Crop(20, 30, 40), Crop(90, 50, 50)
    found, _ = track([first] * 3 + [None] * 2 + [second] * 3)
    assert [len(landmarks) for landmarks in found] == [1, 1, 1, 0, 0, 1, 1, 1]
    assert found[-1].crops is not None
    assert crop_distance(found[-1].crops[0], second) < 0.1


@pytest.mark.parametrize(("single", "tracks"), [(True, 1), (False, 2)])
def test_detection_elsewhere_starts_second_track_unless_single(single: bool, tracks: int) -> None:
    here, there = Crop(20, 30, 40), Crop(100, 60, 40)
    image = draw_lamps(160, 120, here) | draw_lamps(160, 120, there)
    detected = [here, here, there]  # found, confirmed, and something else two frames later

    def detect(_: Image) -> Detections:
        return Detections(np.array([detected.pop(0).box]), np.ones(1))

    tracker = Tracker(lamp_predictor(), detect, smooth=False, single=single, detection_interval=2)
    counts = [len(tracker(image, frame / 25)) for frame in range(4)]
    assert counts == [1, 1, 1, tracks]
    assert not detected
