"""The released models give the landmarks that they gave when they were released, in torch and in ONNX Runtime.

tests/golden/released_models.json holds the expected values: landmarks in pixels, confidences, and a hash of
the weights. They were written by version 0.1.0 and are not to be updated unless the models are retrained.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.faces import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.tasks.export import export_model
from landmarks_fastai.tasks.predict import find_faces

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "released_models.json").read_text())
MODELS = sorted(GOLDEN)


@pytest.fixture(scope="module", params=[(model, kind) for model in MODELS for kind in ("torch", "onnx")])
def released(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Predictor, dict[str, Any]]:
    name, kind = request.param
    path = ROOT / "models" / f"{name}.safetensors"
    if kind == "onnx":
        onnx = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
        export_model(path, onnx)
        path = onnx
    return Predictor.open(path, "cpu"), GOLDEN[name]


def test_released_model_on_photo_gives_golden_landmarks(
    released: tuple[Predictor, dict[str, Any]], tmp_path: Path
) -> None:
    predictor, golden = released
    photo = read_image(ROOT / "docs" / "astronaut.jpg")
    found = find_faces(predictor, photo, open_detector("centerface", tmp_path))
    np.testing.assert_allclose(found.points, golden["photo"]["points"], rtol=0, atol=0.05)
    np.testing.assert_allclose(found.confidence, golden["photo"]["confidence"], rtol=0, atol=0.005)


def test_released_model_on_synthetic_faces_gives_golden_landmarks(
    released: tuple[Predictor, dict[str, Any]],
) -> None:
    predictor, golden = released
    found = predictor.predict_crops(draw_faces(8, seed=2026).images)
    np.testing.assert_allclose(found.points, golden["synthetic"]["points"], rtol=0, atol=0.05)
    np.testing.assert_allclose(found.confidence, golden["synthetic"]["confidence"], rtol=0, atol=0.005)


@pytest.mark.parametrize("name", MODELS)
def test_released_weights_are_unchanged(name: str) -> None:
    tensors = load_file(ROOT / "models" / f"{name}.safetensors")
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + str(tensors[key].dtype).encode() + tensors[key].tobytes())
    assert digest.hexdigest() == GOLDEN[name]["weights_sha256"]
