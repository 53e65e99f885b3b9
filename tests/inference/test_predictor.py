"""Predictors: landmarks in pixels of the image, whatever crop was extracted and however it was scaled."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import make_header
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import ROLL_TOLERANCE, Crop
from landmarks_fastai.inference.backends import resolve_device, torch_backend
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import schema_from_names

SPOT = LandmarkSchema("spot", ("center",))
EYES = schema_from_names("eyes", ["left_eye", "right_eye"])
TRIANGLE = schema_from_names("triangle", ["left_eye", "right_eye", "chin"])
MEAN_SHAPE = np.array([[0.7, 0.3], [0.3, 0.3], [0.5, 0.8]])

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


def centroid_backend(crops: Image) -> tuple[Floats]:
    """Return the centroid of the light in each crop: a network with exact predictions."""
    light = np.maximum(crops.astype(np.float64).mean(3) - 12, 0)
    y, x = np.indices(light.shape[1:])
    total = light.sum((1, 2))
    points = np.stack([(light * x).sum((1, 2)) / total, (light * y).sum((1, 2)) / total], 1)
    return (points[:, None].astype(np.float32),)


def draw_spot(width: int, height: int, x: float, y: float, sigma: float) -> Image:
    """Draw a Gaussian spot centered at (x, y) on black."""
    rows, columns = np.indices((height, width))
    light = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(255 * light).astype(np.uint8)[:, :, None], 3, 2)


def spot_predictor(size: int, channels: int = 3) -> Predictor:
    """Return a model that locates a spot."""
    return Predictor(make_header(size, SPOT, channels), centroid_backend)


# --- coordinates ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([32, 63, 96]),
    scale=st.floats(0.5, 4),
    margins=st.tuples(*[st.floats(-0.4, 0.12)] * 4),
    position=st.tuples(st.floats(0.4, 0.6), st.floats(0.4, 0.6)),
    aspect=st.floats(0.5, 2),
    channels=st.sampled_from([1, 3]),
    flip=st.booleans(),
)
def test_predictor_locates_spot_in_any_box(
    size: int,
    scale: float,
    margins: tuple[float, float, float, float],
    position: tuple[float, float],
    aspect: float,
    channels: int,
    flip: bool,
) -> None:
    side = size * scale
    # each edge of the crop is inside the image or up to an eighth of the side outside it; farther out, the
    # repeated edge of the image would include the spot
    left, top = -margins[0] * side, -margins[1] * side
    width, height = int(left + side - margins[2] * side), int(top + side - margins[3] * side)
    x, y = left + position[0] * side - 0.5, top + position[1] * side - 0.5
    image = draw_spot(width, height, x, y, sigma=max(0.04 * side, 1))
    # a box with another aspect ratio but the same center and longer side has the same crop
    inset = side * (1 - min(aspect, 1 / aspect)) / 2
    dx, dy = (inset, 0) if aspect < 1 else (0, inset)
    box = (left + dx, top + dy, left + side - dx, top + side - dy)

    schema = LandmarkSchema("pair", ("a", "b"), flip_pairs=(("a", "b"),)) if flip else SPOT
    predictor = Predictor(
        make_header(size, schema, channels),
        lambda crops: (np.repeat(centroid_backend(crops)[0], len(schema), 1),),
    )
    predicted = predictor.predict(image, [box], flip=flip).points
    assert predicted.shape == (1, len(schema), 2)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted[0, 0], (x, y), atol=0.1 * max(scale, 1))


@pytest.mark.parametrize(("width", "height"), [(301, 200), (200, 301), (90, 90)])
def test_predictor_without_boxes_uses_center_crop(width: int, height: int) -> None:
    image = draw_spot(width, height, width / 2 + 3.25, height / 2 - 7.5, sigma=8)
    predicted = spot_predictor(64).predict(image).points
    np.testing.assert_allclose(predicted[0, 0], (width / 2 + 3.25, height / 2 - 7.5), atol=0.1)
    # pixels farther outside the center crop than the filter reaches have no effect
    image[:, : max(width - height - 10, 0) // 2] = image[: max(height - width - 10, 0) // 2] = 255
    np.testing.assert_array_equal(spot_predictor(64).predict(image).points, predicted)


def test_predictor_keeps_order_of_many_faces() -> None:
    positions = [(20 + 37.5 * i, 30 + 11.25 * i) for i in range(150)]
    image = np.zeros((1800, 5700, 3), np.uint8)
    for x, y in positions:
        left, top = int(x) - 15, int(y) - 15
        region = image[max(top, 0) : top + 32, max(left, 0) : left + 32]
        np.maximum(region, draw_spot(32, 32, x - left, y - top, 2), out=region)
    boxes = [(x - 14, y - 14, x + 15, y + 15) for x, y in positions]
    predicted = spot_predictor(32).predict(image, boxes).points
    np.testing.assert_allclose(predicted[:, 0], positions, atol=0.1)


@pytest.mark.parametrize("size", [48, 96, 131])
@pytest.mark.parametrize("channels", [1, 3])
def test_predict_batch_locates_spot_in_gray_and_color_images(size: int, channels: int) -> None:
    positions = [(30.25 + 5 * i, 60 - 3.5 * i) for i in range(7)]
    images = np.stack([draw_spot(96, 96, x, y, 4) for x, y in positions])
    predictor = spot_predictor(size, channels)
    for batch in (images, images[..., :1]):
        np.testing.assert_allclose(
            predictor.predict_batch(batch, batch_size=3).points[:, 0], positions, atol=0.1
        )


@pytest.mark.parametrize("size", [48, 96, 131])
@pytest.mark.parametrize("channels", [1, 3])
def test_predict_batch_equals_predict_of_whole_image(size: int, channels: int) -> None:
    image, predictor = draw_spot(96, 96, 30.25, 60, 4), spot_predictor(size, channels)
    single, batch = predictor.predict(image), predictor.predict_batch(image[None])
    np.testing.assert_array_equal(single.points, batch.points)
    assert single.crops == batch.crops == (Crop(0, 0, 96),)


def test_predictor_without_faces_returns_no_landmarks() -> None:
    predictor = spot_predictor(8)
    assert predictor.predict(np.zeros((9, 9, 3), np.uint8), np.empty((0, 4))).points.shape == (0, 1, 2)
    assert predictor.predict_batch(np.empty((0, 8, 8, 3), np.uint8)).points.shape == (0, 1, 2)


# --- backends ------------------------------------------------------------------------------------


class ChannelMeans(nn.Module):
    """Predicts three landmarks with x = 0.5 and the mean of each channel as y."""

    def forward(self, image: Tensor) -> Tensor:
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert not self.training
        assert torch.is_inference(image)
        means = image.mean((2, 3))
        return torch.stack([torch.full_like(means, 0.5), means], 2)


def test_torch_backend_normalizes_channels_and_returns_pixels() -> None:
    schema = LandmarkSchema("rgb", ("r", "g", "b"))
    header = make_header(10, schema, mean=[0.2, 0.4, 0.5], std=[1, 2, 0.5])
    (points,) = torch_backend(ChannelMeans(), header, "cpu")(
        np.full((2, 10, 10, 3), (51, 153, 255), np.uint8)
    )
    normalized = np.array([(0.2 - 0.2) / 1, (0.6 - 0.4) / 2, (1 - 0.5) / 0.5])
    np.testing.assert_allclose(points[1, :, 1], (normalized + 1) * 5 - 0.5, atol=1e-5)
    # 0.5 is at three quarters of the width
    np.testing.assert_allclose(points[1, :, 0], 7.0, atol=1e-5)


def test_device_is_resolved_or_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cuda:0", "mps", "cpu")
    with pytest.raises(UserError, match=r"--device cuda:77: not available; .*cpu"):
        resolve_device("cuda:77")


def test_opened_model_predicts_output_of_network(model_path: Path, network: nn.Module) -> None:
    predictor = Predictor.open(model_path.parent, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (predictor.header.mean, predictor.header.std)
    )
    with torch.inference_mode():
        normalized = network((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    expected = (normalized.numpy() + 1) / 2 * 64 - 0.5
    predicted = predictor.predict_batch(images, batch_size=2).points
    np.testing.assert_allclose(predicted, expected, atol=1e-3)


# --- flip and confidence -------------------------------------------------------------------------


def constant_backend(crops: Image) -> tuple[Floats, Floats]:
    """Predict the same two landmarks in every crop."""
    points = np.tile(np.array([[[6, 3], [1, 5]]], np.float32), (len(crops), 1, 1))
    return points, np.tile(np.array([[0.1, 0.3]], np.float32), (len(crops), 1))


def test_flip_averages_points_and_scales_with_mirrored_crop() -> None:
    predictor = Predictor(make_header(10, EYES), constant_backend)
    image = np.zeros((10, 10, 3), np.uint8)
    # in the mirrored crop, the left eye is the mirrored right one: 9 - 1 = 8, and 9 - 6 = 3
    assert predictor.predict(image, flip=True).points.tolist() == [[[7, 4], [2, 4]]]
    assert predictor.predict_batch(image[None], flip=True).points.tolist() == [[[7, 4], [2, 4]]]
    assert predictor.predict(image).points.tolist() == [[[6, 3], [1, 5]]]
    # each scale is (0.1 + 0.3) / 2, and the confidence radius is 2.5 % of 10 px
    confidence = math.erf(0.25 / (0.2 * math.sqrt(math.pi))) ** 2
    np.testing.assert_allclose(
        predictor.predict(image, flip=True).confidence, [[confidence, confidence]], rtol=1e-5
    )


def test_flip_without_flip_pairs_is_refused() -> None:
    with pytest.raises(UserError, match="schema spot has no flip pairs"):
        spot_predictor(8).predict(np.zeros((9, 9, 3), np.uint8), flip=True)


def test_confidence_equals_observed_frequency_in_pixels_of_image() -> None:
    scale = 1.7  # pixels of a 100 px crop, which the network sees in 50 px

    def backend(crops: Image) -> tuple[Floats, Floats]:
        return np.zeros((len(crops), 1, 2), np.float32), np.full((len(crops), 1), scale / 2, np.float32)

    predicted = Predictor(make_header(50, SPOT), backend).predict(np.zeros((100, 100, 3), np.uint8))
    error = np.random.default_rng(0).normal(size=(200_000, 2))
    error *= scale / np.abs(error).mean()
    assert predicted.confidence[0, 0] == pytest.approx((np.abs(error) < 2.5).all(axis=1).mean(), abs=0.005)


def test_confidence_of_model_without_scales_is_nan() -> None:
    predicted = spot_predictor(8).predict(draw_spot(9, 9, 4, 4, 1))
    assert np.isnan(predicted.confidence).all()


# --- refinement ----------------------------------------------------------------------------------


def triangle_header(size: int) -> ModelHeader:
    """Return the header of a model with a mean shape."""
    return make_header(size, TRIANGLE, mean_shape=MEAN_SHAPE.tolist())


def color_backend(crops: Image) -> tuple[Floats]:
    """Locate a red, a green and a blue spot, with an error of a third of the way to the mean shape."""
    spots = [centroid_backend(np.repeat(crops[..., c : c + 1], 3, 3))[0] for c in range(3)]
    expected = MEAN_SHAPE * crops.shape[1] - 0.5
    return ((2 / 3 * np.concatenate(spots, 1) + 1 / 3 * expected).astype(np.float32),)


def draw_color_spots(width: int, height: int, points: NDArray[np.floating]) -> Image:
    """Draw a red, a green and a blue spot."""
    return np.stack([draw_spot(width, height, *point, 4)[..., 0] for point in points], 2)


def test_refinement_converges_to_training_crop() -> None:
    crop = Crop(40.0, 25.0, 100.0)
    points = MEAN_SHAPE * crop.side + (crop.left, crop.top) - 0.5
    image = draw_color_spots(220, 180, points)
    predictor = Predictor(triangle_header(64), color_backend)
    passes = [predictor.predict(image, [(10, 10, 190, 190)], refine=refine) for refine in range(4)]
    errors = [np.abs(predicted.points[0] - points).max() for predicted in passes]
    assert errors[0] > 4
    for before, after in pairwise(errors):
        assert after < 0.5 * before + 0.05
    assert passes[-1].crops is not None
    np.testing.assert_allclose(passes[-1].crops[0].box, crop.box, atol=3)


def test_refinement_rotates_crop_with_tilted_face() -> None:
    roll = math.degrees(0.9)
    crop = Crop(60.0, 50.0, 90.0, roll)
    points = crop.to_image((MEAN_SHAPE * 64 - 0.5).astype(np.float32), 64)
    image = draw_color_spots(220, 200, points)
    predictor = Predictor(triangle_header(64), color_backend)
    first = predictor.predict(image, [crop.box])
    refined = predictor.predict(image, [crop.box], refine=5)
    assert first.crops is not None
    assert refined.crops is not None
    assert first.crops[0].roll == 0
    # the model underestimates the remaining roll by a third, so the crop stops where two thirds of it are
    # within `ROLL_TOLERANCE`
    expected = roll - 1.5 * ROLL_TOLERANCE
    assert refined.crops[0].roll == pytest.approx(expected, abs=math.degrees(0.02))
    assert np.abs(refined.points[0] - points).max() < np.abs(first.points[0] - points).max() / 2


def test_refinement_weights_passes_by_inverse_variance() -> None:
    passes: list[Image] = []

    def backend(crops: Image) -> tuple[Floats, Floats]:
        """Err by 6 px with a large scale in the first pass, and by -1 px with a small one in the second."""
        error, scale = [(6.0, 2.0), (-1.0, 0.5)][len(passes)]
        passes.append(crops)
        points = MEAN_SHAPE[None] * 60 - 0.5 + (error, 0)
        return points.astype(np.float32), np.full((1, 3), scale, np.float32)

    predictor = Predictor(triangle_header(60), backend)
    predicted = predictor.predict_crops(np.zeros((60, 60, 3), np.uint8), [Crop(0, 0, 60)], refine=1)
    # the second crop is 6 px farther to the right, and so are the points predicted in it
    expected = MEAN_SHAPE * 60 - 0.5 + ((6.0 / 2.0**2 + 5.0 / 0.5**2) / (1 / 2.0**2 + 1 / 0.5**2), 0)
    np.testing.assert_allclose(predicted.points[0], expected, atol=1e-4)
    assert predicted.crops is not None
    np.testing.assert_allclose(predicted.crops[0].box, (6, 0, 66, 60), atol=1e-4)


def test_refinement_leaves_pass_with_dissimilar_crop_out_of_average() -> None:
    passes: list[Image] = []

    def backend(crops: Image) -> tuple[Floats, Floats]:
        """Err by 30 px, half a crop, then by 4 px and by -1 px, each time with another scale."""
        error, scale = [(30.0, 1.0), (4.0, 2.0), (-1.0, 0.5)][len(passes)]
        passes.append(crops)
        points = MEAN_SHAPE[None] * 60 - 0.5 + (error, 0)
        return points.astype(np.float32), np.full((1, 3), scale, np.float32)

    predictor = Predictor(triangle_header(60), backend)
    predicted = predictor.predict_crops(np.zeros((60, 60, 3), np.uint8), [Crop(0, 0, 60)], refine=2)
    # the crops start at 0, 30 and 34 px; of the points, those of the last two passes count, at 34 and 33 px
    weights = np.array([1 / 2.0**2, 1 / 0.5**2]) / (1 / 2.0**2 + 1 / 0.5**2)
    expected = MEAN_SHAPE * 60 - 0.5 + (weights @ (34.0, 33.0), 0)
    np.testing.assert_allclose(predicted.points[0], expected, atol=1e-4)
    np.testing.assert_allclose(predicted.scales[0], weights @ (2.0, 0.5), rtol=1e-6)


def test_refinement_without_mean_shape_is_refused() -> None:
    with pytest.raises(UserError, match=r"--refine: this model has no mean shape; .* train it again"):
        spot_predictor(8).predict(np.zeros((9, 9, 3), np.uint8), refine=1)


# --- invalid input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((5, 5, 5, 9), "x0 < x1"),
        ((0, 0, np.nan, 9), "x0 < x1"),
        ((-9, 0, 0, 9), "outside the image"),
        ((0, 40, 9, 50), "outside the image"),
        ((0, 0, 1e6, 1e6), "million pixels"),
        ((0, 0, 1, 1), "fractions of the image, not pixels; here, they stand for 0,0,60,40"),
        ((0.1, 0.25, 0.5, 0.75), "here, they stand for 6,10,30,30"),
        ((0, 0, 9), r"\(N, 4\)"),
    ],
)
def test_invalid_box_is_refused(box: tuple[float, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spot_predictor(8).predict(np.zeros((40, 60, 3), np.uint8), [box])


@pytest.mark.parametrize("image", [np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8), np.zeros(9, np.uint8)])
def test_image_of_other_shape_or_type_is_refused(image: Image) -> None:
    with pytest.raises(UserError, match="an image must be"):
        spot_predictor(8).predict(image)


def test_batch_of_images_that_are_not_square_is_refused() -> None:
    with pytest.raises(UserError, match=r"images must be \(N, S, S, C\)"):
        spot_predictor(8).predict_batch(np.zeros((2, 9, 8, 3), np.uint8))


# --- landmarks outside the image -----------------------------------------------------------------


def eyes_predictor(points: list[list[float]]) -> Predictor:
    """Return a model that predicts fixed points in a 32 px crop, with a scale of 1 px."""
    array = np.array([points], np.float32)

    def backend(crops: Image) -> tuple[Floats, Floats]:
        return np.repeat(array, len(crops), 0), np.ones((len(crops), 2), np.float32)

    return Predictor(make_header(32, EYES, head={"scales": True}), backend)


@pytest.mark.parametrize(
    ("point", "outside"),
    [
        ((-0.5, 5), False),
        ((-0.51, 5), True),
        ((19.5, 5), False),
        ((19.6, 5), True),
        ((5, -0.5), False),
        ((5, -0.6), True),
        ((5, 9.5), False),
        ((5, 9.6), True),
    ],
)
def test_confidence_is_halved_outside_image(point: tuple[float, float], outside: bool) -> None:
    predictor = eyes_predictor([[5, 5], list(point)])
    # the crop is the box itself, so that its pixels are those of the image
    found = predictor.predict(np.zeros((10, 20, 3), np.uint8), [(0, 0, 32, 32)])
    np.testing.assert_allclose(found.points[0], [[5, 5], point], atol=1e-5)
    inside, other = found.confidence[0].tolist()
    assert other == pytest.approx(inside * (0.5 if outside else 1))
    np.testing.assert_array_equal(found.scales, 1)
