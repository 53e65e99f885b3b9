"""Several images at a time: the same predictions, in the same order, as one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from landmarks_fastai.commands.prediction_pipeline import (
    ImagePredictor,
    Prediction,
    Source,
    predict_sources,
)
from landmarks_fastai.data.box_files import ImageBox
from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop, center_crop
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema

ROOT = Path(__file__).parents[2]
DOT = LandmarkSchema("dot", ("dot",))


class FakePredictor:
    """Stand-in for `Predictor` that takes longer for dark images; the landmark is at the gray level."""

    def predict_crops(self, image: NDArray[np.uint8], crops: Sequence[Crop], refine: int) -> Landmarks:
        gray = float(image[0, 0, 0])
        time.sleep(0.01 if gray < 5 else 0)
        points = np.full((len(crops), 1, 2), gray, np.float32)
        known = np.full((len(crops), 1), 0.9, np.float32)
        return Landmarks(points, DOT, known, known, tuple(crops))


def gray_image(level: int) -> tuple[NDArray[np.uint8], int | None]:
    return np.full((8, 12, 3), level, np.uint8), 10 if level == 3 else None


def unreadable(path: Path) -> tuple[NDArray[np.uint8], int | None]:
    raise UserError(f"{path}: damaged")


def fake_pipeline() -> ImagePredictor:
    predictor: Any = FakePredictor()
    detector: Any = lambda image: SimpleNamespace(crops=[Crop(0, 0, 8)])  # noqa: E731
    return ImagePredictor(predictor, detector, refine=0, min_confidence=0.5)


def gray_sources(count: int) -> Iterator[Source]:
    for level in range(count):
        yield Source(Path(f"{level}.png"), partial(gray_image, level))


def as_bytes(predictions: Sequence[Prediction]) -> list[tuple[Any, ...]]:
    """Return everything in the predictions as values that can be compared."""
    return [
        (
            one.path,
            one.size,
            one.notes,
            tuple(map(str, one.errors)),
            None if one.drawing is None else bytes(one.drawing),
            None
            if one.landmarks is None
            else (
                one.landmarks.points.tobytes(),
                one.landmarks.confidence.tobytes(),
                one.landmarks.scales.tobytes(),
                one.landmarks.crops,
            ),
        )
        for one in predictions
    ]


def test_predictions_in_threads_are_those_of_one_thread_bit_for_bit() -> None:
    predictor = Predictor.open(ROOT / "models" / "resnet18.safetensors", "cpu")

    def detect(image: NDArray[np.uint8]) -> Any:
        return SimpleNamespace(crops=[center_crop(image.shape[1], image.shape[0])])

    pipeline = ImagePredictor(predictor, detect, refine=1)
    photos = [draw_synthetic_photo(seed, (120 + 8 * seed, 100))[0] for seed in range(6)]
    sources = [
        Source(Path(f"{index}.png"), partial(lambda photo: (photo, None), photo))
        for index, photo in enumerate(photos)
    ]
    expected = as_bytes([pipeline(source) for source in sources])
    assert len(set(expected)) == len(photos)
    for threads in (1, 3):
        assert as_bytes(list(predict_sources(pipeline, sources, threads=threads))) == expected


def test_predictions_are_in_order_with_one_error_for_each_bad_file() -> None:
    sources = list(gray_sources(30))
    for index in (0, 7, 8, 29):
        sources[index] = Source(Path(f"{index}.png"), partial(unreadable, Path(f"{index}.png")))
    predictions = list(predict_sources(fake_pipeline(), sources, threads=4))
    assert [one.path for one in predictions] == [source.path for source in sources]
    for index, one in enumerate(predictions):
        if index in (0, 7, 8, 29):
            assert one.landmarks is None
            assert list(map(str, one.errors)) == [f"{index}.png: damaged"]
        else:
            assert one.landmarks is not None
            assert (one.landmarks.points == index).all()
            assert one.size == (12, 8)
            assert one.drawing is not None
    assert [one.notes for one in predictions if one.notes] == [
        ("3.png: 16 bits per level, of which 10 are in use; 1023 is shown as white",)
    ]


def test_image_with_boxes_is_not_detected_and_bad_boxes_are_reported() -> None:
    good = ImageBox("0.png", (1.0, 1.0, 5.0, 5.0), "line 2")
    bad = ImageBox("0.png", (500.0, 1.0, 505.0, 5.0), "line 3")
    sources = [Source(Path("0.png"), partial(gray_image, 9), boxes) for boxes in ([good, bad], [bad])]
    some, none = predict_sources(fake_pipeline(), sources, threads=2)
    assert some.landmarks is not None
    assert some.landmarks.crops == (Crop(1.0, 1.0, 4.0),)
    assert none.landmarks is None
    assert none.drawing is None
    for one in (some, none):
        assert [str(error).partition(": box")[0] for error in one.errors] == ["0.png: line 3"]


def test_sources_are_taken_only_shortly_before_they_are_needed() -> None:
    taken = 0

    def sources() -> Iterator[Source]:
        nonlocal taken
        for source in gray_sources(40):
            taken += 1
            yield source

    for done, _ in enumerate(predict_sources(fake_pipeline(), sources(), threads=2)):
        assert taken <= done + 1 + 2 * 2


def test_internal_error_ends_the_pipeline_after_the_images_before() -> None:
    def fail() -> Any:
        raise ZeroDivisionError

    sources = list(gray_sources(9))
    sources[4] = Source(Path("4.png"), fail)
    predictions = predict_sources(fake_pipeline(), sources, threads=3)
    assert [next(predictions).path.stem for _ in range(4)] == ["0", "1", "2", "3"]
    with pytest.raises(ZeroDivisionError):
        next(predictions)
