"""Points come back to the picture's own pixels, whatever was cut out of it and however it was scaled."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.framing import LEAN, Square, cut_square
from landmarks_fastai.inference.modelfile import ModelHeader
from landmarks_fastai.inference.predictor import Predictor, torch_device, torch_run
from landmarks_fastai.schema import Schema, schema_from_names

ONE = Schema("one", ("spot",))
EYES = schema_from_names("eyes", ["left_eye", "right_eye"])


def make_header(size: int, channels: int = 3, schema: Schema = ONE) -> ModelHeader:
    values = [0.5] * channels
    return ModelHeader(
        arch="a", head={}, channels=channels, input_size=size, mean=values, std=values, schema=schema
    )


def centroid(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32]]:
    """Find the bright spot: a network that can't be wrong about where its pixels are."""
    light = np.maximum(crops.astype(np.float64).mean(3) - 12, 0)
    y, x = np.indices(light.shape[1:])
    total = light.sum((1, 2))
    places = np.stack([(light * x).sum((1, 2)) / total, (light * y).sum((1, 2)) / total], 1)
    return (places[:, None].astype(np.float32),)


def spot(width: int, height: int, x: float, y: float, sigma: float) -> NDArray[np.uint8]:
    """Draw a soft spot at (x, y), pixels, on black."""
    rows, columns = np.indices((height, width))
    light = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(255 * light).astype(np.uint8)[:, :, None], 3, 2)


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([32, 63, 96]),
    scale=st.floats(0.5, 4),
    cut=st.tuples(*[st.floats(-0.4, 0.12)] * 4),
    place=st.tuples(st.floats(0.4, 0.6), st.floats(0.4, 0.6)),
    shape=st.floats(0.5, 2),
    channels=st.sampled_from([1, 3]),
    flip=st.booleans(),
)
def test_a_spot_is_found_through_any_box(
    size: int,
    scale: float,
    cut: tuple[float, float, float, float],
    place: tuple[float, float],
    shape: float,
    channels: int,
    flip: bool,
) -> None:
    side = size * scale
    # by `cut`, the square lies inside of the picture or sticks out by an eighth of
    # itself on any edge: more, and the edge repeats the spot
    left, top = -cut[0] * side, -cut[1] * side
    width, height = int(left + side - cut[2] * side), int(top + side - cut[3] * side)
    x, y = left + place[0] * side - 0.5, top + place[1] * side - 0.5
    image = spot(width, height, x, y, sigma=max(0.04 * side, 1))
    # a box of another shape around the same centre becomes the same square
    thin = side * (1 - min(shape, 1 / shape)) / 2
    shrink = (thin, 0) if shape < 1 else (0, thin)
    box = (left + shrink[0], top + shrink[1], left + side - shrink[0], top + side - shrink[1])

    schema = Schema("pair", ("a", "b"), flip_pairs=(("a", "b"),)) if flip else ONE
    predictor = Predictor(
        make_header(size, channels, schema), lambda crops: (np.repeat(centroid(crops)[0], len(schema), 1),)
    )
    found = predictor.predict(image, [box], flip=flip).points
    assert found.shape == (1, len(schema), 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], (x, y), atol=0.1 * max(scale, 1))


@pytest.mark.parametrize(("width", "height"), [(301, 200), (200, 301), (90, 90)])
def test_without_boxes_the_middle_square_is_looked_at(width: int, height: int) -> None:
    image = spot(width, height, width / 2 + 3.25, height / 2 - 7.5, sigma=8)
    found = Predictor(make_header(64), centroid).predict(image).points
    np.testing.assert_allclose(found[0, 0], (width / 2 + 3.25, height / 2 - 7.5), atol=0.1)
    # what lies further beyond the middle square than the filter reaches is not seen
    image[:, : max(width - height - 10, 0) // 2] = image[: max(height - width - 10, 0) // 2] = 255
    np.testing.assert_array_equal(Predictor(make_header(64), centroid).predict(image).points, found)


def test_many_faces_keep_their_order() -> None:
    places = [(20 + 37.5 * i, 30 + 11.25 * i) for i in range(150)]
    image = np.zeros((1800, 5700, 3), np.uint8)
    for x, y in places:
        corner = int(x) - 15, int(y) - 15
        area = image[max(corner[1], 0) : corner[1] + 32, max(corner[0], 0) : corner[0] + 32]
        np.maximum(area, spot(32, 32, x - corner[0], y - corner[1], 2), out=area)
    boxes = [(x - 14, y - 14, x + 15, y + 15) for x, y in places]
    found = Predictor(make_header(32), centroid).predict(image, boxes).points
    np.testing.assert_allclose(found[:, 0], places, atol=0.1)


@pytest.mark.parametrize("size", [48, 96, 131])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_of_a_table(size: int, channels: int) -> None:
    places = [(30.25 + 5 * i, 60 - 3.5 * i) for i in range(7)]
    images = np.stack([spot(96, 96, x, y, 4) for x, y in places])
    predictor = Predictor(make_header(size, channels), centroid)
    for shown in (images, images[..., :1]):
        np.testing.assert_allclose(
            predictor.predict_crops(shown, batch_size=3).points[:, 0], places, atol=0.1
        )
    # the same faces, through the other door
    boxed, crop = predictor.predict(images[0]), predictor.predict_crops(images[:1])
    np.testing.assert_array_equal(boxed.points, crop.points)
    assert boxed.squares == crop.squares == (Square(0, 0, 96),)


def test_no_faces_give_no_points() -> None:
    predictor = Predictor(make_header(8), centroid)
    assert predictor.predict(np.zeros((9, 9, 3), np.uint8), np.empty((0, 4))).points.shape == (0, 1, 2)
    assert predictor.predict_crops(np.empty((0, 8, 8, 3), np.uint8)).points.shape == (0, 1, 2)


def test_frame_cuts_exactly_and_repeats_the_edge() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(cut_square(image, Square(2, 1, 5), 5, 3), image[1:6, 2:7])
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(cut_square(image, Square(-3, -3, 8), 8, 3), padded[:8, :8])
    np.testing.assert_array_equal(cut_square(image, Square(4, 2, 8), 8, 3), padded[5:13, 7:15])


@settings(max_examples=40, deadline=None)
@example(corner=(0.0, -3.0), side=1.0, size=1)  # wholly above the picture
@given(
    corner=st.tuples(st.floats(-30, 50), st.floats(-30, 40)),
    side=st.floats(1, 90),
    size=st.sampled_from([1, 8, 33]),
)
def test_frame_is_that_of_an_endless_picture(corner: tuple[float, float], side: float, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    endless = Image.fromarray(np.pad(image, ((300, 300), (300, 300), (0, 0)), mode="edge"))
    left, top = corner[0] + 300, corner[1] + 300
    box = (left, top, left + side, top + side)
    expected = np.asarray(endless.resize((size, size), Image.Resampling.BILINEAR, box=box), dtype=int)
    # PIL keeps boxes in float32, so far from the corner a value may round the other way
    found = cut_square(image, Square(*corner, side), size, 3)
    assert np.abs(found - expected).max() <= 1


def test_frame_is_antialiased() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = cut_square(checks, Square(0, 0, 64), 8, 1)
    assert np.abs(shrunk.astype(int) - 127).max() <= 5


def test_colour_and_gray_become_each_other() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)
    assert cut_square(colours, Square(0, 0, 2), 2, 1)[..., 0].tolist() == [[76, 150], [29, 9]]
    for gray in (colours[..., 0], colours[..., :1]):
        assert cut_square(gray, Square(0, 0, 2), 2, 3).tolist() == [[[255] * 3, [0] * 3], [[0] * 3, [9] * 3]]


class ChannelMeans(nn.Module):
    """Answers the mean of its three channels as y of its three points, and x = 0.5."""

    def forward(self, image: Tensor) -> Tensor:
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert not self.training
        assert torch.is_inference(image)
        means = image.mean((2, 3))
        return torch.stack([torch.full_like(means, 0.5), means], 2)


def test_torch_normalises_each_channel_and_scales_back() -> None:
    header = ModelHeader(
        arch="a",
        head={},
        channels=3,
        input_size=10,
        mean=[0.2, 0.4, 0.5],
        std=[1, 2, 0.5],
        schema=Schema("rgb", ("r", "g", "b")),
    )
    run = torch_run(ChannelMeans(), header, "cpu")
    (found,) = run(np.full((2, 10, 10, 3), (51, 153, 255), np.uint8))
    scaled = np.array([(0.2 - 0.2) / 1, (0.6 - 0.4) / 2, (1 - 0.5) / 0.5])
    np.testing.assert_allclose(found[1, :, 1], (scaled + 1) * 5 - 0.5, atol=1e-5)
    # 0.5 is three quarters of the way from one edge to the other
    np.testing.assert_allclose(found[1, :, 0], 7.0, atol=1e-5)


def test_flip_averages_with_the_mirrored_face() -> None:
    def stubborn(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        points = np.tile(np.array([[[6, 3], [1, 5]]], np.float32), (len(crops), 1, 1))
        return points, np.tile(np.array([[0.1, 0.3]], np.float32), (len(crops), 1))

    predictor = Predictor(make_header(10, schema=EYES), stubborn)
    image = np.zeros((10, 10, 3), np.uint8)
    # mirrored, the left eye is found where the right one is said to be: 9 - 1 = 8, and 9 - 6 = 3
    assert predictor.predict(image, flip=True).points.tolist() == [[[7, 4], [2, 4]]]
    assert predictor.predict_crops(image[None], flip=True).points.tolist() == [[[7, 4], [2, 4]]]
    assert predictor.predict(image).points.tolist() == [[[6, 3], [1, 5]]]
    # so are the scales: each becomes (0.1 + 0.3) / 2, and 2.5 % of 10 px are a quarter
    sure = math.erf(0.25 / (0.2 * math.sqrt(math.pi))) ** 2
    np.testing.assert_allclose(predictor.predict(image, flip=True).confidence, [[sure, sure]], rtol=1e-5)


def test_confidence_is_the_chance_to_lie_near() -> None:
    scale = 1.7  # px of a 100 px square, which is looked at in 50 px

    def same(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.zeros((len(crops), 1, 2), np.float32), np.full((len(crops), 1), scale / 2, np.float32)

    found = Predictor(make_header(50), same).predict(np.zeros((100, 100, 3), np.uint8))
    error = np.random.default_rng(0).normal(size=(200_000, 2))
    error *= scale / np.abs(error).mean()
    assert found.confidence[0, 0] == pytest.approx((np.abs(error) < 2.5).all(axis=1).mean(), abs=0.005)


def test_a_model_without_scales_has_no_confidence() -> None:
    found = Predictor(make_header(8), centroid).predict(spot(9, 9, 4, 4, 1))
    assert np.isnan(found.confidence).all()


TRIPLE = schema_from_names("triple", ["left_eye", "right_eye", "chin"])
MEAN = np.array([[0.7, 0.3], [0.3, 0.3], [0.5, 0.8]])


def triple_header(size: int) -> ModelHeader:
    return make_header(size, schema=TRIPLE).model_copy(
        update={"mean_face": [tuple(p) for p in MEAN.tolist()]}
    )


def colours(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32]]:
    """Find the red, the green and the blue spot, a third of the way off towards the mean face."""
    found = [centroid(np.repeat(crops[..., c : c + 1], 3, 3))[0] for c in range(3)]
    expected = MEAN * crops.shape[1] - 0.5
    return ((2 / 3 * np.concatenate(found, 1) + 1 / 3 * expected).astype(np.float32),)


def test_refining_comes_to_the_square_of_training() -> None:
    header = triple_header(64)
    true = Square(40.0, 25.0, 100.0)
    places = MEAN * true.side + (true.left, true.top) - 0.5
    image = np.stack([spot(220, 180, *place, 4)[..., 0] for place in places], 2)
    predictor = Predictor(header, colours)
    loose = (10, 10, 190, 190)
    errors = []
    for refine in range(4):
        found = predictor.predict(image, [loose], refine=refine)
        errors.append(np.abs(found.points[0] - places).max())
    assert errors[0] > 4
    for before, after in pairwise(errors):
        assert after < 0.5 * before + 0.05
    np.testing.assert_allclose(found.squares[0].edges, true.edges, atol=3)


def test_refining_turns_the_square_with_a_tilted_head() -> None:
    header = triple_header(64)
    true = Square(60.0, 50.0, 90.0, 0.9)
    places = true.to_picture((MEAN * 64 - 0.5).astype(np.float32), 64)
    image = np.stack([spot(220, 200, *place, 4)[..., 0] for place in places], 2)
    predictor = Predictor(header, colours)
    once = predictor.predict(image, [true.edges])
    found = predictor.predict(image, [true.edges], refine=5)
    assert once.squares[0].turn == 0
    # a third of the lean that is left goes unseen, and the square comes to rest where the rest is `LEAN`
    assert found.squares[0].turn == pytest.approx(0.9 - 1.5 * LEAN, abs=0.02)
    assert np.abs(found.points[0] - places).max() < np.abs(once.points[0] - places).max() / 2


def test_looks_count_for_more_the_surer_they_are() -> None:
    """The first look errs by 6 px and says so; the second by 1 px the other way."""
    header = triple_header(60)
    looks = []

    def unsure_first(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        error, scale = [(6.0, 2.0), (-1.0, 0.5)][len(looks)]
        looks.append(crops)
        points = MEAN[None] * 60 - 0.5 + (error, 0)
        return points.astype(np.float32), np.full((1, 3), scale, np.float32)

    predictor = Predictor(header, unsure_first)
    found = predictor.predict_squares(np.zeros((60, 60, 3), np.uint8), [Square(0, 0, 60)], refine=1)
    # the second square stands 6 px farther to the right, and so does what is found in it
    wanted = MEAN * 60 - 0.5 + ((6.0 / 2.0**2 + 5.0 / 0.5**2) / (1 / 2.0**2 + 1 / 0.5**2), 0)
    np.testing.assert_allclose(found.points[0], wanted, atol=1e-4)
    np.testing.assert_allclose(found.squares[0].edges, (6, 0, 66, 60), atol=1e-4)


def test_an_old_model_file_can_t_refine() -> None:
    predictor = Predictor(make_header(8), centroid)
    with pytest.raises(UserError, match=r"refine: .* no mean face; train it anew"):
        predictor.predict(np.zeros((9, 9, 3), np.uint8), refine=1)


def test_flip_needs_pairs() -> None:
    with pytest.raises(UserError, match="schema one has no pairs"):
        Predictor(make_header(8), centroid).predict(np.zeros((9, 9, 3), np.uint8), flip=True)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((5, 5, 5, 9), "x0 < x1"),
        ((0, 0, np.nan, 9), "x0 < x1"),
        ((-9, 0, 0, 9), "outside of the picture"),
        ((0, 40, 9, 50), "outside of the picture"),
        ((0, 0, 1e6, 1e6), "million pixels"),
        ((0, 0, 9), r"\(B, 4\)"),
    ],
)
def test_boxes_that_hold_no_face(box: tuple[float, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Predictor(make_header(8), centroid).predict(np.zeros((40, 60, 3), np.uint8), [box])


def test_pictures_of_another_kind_are_refused() -> None:
    predictor = Predictor(make_header(8), centroid)
    for image in (np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8), np.zeros(9, np.uint8)):
        with pytest.raises(UserError, match="a picture must be"):
            predictor.predict(image)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="face images must be"):
        predictor.predict_crops(np.zeros((2, 9, 8, 3), np.uint8))


def test_devices() -> None:
    assert torch_device("cpu") == "cpu"
    assert torch_device("auto") in ("cuda:0", "mps", "cpu")
    with pytest.raises(UserError, match=r"--device cuda:77: not on this machine.*cpu"):
        torch_device("cuda:77")


def test_a_model_file_predicts_what_its_network_says(model_path: Path, network: nn.Module) -> None:
    predictor = Predictor.open(model_path.parent, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (predictor.header.mean, predictor.header.std))
    with torch.inference_mode():
        scaled = network((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    expected = (scaled.numpy() + 1) / 2 * 64 - 0.5
    found = predictor.predict_crops(images, batch_size=2).points
    np.testing.assert_allclose(found, expected, atol=1e-3)
