"""Counting exact duplicates of images."""

from __future__ import annotations

import numpy as np

from landmarks_fastai.data.dataset import LandmarkDataset


def count_duplicates(dataset: LandmarkDataset) -> int:
    """Return the number of images that equal an earlier one pixel for pixel.

    Only crops of equal source images are compared, so that the other images need not be loaded.
    """
    _, first, counts = np.unique(dataset.images.ids, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[first] > 1)
    # digests rather than pixels, because a data set may consist of duplicates
    return len(rows) - len(set(dataset.subset(rows).image_digests()))
