"""Image and points move together: a blob lands where its label says, under every transform."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.config import OriginAugment, StandardAugment
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import KAGGLE15
from landmarks_fastai.training import augment
from landmarks_fastai.training.augment import (
    AugmentBatch,
    about_centres,
    mirror_faces,
    turn_and_scale,
    warp_images,
    warp_points,
)


def blob(x: torch.Tensor, y: torch.Tensor, size: int, sigma: float = 5.0) -> torch.Tensor:
    """Draw (B, 1, size, size) Gaussian blobs whose centres of mass are (x, y)."""
    line = torch.arange(size, dtype=torch.float64)
    column = torch.exp(-((line - x[:, None]) ** 2) / (2 * sigma**2))
    row = torch.exp(-((line - y[:, None]) ** 2) / (2 * sigma**2))
    return (row[:, :, None] * column[:, None, :])[:, None].float()


def centre_of_mass(images: torch.Tensor) -> torch.Tensor:
    """Return (B, 2) x, y."""
    line = torch.arange(images.shape[-1], dtype=torch.float64)
    mass = images[:, 0].double()
    total = mass.sum((1, 2))
    return torch.stack([(mass.sum(1) * line).sum(1) / total, (mass.sum(2) * line).sum(1) / total], -1)


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(43, 53),
    y=st.floats(43, 53),
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.8, 1.25),
    size=st.sampled_from([64, 96, 97, 128]),
)
def test_any_warp_moves_image_and_point_alike(x, y, angle, scale, size) -> None:
    points = torch.tensor([[[x, y]]])
    image = blob(points[:, 0, 0], points[:, 0, 1], 96)
    turn = turn_and_scale(torch.tensor([angle]), torch.tensor([scale * size / 96]))
    matrix = about_centres(turn.float(), 96, size)
    moved = warp_points(points.float(), matrix, size)
    found = centre_of_mass(warp_images(image, matrix, size))
    assert torch.allclose(moved[:, 0].double(), found, atol=0.01)


def test_a_flip_is_exact() -> None:
    image = torch.zeros(1, 1, 96, 96)
    image[0, 0, 40, 30] = 1
    points = torch.tensor([[[30.0, 40.0]]])
    out, moved = mirror_faces(image, points, torch.tensor([True]), (0,), 0.0)
    assert torch.nonzero(out[0, 0]).tolist() == [[40, 65]]
    assert moved.tolist() == [[[65.0, 40.0]]]
    out, moved = mirror_faces(image, points, torch.tensor([False]), (0,), 0.25)
    assert torch.equal(out, image)
    assert torch.equal(moved, points)


@given(shift=st.floats(-0.1, 0.1), x=st.floats(20, 70))
def test_labels_that_lie_to_one_side_do_so_in_the_mirror(shift: float, x: float) -> None:
    # what is marked lies at x, its label to the right of it
    label = torch.tensor([[[x + 96 * shift, 40.0]]])
    _, moved = mirror_faces(torch.zeros(1, 1, 96, 96), label, torch.tensor([True]), (0,), shift)
    assert moved[0, 0].tolist() == pytest.approx([95 - x + 96 * shift, 40.0], abs=1e-4)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (
            augment.standard,
            # what is not geometric would move the centre of mass
            StandardAugment(light=0, contrast=0, blur=0, erase=0),
        ),
        (augment.origin, OriginAugment(jitter=0, sharpness=1, erase=0, noise_fill=0, rotate=180)),
    ],
    ids=["standard", "origin"],
)
@pytest.mark.parametrize("size", [64, 96, 160])
def test_whole_augmentations_keep_labels_on_their_spots(function, options, size, monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(augment, "sharpness", lambda images, factor: images)
    points = torch.rand(64, 1, 2) * 30 + 33
    images = blob(points[:, 0, 0], points[:, 0, 1], 96)
    out, moved = function(images, points, size, options)
    # a blob near the edge is cut off: its centre of mass says nothing
    whole = ((moved[:, 0] > size * 0.28) & (moved[:, 0] < size * 0.72)).all(1)
    assert whole.sum() > 10
    error = (centre_of_mass(out)[whole] - moved[whole, 0]).abs().max()
    assert error < 0.02


def test_flips_swap_left_and_right() -> None:
    options = StandardAugment(rotate=0, scale=0, shift=0, flip=1, light=0, contrast=0, blur=0, erase=0)
    points = torch.arange(30, dtype=torch.float32).view(1, 15, 2) + 20
    _, moved = AugmentBatch(options, 96, KAGGLE15.flip_index).encodes((torch.zeros(1, 1, 96, 96), points))
    left, right = KAGGLE15.points.index("left_eye_center"), KAGGLE15.points.index("right_eye_center")
    assert moved[0, left].tolist() == pytest.approx(
        [95 - points[0, right, 0].item(), points[0, right, 1].item()]
    )
    nose = KAGGLE15.points.index("nose_tip")
    assert moved[0, nose].tolist() == pytest.approx(
        [95 - points[0, nose, 0].item(), points[0, nose, 1].item()]
    )


def test_flipping_without_pairs_is_refused() -> None:
    with pytest.raises(UserError, match="flip pairs"):
        AugmentBatch(StandardAugment(), 96, (0, 1, 2))
    AugmentBatch(StandardAugment(flip=0), 96, (0, 1, 2))


def test_points_that_leave_the_frame_are_masked_never_clamped() -> None:
    torch.manual_seed(1)
    points = torch.rand(500, 15, 2) * 96 - 0.5
    options = StandardAugment(rotate=45)
    _, moved = augment.standard(torch.zeros(500, 1, 96, 96), points, 96, options)
    gone = moved.isnan().any(-1)
    assert gone.any()
    assert torch.equal(gone, moved.isnan().all(-1))
    kept = moved[~gone]
    assert kept.min() >= -0.5
    assert kept.max() <= 95.5


def test_unlabelled_points_stay_unlabelled() -> None:
    points = torch.full((4, 15, 2), math.nan)
    images = torch.rand(4, 1, 96, 96)
    for function, options in ((augment.standard, StandardAugment()), (augment.origin, OriginAugment())):
        assert function(images, points, 96, options)[1].isnan().all()


def test_origin_fills_with_noise_about_as_often_as_asked() -> None:
    torch.manual_seed(2)
    images = torch.full((400, 1, 48, 48), 0.5)
    options = OriginAugment(jitter=0, sharpness=1, erase=0, rotate=0, crop=0)
    out, _ = augment.origin(images, torch.zeros(400, 1, 2), 96, options)
    noisy = (out - 0.5).abs().amax((1, 2, 3)) > 0.1
    assert 0.18 < noisy.float().mean() < 0.32


def test_erase_covers_the_area_asked_for() -> None:
    torch.manual_seed(3)
    images = torch.full((300, 1, 100, 100), 2.0)  # noise lies below 1
    out = augment.erase(images, torch.full((300,), 0.05), torch.ones(300, dtype=torch.bool))
    share = (out < 1.5).float().mean((1, 2, 3))
    assert share.mean().item() == pytest.approx(0.05, rel=0.05)
    assert (share > 0).all()


def test_the_hue_of_gray_pixels_cannot_turn() -> None:
    gray = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1)
    out = augment.colour(gray, torch.full((4,), 1.3), torch.full((4,), 0.3))
    assert torch.allclose(out, gray, atol=1e-2)


def test_blur_is_a_gaussian_of_each_image_s_own_width() -> None:
    images = torch.zeros(3, 1, 65, 65)
    images[:, 0, 32, 32] = 1
    out = augment.blur(images, torch.tensor([0.0, 1.5, 3.0]))
    assert torch.equal(out[0], images[0])
    line = torch.arange(65) - 32.0
    for blurred, sigma in zip(out[1:], (1.5, 3.0), strict=True):
        spread = (blurred[0].sum(0) * line**2).sum().sqrt().item()
        assert spread == pytest.approx(sigma, rel=0.02)


def test_hard_faces_come_as_often_as_asked_and_keep_their_labels() -> None:
    torch.manual_seed(4)
    points = torch.rand(64, 1, 2) * 20 + 38
    images = blob(points[:, 0, 0], points[:, 0, 1], 96)
    calm = StandardAugment(light=0, contrast=0, blur=0, erase=0, rotate=0, scale=0, shift=0)
    assert torch.equal(augment.standard(images, points, 96, calm)[1], points)
    _, moved = augment.standard(images, points, 96, calm.model_copy(update={"hard": 1.0}))
    turned = (moved - points).abs().amax((1, 2)) > 1e-3
    assert 0.3 < turned.float().mean() < 0.7  # each hardship comes to half of them
