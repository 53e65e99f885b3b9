"""Ensembles: several models behave like one, with inverse-variance weighting of their predictions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import make_header
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.inference.averaging import average_landmarks
from landmarks_fastai.inference.ensemble import Ensemble, open_predictors
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.networks.build import build_network
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import schema_from_names

EYES = schema_from_names("eyes", ["left_eye", "right_eye"])
Floats = NDArray[np.float32]
SaveModel = Callable[[str, int, LandmarkSchema], Path]


def constant_predictor(
    positions: list[list[float]], scales: list[float] | None, size: int, channels: int = 3, **fields: object
) -> Predictor:
    """Return a model that predicts the same positions in every crop, as fractions of its side."""

    def backend(crops: NDArray[np.uint8]) -> tuple[Floats, ...]:
        assert crops.shape[1:] == (size, size, channels)
        points = np.tile(np.array(positions, np.float32) * size - 0.5, (len(crops), 1, 1))
        if scales is None:
            return (points,)
        return points, np.tile(np.array(scales, np.float32) * size, (len(crops), 1))

    return Predictor(make_header(size, EYES, channels, **fields), backend)


def test_ensemble_weights_landmarks_by_inverse_variance() -> None:
    # the weights 1 / 0.01² and 1 / 0.02² are 4 to 1 for the first landmark
    ensemble = Ensemble(
        [
            constant_predictor([[0.2, 0.3], [0.6, 0.3]], [0.01, 0.03], 32),
            constant_predictor([[0.3, 0.5], [0.7, 0.5]], [0.02, 0.03], 48, channels=1),
        ]
    )
    image = np.zeros((100, 100, 3), np.uint8)
    predicted = ensemble.predict(image)
    np.testing.assert_allclose(predicted.points[0], [[21.5, 33.5], [64.5, 39.5]], atol=1e-4)
    # the scale of the mean: (4 · 1 + 1 · 2) / 5 = 1.2 px and 3 px
    np.testing.assert_allclose(predicted.scales[0], [1.2, 3.0], rtol=1e-5)
    np.testing.assert_allclose(
        predicted.confidence[0, 0], math.erf(2.5 / (1.2 * math.sqrt(math.pi))) ** 2, rtol=1e-5
    )
    for other in (ensemble.predict_crops(image, [Crop(0, 0, 100)]), ensemble.predict_batch(image[None])):
        np.testing.assert_array_equal(other.points, predicted.points)
        assert other.crops == predicted.crops == (Crop(0, 0, 100),)
    assert ensemble.schema == EYES
    assert ensemble.name == "mean of 2 models"


def test_ensemble_with_model_without_confidence_is_unweighted() -> None:
    ensemble = Ensemble(
        [
            constant_predictor([[0.2, 0.3], [0.6, 0.3]], [0.01, 0.03], 32),
            constant_predictor([[0.4, 0.3], [0.6, 0.7]], None, 32),
        ]
    )
    predicted = ensemble.predict(np.zeros((100, 100, 3), np.uint8))
    np.testing.assert_allclose(predicted.points[0], [[29.5, 29.5], [59.5, 49.5]], atol=1e-4)
    assert np.isnan(predicted.confidence).all()


def test_ensemble_of_equal_models_with_flip_equals_model() -> None:
    model = constant_predictor([[0.2, 0.3], [0.6, 0.3]], [0.01, 0.03], 32)
    image = np.zeros((64, 64, 3), np.uint8)
    single, ensemble = model.predict(image, flip=True), Ensemble([model, model]).predict(image, flip=True)
    np.testing.assert_allclose(ensemble.points, single.points, atol=1e-4)
    np.testing.assert_allclose(ensemble.scales, single.scales, rtol=1e-5)


def test_ensemble_refuses_batch_that_is_not_square() -> None:
    model = constant_predictor([[0.2, 0.3], [0.6, 0.3]], [0.01, 0.03], 32)
    with pytest.raises(UserError, match=r"images must be \(N, S, S, C\)"):
        Ensemble([model, model]).predict_batch(np.zeros((1, 9, 64, 3), np.uint8))


def test_ensemble_refines_with_mean_of_mean_shapes() -> None:
    shapes: list[list[tuple[float, float]]] = [[(0.7, 0.4), (0.3, 0.4)], [(0.7, 0.5), (0.3, 0.5)]]
    members = [
        constant_predictor([[0.6, 0.5], [0.4, 0.5]], [0.01, 0.01], 32, mean_shape=shape) for shape in shapes
    ]
    ensemble = Ensemble(members)
    assert np.allclose(ensemble.header.mean_shape or [], [(0.7, 0.45), (0.3, 0.45)])
    predicted = ensemble.predict(np.zeros((100, 100, 3), np.uint8), [(20, 20, 80, 80)], refine=1)
    # the eyes, 0.2 of 60 px apart, are 0.4 of the side apart and 0.45 of it down in a crop of 30 px
    assert predicted.crops is not None
    np.testing.assert_allclose(predicted.crops[0].box, (35, 36.5, 65, 66.5), atol=0.01)
    with pytest.raises(UserError, match="no mean shape"):
        Ensemble([members[0], constant_predictor([[0, 0], [1, 1]], None, 32)]).predict(
            np.zeros((9, 9, 3), np.uint8), refine=1
        )


@pytest.fixture
def save_random_model(tmp_path: Path) -> SaveModel:
    """Return a function that saves a small model with random weights as NAME/model.safetensors."""

    def save(name: str, channels: int, schema: LandmarkSchema) -> Path:
        torch.manual_seed(channels)
        head = {"name": "soft-argmax", "width": 8, "scales": True}
        network = build_network("resnet18", head, len(schema), channels)
        header = make_header(32, schema, channels, arch="resnet18", head=head)
        path = tmp_path / name / "model.safetensors"
        save_model(path, network.state_dict(), header)
        return path

    return save


def test_open_predictors_of_two_files_averages_them(save_random_model: SaveModel) -> None:
    gray, color = save_random_model("gray", 1, EYES), save_random_model("color", 3, EYES)
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    single = [Predictor.open(path, "cpu").predict(image) for path in (gray, color)]
    ensemble = open_predictors([gray, color], "cpu").predict(image)
    np.testing.assert_array_equal(ensemble.points, average_landmarks(single).points)


def test_open_predictors_of_one_file_is_not_an_ensemble(save_random_model: SaveModel) -> None:
    gray = save_random_model("gray", 1, EYES)
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    predictor = open_predictors([gray], "cpu")
    assert not isinstance(predictor, Ensemble)
    expected = Predictor.open(gray, "cpu").predict(image)
    np.testing.assert_array_equal(predictor.predict(image).points, expected.points)


def test_open_predictors_with_different_landmarks_is_refused(save_random_model: SaveModel) -> None:
    eyes = save_random_model("gray", 1, EYES)
    ears = save_random_model("other", 1, LandmarkSchema("ears", ("left_ear", "right_ear")))
    with pytest.raises(UserError, match=r"other.model\.safetensors .* ears, but .*gray.* eyes; only models"):
        open_predictors([eyes, ears], "cpu")


def test_ensemble_with_one_synthetic_model_is_synthetic() -> None:
    real = constant_predictor([[0.2, 0.3], [0.6, 0.3]], None, 32, config={"data": {"source": "faces.zip"}})
    synthetic = constant_predictor(
        [[0.2, 0.3], [0.6, 0.3]], None, 32, config={"data": {"source": "synthetic"}}
    )
    assert not Ensemble([real, real]).synthetic
    assert Ensemble([real, synthetic]).synthetic
