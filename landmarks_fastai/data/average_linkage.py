"""Average linkage clustering of unit vectors in memory linear in their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.similar_pairs import DisjointSets
from landmarks_fastai.utils.processors import map_in_threads

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]

BLOCK = 512
"""Number of clusters that are compared with all others at a time."""


def cluster_by_mean_cosine(rows: Floats, min_cosine: float) -> Indices:
    """Cluster unit vectors by average linkage until no two clusters have a mean cosine above `min_cosine`.

    The mean cosine of two clusters is the product of their mean vectors, so no matrix of distances is
    needed. In each round, all pairs of clusters that are nearest neighbors of each other are merged, which
    gives the same clusters as merging the nearest pair of all, because average linkage is reducible: a merged
    cluster is never nearer to a third one than both of its parts (Murtagh 1983, "A survey of recent
    advances in hierarchical clustering algorithms").

    Parameters
    ----------
    rows
        (N, D) unit vectors.
    min_cosine
        Threshold.

    Returns
    -------
    NDArray
        (N,) cluster numbers, from 0 in the order of first appearance.
    """
    n = len(rows)
    means, sizes = rows.copy(), np.ones(n, np.int64)
    active = np.arange(n)
    sets = DisjointSets(n)
    neighbors, cosines = np.zeros(n, np.int64), np.zeros(n, np.float32)
    changed = active
    while len(active) > 1:
        neighbors[changed], cosines[changed] = _nearest(means, changed, active)
        # by reducibility, a cluster with no near neighbor never gets one
        active = active[cosines[active] >= min_cosine]
        first, second = _mutual_pairs(active, neighbors, cosines)
        if not len(first):
            break
        total = sizes[first] + sizes[second]
        share = (sizes[first] / total).astype(np.float32)[:, None]
        means[first] = share * means[first] + (1 - share) * means[second]
        sizes[first] = total
        sets.join(first, second)
        is_merged = np.zeros(n, bool)
        is_merged[first] = is_merged[second] = True
        active = np.setdiff1d(active, second)
        changed = active[is_merged[active] | is_merged[neighbors[active]]]
    return sets.labels()


def _nearest(means: Floats, clusters: Indices, active: Indices) -> tuple[Indices, Floats]:
    """Return the nearest other active cluster of each of `clusters`, and its mean cosine."""
    others = means[active]

    def nearest(block: Indices) -> tuple[Indices, Floats]:
        products = means[block] @ others.T
        index = np.arange(len(block))
        products[index, np.searchsorted(active, block)] = -np.inf
        best = products.argmax(axis=1)
        return active[best], products[index, best]

    blocks = [clusters[start : start + BLOCK] for start in range(0, len(clusters), BLOCK)]
    neighbors, cosines = np.empty(len(clusters), np.int64), np.empty(len(clusters), np.float32)
    for number, found in enumerate(map_in_threads(nearest, blocks)):
        block = slice(number * BLOCK, (number + 1) * BLOCK)
        neighbors[block], cosines[block] = found
    return neighbors, cosines


def _mutual_pairs(active: Indices, neighbors: Indices, cosines: Floats) -> tuple[Indices, Indices]:
    """Return the pairs of active clusters that are each other's nearest neighbor, the lower number first."""
    first = active[(neighbors[neighbors[active]] == active) & (active < neighbors[active])]
    if not len(first) and len(active):
        # the rounding of equal cosines can leave a cycle instead of a pair
        best = active[cosines[active].argmax()]
        first = np.minimum(best, neighbors[best])[None]
        return first, np.maximum(best, neighbors[best])[None]
    return first, neighbors[first]
