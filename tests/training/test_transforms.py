"""Transforms: loading single images, and splitting labels by annotation protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.vision.all import TensorPoint
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.geometry import center_crop, extract_crop
from landmarks_fastai.training.transforms import LoadImage, SplitProtocols


@pytest.fixture(scope="module")
def wide_image() -> NDArray[np.uint8]:
    """Return an image that is wider than high by an odd number of pixels."""
    return np.random.default_rng(0).integers(0, 256, (120, 201, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["path", "str", "PIL image", "array"])
def test_load_image_returns_center_crop_of_predictor(
    dataset: LandmarkDataset, wide_image: NDArray[np.uint8], tmp_path: Path, kind: str, channels: int
) -> None:
    path = tmp_path / "wide.png"
    Image.fromarray(wide_image).save(path)
    items = {"path": path, "str": str(path), "PIL image": Image.open(path), "array": wide_image}
    loaded = LoadImage(dataset, channels).encodes(items[kind])
    expected = extract_crop(wide_image, center_crop(201, 120), dataset.size, channels)
    assert np.array_equal(np.asarray(loaded).transpose(1, 2, 0), expected)


def test_load_image_applies_exif_orientation(
    dataset: LandmarkDataset, wide_image: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "rotated.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise to display
    Image.fromarray(wide_image).save(path, exif=exif)
    upright = np.rot90(wide_image, -1)
    expected = extract_crop(upright, center_crop(120, 201), dataset.size, 3)
    for item in (path, Image.open(path)):
        loaded = LoadImage(dataset, 3).encodes(item)
        assert np.array_equal(np.asarray(loaded).transpose(1, 2, 0), expected)


def test_split_protocols_separates_complete_and_incomplete_rows() -> None:
    complete_dataset = draw_synthetic_faces(16, seed=5)
    points = complete_dataset.points.copy()
    points[::2, 4:] = np.nan
    dataset = replace(complete_dataset, points=points)
    batch = (torch.zeros(len(dataset), 1, 8, 8), TensorPoint(torch.from_numpy(points)))
    _, labels = SplitProtocols().encodes(batch)
    complete, incomplete = np.asarray(labels)[:, :15], np.asarray(labels)[:, 15:]
    np.testing.assert_array_equal(complete[1::2], points[1::2])
    np.testing.assert_array_equal(incomplete[::2], points[::2])
    assert np.isnan(complete[::2]).all()
    assert np.isnan(incomplete[1::2]).all()
