"""Patches are aligned by the landmarks, insensitive to lighting, and the same for any block of images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from landmarks_fastai.data import aligned_patches as module
from landmarks_fastai.data.aligned_patches import PATCH_SIZE, VIEWS, aligned_patches, unit_rows
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.utils import processors

FACES = draw_synthetic_faces(12, seed=3)


def cosines(dataset: LandmarkDataset, compact: bool = False) -> np.ndarray:
    rows = unit_rows(aligned_patches(dataset, compact))
    return rows @ rows.T


def test_aligned_patches_are_unit_vectors_of_mean_zero():
    patches = aligned_patches(FACES)
    assert patches.shape == (12, len(VIEWS), PATCH_SIZE**2)
    assert patches.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(patches, axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(patches.mean(axis=2), 0, atol=1e-6)


def test_aligned_patches_follow_rotated_and_darker_face():
    """A face rotated by 90° about the center, with its landmarks, has the same patches."""
    x, y = FACES.points[0].T
    rotated = (np.rot90(FACES.images[0]) * 0.8).astype(np.uint8)
    dataset = dataclasses.replace(
        FACES,
        images=np.concatenate([FACES.images[:], rotated[None]]),
        points=np.concatenate([FACES.points, np.stack([y, FACES.size - 1 - x], axis=-1)[None]]),
        names=(*FACES.names, "rotated"),
    )
    products = cosines(dataset)
    assert products[0, 12] > 0.95
    assert products[1:12, 12].max() < 0.6


@pytest.mark.parametrize(("compact", "side"), [(False, 96), (True, 64)])
def test_aligned_patches_reduce_large_images_without_shift(compact, side):
    """Images enlarged three times, landmarks included, have nearly the same patches."""
    large = FACES.images[:].repeat(3, axis=1).repeat(3, axis=2)
    enlarged = dataclasses.replace(FACES, images=large, points=(FACES.points + 0.5) * 3 - 0.5)
    rows, others = (unit_rows(aligned_patches(dataset, compact)) for dataset in (FACES, enlarged))
    same = (rows * others).sum(axis=1)
    assert same.min() > 0.99 if side < 96 else same.min() > 0.9999


def test_aligned_patches_compact_have_nearly_the_same_cosines():
    compact = aligned_patches(FACES, compact=True)
    assert compact.dtype == np.int8
    assert abs(compact).max(axis=2).min() == 127
    # rounding to int8 alone
    exact = aligned_patches(FACES)
    rounded = module._to_int8(exact)
    rows, expected = unit_rows(rounded), unit_rows(exact)
    np.testing.assert_allclose(rows @ rows.T, expected @ expected.T, atol=0.003)
    # with the smaller working size, which smooths a little more
    np.testing.assert_allclose(cosines(FACES, compact=True), cosines(FACES), atol=0.08)


def test_aligned_patches_do_not_depend_on_blocks_or_threads(monkeypatch):
    expected = aligned_patches(FACES)
    loaded: list[int] = []

    class SmallBlocks(ImageArray):
        def blocks(self, size: int = 5):
            for block in super().blocks(size):
                loaded.append(len(block))
                yield block

    dataset = dataclasses.replace(FACES, images=SmallBlocks(FACES.images[:]))
    for workers in (1, 2, 7):
        monkeypatch.setattr(processors, "available_processors", lambda workers=workers: workers)
        np.testing.assert_array_equal(aligned_patches(dataset), expected)
    assert loaded == [5, 5, 2] * 3


def test_alignment_does_not_depend_on_blocks_of_rows(monkeypatch):
    points = FACES.points.copy()
    points[4, 0], points[7] = np.nan, np.nan
    dataset = dataclasses.replace(FACES, points=points)
    monkeypatch.setattr(module, "MIN_LABELED", 0.5)
    centers, scales = module._alignment(dataset)
    monkeypatch.setattr(module, "ROWS", 5)
    in_blocks = module._alignment(dataset)
    np.testing.assert_allclose(in_blocks[0], centers, rtol=1e-12)
    np.testing.assert_allclose(in_blocks[1], scales, rtol=1e-12)
    others = np.delete(np.arange(12), 7)
    assert centers[7] == pytest.approx(centers[others].mean())
    assert scales[7] == pytest.approx(abs(scales[others]).mean())
