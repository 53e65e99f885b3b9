"""Clusters of rows that show the same person or scene but are not near-duplicates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.aligned_patches import Floats, Patches, to_unit_length
from landmarks_fastai.data.average_linkage import cluster_by_mean_cosine

COMPONENTS = 150
"""Maximum number of principal components."""


def group_identities(patches: Patches) -> NDArray[np.int64]:
    """Cluster the whitened patches, whiten them by the scatter within the clusters, and cluster again.

    Within-class covariance normalization: Hatch et al. 2006, "Within-class covariance normalization for
    SVM-based speaker recognition". Clusters are merged while their mean cosine is clearly higher than that of
    random directions.

    Parameters
    ----------
    patches
        (N, V, D), see `aligned_patches`.

    Returns
    -------
    NDArray
        (N,) cluster numbers.
    """
    k = min(COMPONENTS, len(patches) // 4)
    deviation = 1 / np.sqrt(k)  # standard deviation of the cosine of random directions in k dimensions
    views = patches.astype(np.float32, copy=False)
    components = [_whiten(views[:, view], k) for view in range(patches.shape[1])]
    clusters = cluster_by_mean_cosine(to_unit_length(components[0]), 4 * deviation)
    normalized = [to_unit_length(_normalize_within_class(view, clusters)) for view in components]
    return cluster_by_mean_cosine(to_unit_length(np.concatenate(normalized, axis=1)), 2 * deviation)


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
