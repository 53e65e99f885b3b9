"""The released models predict the same landmarks as in version 0.1.0, in torch and in ONNX Runtime.

tests/golden/released_models.json holds the expected landmarks in pixels, their confidences, and a hash of the
weights, written by version 0.1.0. The file must not be updated unless the models are trained again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from landmarks_fastai.commands.export import export_model
from landmarks_fastai.commands.predict import predict_faces
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.utils.images import read_image

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "released_models.json").read_text())
MODELS = sorted(GOLDEN)


@pytest.fixture(
    scope="module", params=[(model, runtime) for model in MODELS for runtime in ("torch", "onnx")]
)
def released(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Predictor, dict[str, Any]]:
    """Return a released model, as safetensors or exported to ONNX, and its expected values."""
    name, runtime = request.param
    path = ROOT / "models" / f"{name}.safetensors"
    if runtime == "onnx":
        onnx_path = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
        export_model(path, onnx_path)
        path = onnx_path
    return Predictor.open(path, "cpu"), GOLDEN[name]


def test_released_model_predicts_golden_landmarks_of_photo(
    released: tuple[Predictor, dict[str, Any]], tmp_path: Path
) -> None:
    predictor, golden = released
    photo = read_image(ROOT / "docs" / "astronaut.jpg")
    predicted = predict_faces(predictor, photo, open_detector("centerface", tmp_path), refine=1)
    np.testing.assert_allclose(predicted.points, golden["photo"]["points"], rtol=0, atol=0.05)
    np.testing.assert_allclose(predicted.confidence, golden["photo"]["confidence"], rtol=0, atol=0.005)


def test_released_model_predicts_photo_without_second_pass_nearly_as_before(
    released: tuple[Predictor, dict[str, Any]], tmp_path: Path
) -> None:
    predictor, golden = released
    photo = read_image(ROOT / "docs" / "astronaut.jpg")
    predicted = predict_faces(predictor, photo, open_detector("centerface", tmp_path))
    assert predicted.crops is not None
    limit = 0.005 * predicted.crops[0].side  # the mean error of the models is 1 % of the side
    np.testing.assert_allclose(predicted.points, golden["photo"]["points"], rtol=0, atol=limit)


def test_released_model_predicts_golden_landmarks_of_synthetic_faces(
    released: tuple[Predictor, dict[str, Any]],
) -> None:
    predictor, golden = released
    predicted = predictor.predict_batch(draw_synthetic_faces(8, seed=2026).images)
    np.testing.assert_allclose(predicted.points, golden["synthetic"]["points"], rtol=0, atol=0.05)
    np.testing.assert_allclose(predicted.confidence, golden["synthetic"]["confidence"], rtol=0, atol=0.005)


@pytest.mark.parametrize("name", MODELS)
def test_released_weights_are_unchanged(name: str) -> None:
    tensors = load_file(ROOT / "models" / f"{name}.safetensors")
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + str(tensors[key].dtype).encode() + tensors[key].tobytes())
    assert digest.hexdigest() == GOLDEN[name]["weights_sha256"]
