"""Augmentation: images and points move alike, checked with blobs whose center of mass is their label."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from landmarks_fastai.config.options import NoAugment, OriginalAugment, StandardAugment
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.training.augmentation import (
    AugmentBatch,
    about_centers,
    adjust_color,
    blur,
    erase,
    flip_horizontally,
    original,
    rotation_and_scale,
    standard,
    translation,
    warp_images,
    warp_points,
)


def draw_blobs(x: Tensor, y: Tensor, size: int, sigma: float = 5.0) -> Tensor:
    """Draw (B, 1, size, size) Gaussian blobs whose centers of mass are (x, y)."""
    line = torch.arange(size, dtype=torch.float64)
    column = torch.exp(-((line - x[:, None]) ** 2) / (2 * sigma**2))
    row = torch.exp(-((line - y[:, None]) ** 2) / (2 * sigma**2))
    return (row[:, :, None] * column[:, None, :])[:, None].float()


def center_of_mass(images: Tensor) -> Tensor:
    """Return the (B, 2) centers of mass (x, y) of (B, 1, S, S) images, pixels."""
    line = torch.arange(images.shape[-1], dtype=torch.float64)
    mass = images[:, 0].double()
    total = mass.sum((1, 2))
    return torch.stack([(mass.sum(1) * line).sum(1) / total, (mass.sum(2) * line).sum(1) / total], -1)


# --- geometry ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(43, 53),
    y=st.floats(43, 53),
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.8, 1.25),
    size=st.sampled_from([64, 96, 97, 128]),
)
def test_warp_images_and_warp_points_move_alike(x, y, angle, scale, size) -> None:
    points = torch.tensor([[[x, y]]])
    image = draw_blobs(points[:, 0, 0], points[:, 0, 1], 96)
    transform = rotation_and_scale(torch.tensor([angle]), torch.tensor([scale * size / 96]))
    matrix = about_centers(transform.float(), 96, size)
    moved = warp_points(points.float(), matrix, size)
    observed = center_of_mass(warp_images(image, matrix, size))
    assert torch.allclose(moved[:, 0].double(), observed, atol=0.01)


def test_flip_horizontally_moves_pixel_and_point_exactly() -> None:
    image = torch.zeros(1, 1, 96, 96)
    image[0, 0, 40, 30] = 1
    points = torch.tensor([[[30.0, 40.0]]])
    out, moved = flip_horizontally(image, points, torch.tensor([True]), (0,), 0.0)
    assert torch.nonzero(out[0, 0]).tolist() == [[40, 65]]
    assert moved.tolist() == [[[65.0, 40.0]]]
    out, moved = flip_horizontally(image, points, torch.tensor([False]), (0,), 0.25)
    assert torch.equal(out, image)
    assert torch.equal(moved, points)


@given(bias=st.floats(-0.1, 0.1), x=st.floats(20, 70))
def test_flip_horizontally_keeps_side_of_label_bias(bias: float, x: float) -> None:
    label = torch.tensor([[[x + 96 * bias, 40.0]]])
    _, moved = flip_horizontally(torch.zeros(1, 1, 96, 96), label, torch.tensor([True]), (0,), bias)
    assert moved[0, 0].tolist() == pytest.approx([95 - x + 96 * bias, 40.0], abs=1e-4)


# --- pixel values --------------------------------------------------------------------------------


def test_erase_covers_requested_area() -> None:
    torch.manual_seed(3)
    images = torch.full((300, 1, 100, 100), 2.0)  # noise is below 1
    points = torch.zeros(300, 1, 2)
    out, _ = erase(images, points, torch.full((300,), 0.05), torch.ones(300, dtype=torch.bool))
    fraction = (out < 1.5).float().mean((1, 2, 3))
    assert fraction.mean().item() == pytest.approx(0.05, rel=0.05)
    assert (fraction > 0).all()


def test_adjust_color_leaves_gray_pixels_unchanged() -> None:
    gray = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1)
    out = adjust_color(gray, torch.full((4,), 1.3), torch.full((4,), 0.3))
    assert torch.allclose(out, gray, atol=1e-2)


def test_blur_is_gaussian_of_each_images_sigma() -> None:
    images = torch.zeros(3, 1, 65, 65)
    images[:, 0, 32, 32] = 1
    out = blur(images, torch.tensor([0.0, 1.5, 3.0]), 5.0)
    assert torch.equal(out[0], images[0])
    line = torch.arange(65) - 32.0
    for blurred, sigma in zip(out[1:], (1.5, 3.0), strict=True):
        deviation = (blurred[0].sum(0) * line**2).sum().sqrt().item()
        assert deviation == pytest.approx(sigma, rel=0.02)


# --- whole augmentations -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "options"),
    [
        # without steps that move the center of mass: changes of brightness, erasing and noise
        (standard, StandardAugment(brightness=0, contrast=0, blur=0, erase=0)),
        (original, OriginalAugment(jitter=0, sharpness=1, erase=0, noise_fill=0, rotate=180)),
    ],
    ids=["standard", "original"],
)
@pytest.mark.parametrize("size", [64, 96, 160])
def test_augmentation_moves_images_and_points_alike(function, options, size) -> None:
    torch.manual_seed(0)
    points = torch.rand(64, 1, 2) * 30 + 33
    images = draw_blobs(points[:, 0, 0], points[:, 0, 1], 96)
    out, moved = function(images, points, size, options)
    # a blob near the edge is truncated, which moves its center of mass
    complete = ((moved[:, 0] > size * 0.28) & (moved[:, 0] < size * 0.72)).all(1)
    assert complete.sum() > 10
    error = (center_of_mass(out)[complete] - moved[complete, 0]).abs().max()
    assert error < 0.02


def test_standard_masks_points_outside_the_image() -> None:
    torch.manual_seed(1)
    points = torch.rand(500, 15, 2) * 96 - 0.5
    options = StandardAugment(rotate=45)
    _, moved = standard(torch.zeros(500, 1, 96, 96), points, 96, options)
    masked = moved.isnan().any(-1)
    assert masked.any()
    assert torch.equal(masked, moved.isnan().all(-1))
    kept = moved[~masked]
    assert kept.min() >= -0.5
    assert kept.max() <= 95.5


@pytest.mark.parametrize(
    ("function", "options"), [(standard, StandardAugment()), (original, OriginalAugment())]
)
def test_augmentation_keeps_unlabeled_points_unlabeled(function, options) -> None:
    points = torch.full((4, 15, 2), math.nan)
    assert function(torch.rand(4, 1, 96, 96), points, 96, options)[1].isnan().all()


def test_original_fills_with_noise_as_often_as_requested() -> None:
    torch.manual_seed(2)
    images = torch.full((400, 1, 48, 48), 0.5)
    options = OriginalAugment(jitter=0, sharpness=1, erase=0, rotate=0, crop=0)
    out, _ = original(images, torch.zeros(400, 1, 2), 96, options)
    noisy = (out - 0.5).abs().amax((1, 2, 3)) > 0.1
    assert 0.18 < noisy.float().mean() < 0.32


def test_standard_rotates_half_of_the_hard_examples_and_keeps_the_others() -> None:
    torch.manual_seed(4)
    points = torch.rand(64, 1, 2) * 20 + 38
    images = draw_blobs(points[:, 0, 0], points[:, 0, 1], 96)
    easy = StandardAugment(brightness=0, contrast=0, blur=0, erase=0, rotate=0, scale=0, shift=0)
    assert torch.equal(standard(images, points, 96, easy)[1], points)
    _, moved = standard(images, points, 96, easy.model_copy(update={"hard": 1.0}))
    rotated = (moved - points).abs().amax((1, 2)) > 1e-3
    assert 0.3 < rotated.float().mean() < 0.7


# --- ranges --------------------------------------------------------------------------------------


def measured_transforms(function, options, side: int = 12) -> tuple[Tensor, ...]:
    """Return the angles (degrees), scales and centers (x, y) of 20,000 random transforms to 12 px."""
    torch.manual_seed(0)
    count, middle = 20_000, (side - 1) / 2
    points = torch.tensor([[[middle, middle], [middle + 0.5, middle]]]).repeat(count, 1, 1)
    _, moved = function(torch.zeros(count, 1, side, side), points, 12, options)
    assert not moved.isnan().any()
    x, y = (moved[:, 1] - moved[:, 0]).unbind(-1)
    return torch.atan2(y, x).rad2deg(), torch.hypot(x, y) / 0.5, moved[:, 0]


def extent(values: Tensor) -> tuple[float, float]:
    return values.min().item(), values.max().item()


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (standard, StandardAugment(rotate=20, scale=0, shift=0, blur=0, erase=0)),
        (original, OriginalAugment(rotate=20, crop=0, erase=0, jitter=0)),
    ],
)
def test_angles_fill_their_range(function, options) -> None:
    angles, _, _ = measured_transforms(function, options)
    assert extent(angles) == pytest.approx((-20, 20), abs=0.02)
    assert angles.mean().abs() < 0.5


def test_standard_scales_and_shifts_fill_their_ranges() -> None:
    options = StandardAugment(rotate=0, scale=0.25, shift=0.1, blur=0, erase=0)
    _, scales, centers = measured_transforms(standard, options)
    assert extent(scales) == pytest.approx((0.8, 1.25), abs=0.002)
    assert extent(centers) == pytest.approx((5.5 - 1.2, 5.5 + 1.2), abs=0.002)


def test_original_crops_at_most_the_requested_part_and_only_from_the_image() -> None:
    options = OriginalAugment(rotate=0, crop=0.3, erase=0, jitter=0)
    _, scales, centers = measured_transforms(original, options)
    assert extent(scales) == pytest.approx((1, 1 / 0.7), abs=0.002)
    # the input's edges, at -0.5 and 11.5, do not come into the output
    first, last = centers - 6 * scales[:, None], centers + 6 * scales[:, None]
    assert -0.51 < first.max() < -0.5 + 1e-3
    assert 11.5 - 1e-3 < last.min() < 11.51


def test_original_places_smaller_images_inside() -> None:
    options = OriginalAugment(rotate=0, crop=0, erase=0, jitter=0, noise_fill=0)
    _, scales, centers = measured_transforms(original, options, side=6)
    assert extent(scales) == pytest.approx((1, 2), abs=0.002)
    first, last = centers - 3 * scales[:, None], centers + 3 * scales[:, None]
    assert extent(first) == pytest.approx((-0.5, 5.5), abs=0.1)
    assert extent(last) == pytest.approx((5.5, 11.5), abs=0.1)
    assert first.min() > -0.5 - 1e-3
    assert last.max() < 11.5 + 1e-3


def test_erase_draws_aspect_ratios_and_positions_from_their_ranges() -> None:
    torch.manual_seed(0)
    count, size = 4000, 64
    erased, _ = erase(
        torch.full((count, 1, size, size), -1.0),
        torch.zeros(count, 1, 2),
        torch.full((count,), 0.09),
        torch.ones(count, dtype=torch.bool),
    )
    covered = erased[:, 0] >= 0
    columns, rows = covered.any(1), covered.any(2)
    width, height = columns.sum(1), rows.sum(1)
    ratios = width / height
    # 0.3 and 3.3, up to the rounding of sides of 10 to 35 px
    assert 0.27 < ratios.min() < 0.33
    assert 3.0 < ratios.max() < 3.6
    for line, length in ((columns, width), (rows, height)):
        first = line.int().argmax(1)
        assert first.min() == 0
        assert (first + length).max() == size
        assert (first / (size - length)).mean() == pytest.approx(0.5, abs=0.03)


def test_original_keeps_pixel_values_in_their_range() -> None:
    torch.manual_seed(0)
    images = (torch.rand(50, 3, 32, 32) > 0.5).float()
    options = OriginalAugment(jitter=0.4, sharpness=3, crop=0, erase=0, rotate=0)
    out, _ = original(images, torch.zeros(50, 1, 2), 32, options)
    assert extent(out) == (0, 1)


@pytest.mark.parametrize("options", [NoAugment(), OriginalAugment()])
def test_other_augmentations_do_not_mirror(options) -> None:
    augment = AugmentBatch(options, 96, KAGGLE15.flip_index)
    augment.augment(torch.zeros(20, 1, 96, 96), torch.zeros(20, 15, 2))
    assert not augment.mirrored.any()


# --- AugmentBatch --------------------------------------------------------------------------------


def test_augment_batch_swaps_left_and_right_when_mirroring() -> None:
    options = StandardAugment(rotate=0, scale=0, shift=0, flip=1, brightness=0, contrast=0, blur=0, erase=0)
    points = torch.arange(30, dtype=torch.float32).view(1, 15, 2) + 20
    _, moved = AugmentBatch(options, 96, KAGGLE15.flip_index).augment(torch.zeros(1, 1, 96, 96), points)
    left, right = KAGGLE15.names.index("left_eye_center"), KAGGLE15.names.index("right_eye_center")
    assert moved[0, left].tolist() == pytest.approx(
        [95 - points[0, right, 0].item(), points[0, right, 1].item()]
    )
    nose = KAGGLE15.names.index("nose_tip")
    assert moved[0, nose].tolist() == pytest.approx(
        [95 - points[0, nose, 0].item(), points[0, nose, 1].item()]
    )


def test_augment_batch_mirroring_without_flip_pairs_raises() -> None:
    with pytest.raises(UserError, match=r"^augment\.flip: the schema has no flip pairs"):
        AugmentBatch(StandardAugment(), 96, (0, 1, 2))
    assert AugmentBatch(StandardAugment(flip=0), 96, (0, 1, 2)).flip == 0


@pytest.mark.parametrize(
    ("options", "estimates", "label_bias"),
    [
        (StandardAugment(), True, 0.0),
        (StandardAugment(label_bias=0.02), False, 0.02),
        (StandardAugment(flip=0), False, 0.0),
        (OriginalAugment(), False, 0.0),
        (NoAugment(), False, 0.0),
    ],
)
def test_augment_batch_estimates_label_bias_if_mirroring_without_given_bias(
    options, estimates: bool, label_bias: float
) -> None:
    augment = AugmentBatch(options, 96, KAGGLE15.flip_index)
    assert augment.estimates_label_bias is estimates
    assert augment.label_bias == label_bias


# --- values --------------------------------------------------------------------------------------


def test_adjust_color_rotates_chroma_by_turns_and_preserves_luma() -> None:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    ones = torch.ones(2)
    torch.testing.assert_close(adjust_color(images, ones, ones), images, atol=1e-4, rtol=0)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    luma = (images * weights).sum(1, keepdim=True)
    # half a turn inverts the chroma
    torch.testing.assert_close(adjust_color(images, ones, ones / 2), 2 * luma - images, atol=0.01, rtol=0)
    torch.testing.assert_close(
        adjust_color(images, 0 * ones, ones), luma.expand(-1, 3, -1, -1), atol=0.01, rtol=0
    )
    quarter = adjust_color(adjust_color(images, ones, ones / 4), ones, ones / 4)
    torch.testing.assert_close(quarter, 2 * luma - images, atol=0.01, rtol=0)


def test_warp_images_fills_exactly_the_area_outside_with_noise() -> None:
    torch.manual_seed(0)
    images = torch.full((2, 1, 32, 32), 0.5)
    matrix = translation(torch.full((2,), 8.0), torch.full((2,), 4.0))
    selected = torch.tensor([True, False])
    warped = warp_images(images, matrix, 32, selected)
    torch.testing.assert_close(warped[1], images[1])
    torch.testing.assert_close(warped[0, :, 4:, 8:], images[0, :, 4:, 8:])
    filled = torch.cat([warped[0, 0, :4].flatten(), warped[0, 0, 4:, :8].flatten()])
    assert (filled != 0.5).all()
    assert filled.std() > 0.2


def test_hard_examples_are_darkened_and_never_brightened() -> None:
    torch.manual_seed(0)
    options = StandardAugment(hard=1.0, rotate=0, scale=0, shift=0, blur=0, contrast=0, brightness=0, erase=0)
    images, _ = standard(torch.full((400, 1, 24, 24), 0.4), torch.zeros(400, 1, 2), 24, options)
    medians = images.flatten(1).median(1).values
    assert medians.max() < 0.45
    # half of them, evenly between 0.15 and 1
    dark = medians < 0.38
    assert 0.35 < dark.float().mean() < 0.6
    assert medians.min() < 0.09
    assert medians[dark].mean().item() == pytest.approx(0.4 * 0.575, abs=0.03)


def test_original_without_jitter_changes_only_the_erased_area() -> None:
    torch.manual_seed(0)
    options = OriginalAugment(jitter=0, erase=0.2, crop=0, rotate=0, noise_fill=0)
    images, _ = original(torch.full((200, 1, 32, 32), 0.5), torch.zeros(200, 1, 2), 32, options)
    erased = ((images - 0.5).abs() > 1e-4).flatten(1).float().mean(1)
    assert 0.1 < erased.mean() < 0.2
    assert erased.max() < 0.3
