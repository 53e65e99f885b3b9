"""Training, validation and prediction give the network the same crop of the same image and box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import make_header
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from landmarks_fastai.config.options import StandardAugment
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.geometry import Crop, extract_crop
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.training.augmentation import about_centers, rotation_and_scale, standard, warp_images
from landmarks_fastai.training.resampling import resize_images
from landmarks_fastai.training.transforms import LoadImage, ResizeToInput

ROUNDING = 1.01
"""Pillow rounds to integers after each of its two steps, the batches are floats; in gray levels."""

SIZES = st.sampled_from([(96, 64), (97, 64), (128, 64), (128, 32), (64, 64), (96, 128), (64, 96), (200, 33)])
ONE = LandmarkSchema(name="one", names=("a",))


def as_batch(images: NDArray[np.uint8]) -> Tensor:
    """Return (N, S, S, C) images as (N, C, S, S) float32."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def as_images(batch: Tensor) -> NDArray[np.float32]:
    """Return (N, C, S, S) batches as (N, S, S, C)."""
    return batch.permute(0, 2, 3, 1).numpy()


def crops_of(images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Return the whole images as a prediction resizes them."""
    whole, channels = Crop(0, 0, images.shape[1]), images.shape[3]
    return np.stack([extract_crop(image, whole, size, channels) for image in images]).astype(np.float32)


@settings(max_examples=25)
@given(sizes=SIZES, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_resize_images_equals_extract_crop(sizes: tuple[int, int], channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, sizes[0], sizes[0], channels), dtype=np.uint8)
    resized = resize_images(as_batch(images), sizes[1])
    assert np.abs(as_images(resized) - crops_of(images, sizes[1])).max() <= ROUNDING


@settings(max_examples=25)
@given(sizes=SIZES, seed=st.integers(0, 99))
def test_warp_by_the_identity_equals_extract_crop(sizes: tuple[int, int], seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, sizes[0], sizes[0], 1), dtype=np.uint8)
    scale = rotation_and_scale(torch.zeros(2), torch.full((2,), sizes[1] / sizes[0]))
    warped = warp_images(as_batch(images), about_centers(scale, *sizes), sizes[1])
    assert np.abs(as_images(warped) - crops_of(images, sizes[1])).max() <= ROUNDING


@pytest.mark.parametrize("size", [128, 96])
def test_augmentation_without_changes_equals_extract_crop(size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 1), dtype=np.uint8)
    options = StandardAugment(rotate=0, scale=0, shift=0, brightness=0, contrast=0, blur=0, erase=0)
    augmented, _ = standard(as_batch(images) / 255, torch.zeros(4, 1, 2), 64, options)
    assert np.abs(255 * as_images(augmented) - crops_of(images, 64)).max() <= ROUNDING


def test_warp_of_images_of_the_input_size_samples_them_once() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[..., 32, 20] = 1.0
    moved = warp_images(image, about_centers(rotation_and_scale(torch.zeros(1), torch.ones(1)), 64, 64), 64)
    torch.testing.assert_close(moved, image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("image_size", [128, 96, 48])
def test_prediction_on_a_picture_sees_the_crop_of_the_training(image_size: int) -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (250, 300, 3), dtype=np.uint8)
    crop = Crop(31.5, -20.25, 210.0)  # reaches beyond the picture
    seen: list[NDArray[np.uint8]] = []

    def backend(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        seen.append(crops)
        return (np.zeros((len(crops), 1, 2), np.float32),)

    predictor = Predictor(make_header(64, ONE, image_size=image_size), backend)
    predictor.predict_crops(picture, [crop])
    stored = extract_crop(picture, crop, image_size, 3)[None]
    dataset = LandmarkDataset(stored, np.zeros((1, 1, 2), np.float32), ONE, ("a",), "test", "0")
    predictor.predict_batch(dataset.images)
    loaded = LoadImage(dataset, 3).take(np.array([0])).float()
    (validated,) = ResizeToInput(64).encodes((loaded,))
    assert np.array_equal(seen[0], seen[1])
    assert np.abs(as_images(torch.Tensor(validated)) - seen[0]).max() <= ROUNDING


def test_model_without_image_size_resizes_in_one_step() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (250, 300, 3), dtype=np.uint8)
    seen: list[NDArray[np.uint8]] = []

    def backend(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        seen.append(crops)
        return (np.zeros((len(crops), 1, 2), np.float32),)

    crop = Crop(10, 20, 200)
    Predictor(make_header(64, ONE), backend).predict_crops(picture, [crop])
    assert np.array_equal(seen[0][0], extract_crop(picture, crop, 64, 3))


def test_trained_model_records_the_side_of_its_data(finished_run: Path) -> None:
    assert Predictor.open(finished_run, "cpu").header.image_size == 96
