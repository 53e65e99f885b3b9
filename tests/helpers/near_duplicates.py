"""Near-duplicates of synthetic faces."""

from __future__ import annotations

import dataclasses

import numpy as np

from landmarks_fastai.data.dataset import LandmarkDataset


def with_near_duplicates(dataset: LandmarkDataset, rng: np.random.Generator) -> LandmarkDataset:
    """Append a copy of each face, shifted by up to 3 px, brighter or darker, and noisy."""
    images, points = [], []
    for image, face in zip(dataset.images, dataset.points, strict=True):
        dx, dy = rng.integers(-3, 4, 2)
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
        shifted = padded[3 - dy : 3 - dy + dataset.size, 3 - dx : 3 - dx + dataset.size]
        changed = shifted * rng.uniform(0.8, 1.15) + rng.normal(0, 2, shifted.shape)
        images.append(np.clip(changed, 0, 255).astype(np.uint8))
        points.append(face + np.array([dx, dy]))
    return dataclasses.replace(
        dataset,
        images=np.concatenate([dataset.images[:], images]),
        points=np.concatenate([dataset.points, np.asarray(points, np.float32)]),
        names=dataset.names * 2,
    )
