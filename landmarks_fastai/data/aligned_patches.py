"""Small patches of each row, aligned by its landmarks, with which the pixels of rows are compared."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.geometry import Complex, fit_similarity, to_complex
from landmarks_fastai.utils.processors import map_in_threads

Floats = NDArray[np.float32]
Patches = NDArray[np.float32] | NDArray[np.int8]

VIEWS = (3.2, 5.0)
"""Sides of the aligned patches, relative to the root mean square radius of the landmarks: the face, and the
face with its surroundings."""

PATCH_SIZE = 24
"""Side of a patch, in its own pixels."""

WORKING_SIZE = 96
"""Larger images are first reduced to this side, in pixels."""

COMPACT_WORKING_SIZE = 64
"""The same for compact patches, of which there are many: it halves the time."""

ROWS = 65_536
"""Number of rows whose alignment is computed at a time."""

MIN_LABELED = 0.9
"""A landmark is used for the alignment if it is labeled in more than this fraction of the rows."""


def aligned_patches(dataset: LandmarkDataset, compact: bool = False) -> Patches:
    """Extract the aligned patches of each row, in all `VIEWS`.

    The images are loaded block by block, and the blocks are processed in parallel.

    Parameters
    ----------
    dataset
        The data set.
    compact
        Return int8, a quarter of the memory. Only the direction of these vectors is meaningful; the cosine of
        two of them differs by about 0.001 from that of float32.

    Returns
    -------
    NDArray
        (N, V, PATCH_SIZE²) float32, unit vectors of mean zero; or int8.
    """
    size = min(dataset.size, COMPACT_WORKING_SIZE if compact else WORKING_SIZE)
    patches = np.empty((len(dataset), len(VIEWS), PATCH_SIZE**2), np.int8 if compact else np.float32)
    start = 0
    for block in map_in_threads(partial(_extract_block, size=size), _positioned_blocks(dataset)):
        patches[start : start + len(block)] = _to_int8(block) if compact else block
        start += len(block)
    return patches


def unit_rows(patches: Patches) -> Floats:
    """Return (n, V · PATCH_SIZE²) unit vectors, whose cosine is the mean of the cosines of the V views."""
    views = to_unit_length(patches.astype(np.float32, copy=False))
    n, count, size = views.shape
    return views.reshape(n, count * size) / np.float32(np.sqrt(count))


def to_unit_length(rows: NDArray[Any]) -> Floats:
    """Scale vectors, along the last axis, to a length of 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9), np.float32)


def _to_int8(rows: Floats) -> NDArray[np.int8]:
    largest = np.maximum(abs(rows).max(axis=-1, keepdims=True), 1e-9)
    return np.asarray(np.rint(rows * (127 / largest)), np.int8)


def _positioned_blocks(dataset: LandmarkDataset) -> Iterator[tuple[NDArray[np.uint8], Complex, Complex]]:
    """Yield the images of the data set in blocks, with the centers and the scales of `_alignment`."""
    centers, scales = _alignment(dataset)
    start = 0
    for images in dataset.images.blocks():
        block = slice(start, start + len(images))
        yield images, centers[block], scales[block]
        start = block.stop


def _extract_block(positioned: tuple[NDArray[np.uint8], Complex, Complex], size: int) -> Floats:
    """Extract the patches of (n, S, S, C) images, reduced to `size`; see `aligned_patches`."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    images, centers, scales = positioned
    factor = size / images.shape[1]
    ticks = (np.arange(PATCH_SIZE) + 0.5) / PATCH_SIZE - 0.5
    grid = ticks[None] + 1j * ticks[:, None]
    patches = np.empty((len(images), len(VIEWS), PATCH_SIZE, PATCH_SIZE), np.float32)
    for row, image in enumerate(images):
        gray = Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).convert("L")
        if factor < 1:
            gray = gray.resize((size, size), Image.Resampling.BOX)
        pixels = np.asarray(gray, np.float32)
        for view, side in enumerate(VIEWS):
            spacing = side * abs(scales[row]) * factor / PATCH_SIZE
            # the factor applies to edge coordinates, which are half a pixel larger than pixel coordinates
            positions = (centers[row] + side * scales[row] * grid + (0.5 + 0.5j)) * factor - (0.5 + 0.5j)
            smooth = gaussian_filter(pixels, 0.5 * spacing)
            patches[row, view] = map_coordinates(
                smooth, [positions.imag, positions.real], order=1, mode="nearest"
            )
    return _normalize_contrast(patches)


def _normalize_contrast(patches: Floats) -> Floats:
    """Normalize (n, V, S, S) patches locally and return them as (n, V, S²) unit vectors of mean zero.

    Locally, because lighting and exposure differ between images of one scene, but edges do not.
    """
    from scipy.ndimage import uniform_filter

    window = (0, 0, 7, 7)
    mean = uniform_filter(patches, window)
    variance = uniform_filter(patches * patches, window) - mean * mean
    normalized = (patches - mean) / (np.sqrt(np.maximum(variance, 0)) + 8)
    rows = normalized.reshape(*patches.shape[:2], -1)
    return to_unit_length(rows - rows.mean(axis=-1, keepdims=True))


def _alignment(dataset: LandmarkDataset) -> tuple[Complex, Complex]:
    """Return the position of each face: its center, and its scale and rotation as one complex number.

    Both (N,), pixels, x + iy. They are those of the similarity that maps the mean shape, with a root mean
    square radius of 1, to the landmarks that are labeled in most rows (`MIN_LABELED`). A row that cannot be
    fitted gets the mean position of the others or, if there are none, the center of the image.
    """
    n = len(dataset)
    centers = np.full(n, (dataset.size - 1) / 2 * (1 + 1j), np.complex128)
    scales = np.full(n, dataset.size / VIEWS[-1], np.complex128)
    anchors = np.flatnonzero(dataset.labeled.mean(axis=0) > MIN_LABELED)
    known = dataset.labeled[:, anchors]
    shape = _mean_shape(dataset.points, anchors, known)
    if shape is None:
        return centers, scales
    is_fitted = np.zeros(n, bool)
    for block in _blocks(n):
        fit = fit_similarity(_anchor_points(dataset.points, anchors, known, block), shape, known[block])
        is_fitted[block] = fitted = (
            (known[block].sum(axis=1) >= 2)
            & (fit.scatter > 1e-3)
            & (abs(fit.transform) > 0.01 * dataset.size)
        )
        scales[block][fitted] = fit.transform[fitted]
        centers[block][fitted] = (fit.points_mean - fit.transform * fit.shape_mean)[fitted]
    if is_fitted.any():
        scales[~is_fitted] = abs(scales[is_fitted]).mean()
        centers[~is_fitted] = centers[is_fitted].mean()
    return centers, scales


def _mean_shape(points: Floats, anchors: NDArray[np.int64], known: NDArray[np.bool_]) -> Complex | None:
    """Return the mean of the rows whose anchors are all known, centered, with a root mean square radius of 1.

    None if there is no such row, or fewer than two anchors.
    """
    complete = np.asarray(known.all(axis=1))
    if len(anchors) < 2 or not complete.any():
        return None
    sums = [
        _anchor_points(points, anchors, known, block)[complete[block]].sum(axis=0)
        for block in _blocks(len(points))
    ]
    shape = np.sum(sums, axis=0) / np.count_nonzero(complete)
    shape = shape - shape.mean()
    return np.asarray(shape / max(float(np.sqrt((abs(shape) ** 2).mean())), 1e-9))


def _anchor_points(
    points: Floats, anchors: NDArray[np.int64], known: NDArray[np.bool_], block: slice
) -> Complex:
    """Return the (n, A) landmarks of the anchors in a block of rows as x + iy; 0 where one is unknown."""
    return np.where(known[block], to_complex(points[block][:, anchors]), 0)


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, n, ROWS)]
