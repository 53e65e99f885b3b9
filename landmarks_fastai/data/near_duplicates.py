"""Grouping rows that show the same person or scene, by comparing their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.geometry import Complex, fit_similarity, to_complex

Floats = NDArray[np.float32]

VIEWS = (3.2, 5.0)
"""Sides of the aligned patches, relative to the root mean square radius of the landmarks: the face, and the
face with its surroundings."""

PATCH_SIZE = 24
"""Side of a patch, in its own pixels."""

WORKING_SIZE = 96
"""Larger images are first reduced to this side, in pixels."""

COMPONENTS = 150
"""Maximum number of principal components."""

NEAR_DUPLICATE = 0.88
"""Minimum correlation of the patches of near-duplicates."""

MIN_ROWS = 100
"""With fewer rows, principal components are not reliable, and only near-duplicates are grouped."""

MAX_ROWS = 12_000
"""With more rows, clustering needs gigabytes of memory, and only near-duplicates are grouped."""

MIN_LABELED = 0.9
"""A landmark is used for the alignment if it is labeled in more than this fraction of the rows."""


def group_near_duplicates(dataset: LandmarkDataset) -> NDArray[np.int64]:
    """Return the group number of each row; rows of one person or scene have the same number.

    Identical images are always grouped. If the data set has groups, those are used. Otherwise rows are
    compared by their pixels, in two views aligned by the labeled landmarks:

    1. Rows whose locally normalized patches correlate by at least `NEAR_DUPLICATE` are near-duplicates.
    2. The patches are projected on whitened principal components and clustered by average linkage, then
       whitened by the scatter within the clusters (within-class covariance normalization, Hatch et al. 2006,
       "Within-class covariance normalization for SVM-based speaker recognition") and clustered again.
       Clusters are merged while their mean cosine is clearly higher than that of random directions.

    Grouping different people costs little, but one person on both sides of a split makes the validation
    error too optimistic. The thresholds therefore favor grouping. With fewer than `MIN_ROWS` or more than
    `MAX_ROWS` rows, step 2 is skipped.

    Returns
    -------
    NDArray
        (N,) int64, numbered from 0 in the order of first appearance.
    """
    groupings = [_group_identical_images(dataset)]
    if dataset.groups is not None:
        groupings.append(np.unique(dataset.groups, return_inverse=True)[1])
    elif len(dataset) > 1:
        views = _aligned_patches(dataset)
        both_views = np.concatenate(views, axis=1) / np.float32(np.sqrt(len(views)))
        groupings.append(_group_correlated(both_views))
        if MIN_ROWS <= len(dataset) <= MAX_ROWS:
            groupings.append(_group_identities(views))
    return _merge(groupings)


# --- groupings -----------------------------------------------------------------------------------


def _group_identical_images(dataset: LandmarkDataset) -> NDArray[np.int64]:
    first: dict[bytes, int] = {}
    digests = dataset.image_digests()
    return np.array([first.setdefault(digest, row) for row, digest in enumerate(digests)], np.int64)


def _group_correlated(rows: Floats) -> NDArray[np.int64]:
    """Group unit vectors that are connected by cosines of at least `NEAR_DUPLICATE`."""
    pairs = [np.empty((2, 0), np.int64)]
    for row, cosines in _iter_cosines(rows):
        others = np.flatnonzero(cosines >= NEAR_DUPLICATE) + row + 1
        pairs.append(np.stack([np.full(len(others), row), others]))
    first, second = np.concatenate(pairs, axis=1)
    return _connected_components(first, second, len(rows))


def _merge(groupings: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Merge groupings: rows that share a group in any of them share a group; numbered by first appearance."""
    n = len(groupings[0])
    starts, ends = [], []
    for groups in groupings:
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        starts.append(np.arange(n))
        ends.append(first[inverse])
    merged = _connected_components(np.concatenate(starts), np.concatenate(ends), n)
    _, first, inverse = np.unique(merged, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _connected_components(first: NDArray[np.int64], second: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the connected component of each of n rows, given the pairs of connected rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


# --- aligned patches -----------------------------------------------------------------------------


def _aligned_patches(dataset: LandmarkDataset) -> list[Floats]:
    """Extract the aligned patches and return, for each view, (N, PATCH_SIZE²) unit vectors of mean zero."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    centers, scales = _alignment(dataset)
    factor = min(dataset.size, WORKING_SIZE) / dataset.size
    ticks = (np.arange(PATCH_SIZE) + 0.5) / PATCH_SIZE - 0.5
    grid = ticks[None] + 1j * ticks[:, None]
    patches = np.empty((len(VIEWS), len(dataset), PATCH_SIZE, PATCH_SIZE), np.float32)
    for row, image in enumerate(dataset.images):
        gray = Image.fromarray(image if dataset.channels == 3 else image[..., 0]).convert("L")
        if factor < 1:
            gray = gray.resize((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
        pixels = np.asarray(gray, np.float32)
        for view, side in enumerate(VIEWS):
            spacing = side * abs(scales[row]) * factor / PATCH_SIZE
            # the factor applies to edge coordinates, which are half a pixel larger than pixel coordinates
            positions = (centers[row] + side * scales[row] * grid + (0.5 + 0.5j)) * factor - (0.5 + 0.5j)
            smooth = gaussian_filter(pixels, 0.5 * spacing)
            patches[view, row] = map_coordinates(
                smooth, [positions.imag, positions.real], order=1, mode="nearest"
            )
    return [_normalize_contrast(view) for view in patches]


def _normalize_contrast(patches: Floats) -> Floats:
    """Normalize (N, S, S) patches locally and return them as (N, S²) unit vectors of mean zero.

    Locally, because lighting and exposure differ between images of one scene, but edges do not.
    """
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(patches, (0, 7, 7))
    variance = uniform_filter(patches * patches, (0, 7, 7)) - mean * mean
    normalized = (patches - mean) / (np.sqrt(np.maximum(variance, 0)) + 8)
    rows = normalized.reshape(len(patches), -1)
    return _to_unit_length(rows - rows.mean(axis=1, keepdims=True))


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
    complete = known.all(axis=1)
    if len(anchors) < 2 or not complete.any():
        return centers, scales
    points = np.where(known, to_complex(dataset.points[:, anchors]), 0)
    shape = points[complete].mean(axis=0)
    shape = shape - shape.mean()
    shape = shape / max(float(np.sqrt((abs(shape) ** 2).mean())), 1e-9)
    fit = fit_similarity(points, shape, known)
    is_fitted = (known.sum(axis=1) >= 2) & (fit.scatter > 1e-3) & (abs(fit.transform) > 0.01 * dataset.size)
    if is_fitted.any():
        fitted_scales = fit.transform[is_fitted]
        fitted_centers = (fit.points_mean - fit.transform * fit.shape_mean)[is_fitted]
        scales[:], centers[:] = abs(fitted_scales).mean(), fitted_centers.mean()
        scales[is_fitted], centers[is_fitted] = fitted_scales, fitted_centers
    return centers, scales


# --- clustering ----------------------------------------------------------------------------------


def _group_identities(views: list[Floats]) -> NDArray[np.int64]:
    """Cluster the whitened patches, whiten them by the scatter within the clusters, and cluster again."""
    k = min(COMPONENTS, len(views[0]) // 4)
    deviation = 1 / np.sqrt(k)  # standard deviation of the cosine of random directions in k dimensions
    components = [_whiten(view, k) for view in views]
    clusters = _cluster(_to_unit_length(components[0]), 4 * deviation)
    normalized = [_to_unit_length(_normalize_within_class(view, clusters)) for view in components]
    return _cluster(_to_unit_length(np.concatenate(normalized, axis=1)), 2 * deviation)


def _whiten(rows: Floats, k: int) -> NDArray[np.float64]:
    """Project rows onto their first k principal components, each scaled to variance 1."""
    centered = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh((centered.T @ centered).astype(np.float64) / len(rows))
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    return np.asarray(centered @ (vectors / np.sqrt(np.maximum(values, 1e-12))))


def _normalize_within_class(rows: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Transform rows linearly so that the scatter within classes is the same in all directions."""
    sizes, k = np.bincount(classes), rows.shape[1]
    in_shared_class = sizes[classes] > 1
    if np.count_nonzero(in_shared_class) <= k:
        return rows
    sums = np.stack([np.bincount(classes, column) for column in rows.T], axis=1)
    means = sums / np.maximum(sizes, 1)[:, None]
    deviations = (rows - means[classes])[in_shared_class]
    scatter = deviations.T @ deviations / (len(deviations) - np.count_nonzero(sizes > 1))
    # shrunk by 10 % toward an isotropic scatter, so that poorly estimated directions are not amplified
    scatter = 0.9 * scatter + 0.1 * np.trace(scatter) / k * np.eye(k)
    values, vectors = np.linalg.eigh(scatter)
    return np.asarray(rows @ vectors / np.sqrt(values))


def _cluster(rows: Floats, min_cosine: float) -> NDArray[np.int64]:
    """Cluster unit vectors by average linkage until no two clusters have a mean cosine above `min_cosine`."""
    from scipy.cluster.hierarchy import fcluster, linkage

    n = len(rows)
    distances = np.empty(n * (n - 1) // 2)
    start = 0
    for _, cosines in _iter_cosines(rows):
        distances[start : start + len(cosines)] = np.clip(1 - cosines, 0, 2)
        start += len(cosines)
    tree = linkage(distances, method="average")
    return np.asarray(fcluster(tree, 1 - min_cosine, criterion="distance"), np.int64) - 1


def _iter_cosines(rows: Floats, block: int = 512) -> Iterator[tuple[int, Floats]]:
    """Yield each row index i and the cosines of row i with rows i + 1 …; compute them block by block."""
    for start in range(0, len(rows), block):
        products = rows[start : start + block] @ rows[start:].T
        for offset, row in enumerate(products):
            yield start + offset, row[offset + 1 :]


def _to_unit_length(rows: NDArray[Any]) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
