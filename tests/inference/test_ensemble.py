"""Several models answer as one, wherever one does, and the surer of a point counts for more."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.framing import Square
from landmarks_fastai.inference.ensemble import Ensemble, mean_landmarks, open_models
from landmarks_fastai.inference.modelfile import ModelHeader, save_model
from landmarks_fastai.inference.predictor import Landmarks, Predictor
from landmarks_fastai.network import build_network
from landmarks_fastai.schema import Schema, schema_from_names

EYES = schema_from_names("eyes", ["left_eye", "right_eye"])
Floats = NDArray[np.float32]


def make_header(size: int, channels: int = 3, **more: object) -> ModelHeader:
    return ModelHeader.model_validate(
        {
            "arch": "a",
            "head": {},
            "channels": channels,
            "input_size": size,
            "mean": [0.5] * channels,
            "std": [0.5] * channels,
            "schema": EYES,
            **more,
        }
    )


def always(
    places: list[list[float]], scales: list[float] | None, size: int, channels: int = 3, **more: object
) -> Predictor:
    """Make a model that answers the same for every face: shares of its input's side."""

    def answer(crops: NDArray[np.uint8]) -> tuple[Floats, ...]:
        assert crops.shape[1:] == (size, size, channels)
        points = np.tile(np.array(places, np.float32) * size - 0.5, (len(crops), 1, 1))
        if scales is None:
            return (points,)
        return points, np.tile(np.array(scales, np.float32) * size, (len(crops), 1))

    return Predictor(make_header(size, channels, **more), answer)


def found(points: Floats, scales: Floats) -> Landmarks:
    return Landmarks(points, scales, (Square(0, 0, 96),) * len(points))


def test_by_hand() -> None:
    # weights 1 / 0.01² and 1 / 0.02² are 4 to 1; the second point is as sure in both
    one = always([[0.2, 0.3], [0.6, 0.3]], [0.01, 0.03], 32)
    other = always([[0.3, 0.5], [0.7, 0.5]], [0.02, 0.03], 48, channels=1)
    both = Ensemble([one, other])
    image = np.zeros((100, 100, 3), np.uint8)
    answer = both.predict(image)
    np.testing.assert_allclose(answer.points[0], [[21.5, 33.5], [64.5, 39.5]], atol=1e-4)
    # the mean's scale: (4 · 1 + 1 · 2) / 5 = 1.2 px and 3 px
    np.testing.assert_allclose(answer.scales[0], [1.2, 3.0], rtol=1e-5)
    np.testing.assert_allclose(
        answer.confidence[0, 0], math.erf(2.5 / (1.2 * math.sqrt(math.pi))) ** 2, rtol=1e-5
    )
    for again in (both.predict_squares(image, [Square(0, 0, 100)]), both.predict_crops(image[None])):
        np.testing.assert_array_equal(again.points, answer.points)
        assert again.squares == answer.squares == (Square(0, 0, 100),)
    assert both.schema == EYES
    assert both.name == "mean of 2 models"


def test_where_one_knows_no_scale_all_count_alike() -> None:
    places = [[0.2, 0.3], [0.6, 0.3]]
    both = Ensemble([always(places, [0.01, 0.03], 32), always([[0.4, 0.3], [0.6, 0.7]], None, 32)])
    answer = both.predict(np.zeros((100, 100, 3), np.uint8))
    np.testing.assert_allclose(answer.points[0], [[29.5, 29.5], [59.5, 49.5]], atol=1e-4)
    assert np.isnan(answer.confidence).all()


def test_mirrored_too() -> None:
    one = always([[0.2, 0.3], [0.6, 0.3]], [0.01, 0.03], 32)
    image = np.zeros((64, 64, 3), np.uint8)
    alone, twice = one.predict(image, flip=True), Ensemble([one, one]).predict(image, flip=True)
    np.testing.assert_allclose(twice.points, alone.points, atol=1e-4)
    np.testing.assert_allclose(twice.scales, alone.scales, rtol=1e-5)
    with pytest.raises(UserError, match="face images must be"):
        Ensemble([one, one]).predict_crops(image[None, :9])


def test_all_refine_by_the_mean_of_their_mean_faces() -> None:
    faces: list[list[tuple[float, float]]] = [[(0.7, 0.4), (0.3, 0.4)], [(0.7, 0.5), (0.3, 0.5)]]
    members = [always([[0.6, 0.5], [0.4, 0.5]], [0.01, 0.01], 32, mean_face=face) for face in faces]
    both = Ensemble(members)
    assert np.allclose(both.header.mean_face or [], [(0.7, 0.45), (0.3, 0.45)])
    answer = both.predict(np.zeros((100, 100, 3), np.uint8), [(20, 20, 80, 80)], refine=1)
    # eyes 0.2 of 60 px apart shall be 0.4 of the side apart, and 0.45 of it down: a square of 30 px
    np.testing.assert_allclose(answer.squares[0].edges, (35, 36.5, 65, 66.5), atol=0.01)
    with pytest.raises(UserError, match="no mean face"):
        Ensemble([members[0], always([[0, 0], [1, 1]], None, 32)]).predict(
            np.zeros((9, 9, 3), np.uint8), refine=1
        )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_a_mean_lies_between_and_ignores_the_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    members = [
        found(
            rng.uniform(0, 96, (3, 5, 2)).astype(np.float32), rng.uniform(0.2, 9, (3, 5)).astype(np.float32)
        )
        for _ in range(count)
    ]
    mean, other = mean_landmarks(members), mean_landmarks(members[::-1])
    np.testing.assert_allclose(mean.points, other.points, rtol=1e-5)
    for part, each in (("points", mean.points), ("scales", mean.scales)):
        whole = np.stack([getattr(one, part) for one in members])
        assert (each >= whole.min(0) - 1e-4).all()
        assert (each <= whole.max(0) + 1e-4).all()
    assert mean.points.dtype == mean.scales.dtype == np.float32


def test_surer_models_are_worth_more_than_a_plain_mean() -> None:
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(size=(3, 500, 4))).astype(np.float32)
    errors = (rng.laplace(size=(3, 500, 4, 2)) * scales[..., None]).astype(np.float32)
    mean = mean_landmarks([found(*one) for one in zip(errors, scales, strict=True)])
    weighted, plain = np.abs(mean.points).mean(), np.abs(errors.mean(0)).mean()
    assert weighted < 0.7 * plain
    # these err independently, and so less than the mean's scale says
    assert weighted < mean.scales.mean()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, int, Schema], Path]:
    def save(name: str, channels: int, schema: Schema) -> Path:
        torch.manual_seed(channels)
        head = {"name": "soft-argmax", "width": 8, "scales": True}
        network = build_network("resnet18", head, len(schema), channels)
        header = make_header(32, channels, arch="resnet18", head=head, schema=schema)
        path = tmp_path / name / "model.safetensors"
        save_model(path, network.state_dict(), header)
        return path

    return save


def test_files_of_one_schema_are_opened_together(saved: Callable[[str, int, Schema], Path]) -> None:
    gray, colour = saved("gray", 1, EYES), saved("colour", 3, EYES)
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    alone = [Predictor.open(path, "cpu").predict(image) for path in (gray, colour)]
    together = open_models([gray, colour], "cpu").predict(image)
    np.testing.assert_array_equal(together.points, mean_landmarks(alone).points)
    single = open_models([gray], "cpu")
    assert not isinstance(single, Ensemble)
    np.testing.assert_array_equal(single.predict(image).points, alone[0].points)
    other = saved("other", 1, Schema("ears", ("left_ear", "right_ear")))
    with pytest.raises(UserError, match=r"other.model\.safetensors .* ears, and .*gray.* eyes"):
        open_models([gray, other], "cpu")
