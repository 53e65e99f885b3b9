"""Exact duplicates are counted without loading the other images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.duplicates import count_duplicates
from landmarks_fastai.data.image_array import ImageArray


def test_count_duplicates_counts_images_that_equal_an_earlier_one(dataset: LandmarkDataset) -> None:
    images = dataset.images[:].copy()
    images[7:9], images[20] = images[6], images[50]
    assert count_duplicates(replace(dataset, images=images)) == 3
    assert count_duplicates(dataset) == 0
    assert count_duplicates(dataset.subset(np.arange(0))) == 0
    assert count_duplicates(dataset.subset(np.array([1, 2, 1, 1, 2]))) == 3


def test_count_duplicates_of_different_crops_of_one_image_is_zero(dataset: LandmarkDataset) -> None:
    pixels = dataset.images[:].copy()
    pixels[1] = pixels[2]
    images = ImageArray(pixels, None, np.zeros(len(pixels), np.uint64))
    assert count_duplicates(replace(dataset, images=images)) == 1
