"""Show what a source of faces holds, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config import Recipe
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.drawing import save_png, sheet


def sample_sheet(table: FaceTable, recipe: Recipe, out: Path, count: int = 8) -> Path:
    """Save faces drawn at random: raw in the first row, and as training sees them below.

    Returns
    -------
    Path
        The picture's path, OUT/samples.png.
    """
    rows = np.sort(np.random.default_rng(recipe.seed).permutation(len(table))[:count])
    faces = table.rows(rows)
    images = [face for face in faces.images]
    points = [face for face in faces.points]
    titles = list(faces.names)
    for _ in range(3):
        augmented, moved = augmented_batch(faces, recipe)
        images += list(augmented)
        points += list(moved)
        titles += ["augmented"] * len(faces)
    path = out / "samples.png"
    save_png(path, sheet(images, points, table.schema, titles=titles, columns=len(faces)))
    return path


def augmented_batch(faces: FaceTable, recipe: Recipe) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return (N, S, S, C) bytes and (N, K, 2) points as the recipe's augmentation makes them."""
    import torch

    from landmarks_fastai.training.augment import AugmentBatch

    augment = AugmentBatch(recipe.augment, recipe.model.input_size, faces.schema.flip_index)
    images = torch.from_numpy(faces.images).permute(0, 3, 1, 2).float() / 255
    out, points = augment.encodes((images, torch.from_numpy(faces.points)))
    pixels = (out * 255).round().byte().permute(0, 2, 3, 1)
    return np.asarray(pixels), np.asarray(points)
