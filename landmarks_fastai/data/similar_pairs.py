"""Groups of rows that are connected by similar pairs, without listing all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.aligned_patches import Floats, Patches, unit_rows
from landmarks_fastai.utils.processors import map_in_threads

Indices = NDArray[np.int64]

BLOCK = 1024
"""Rows are compared in blocks of this size, whose products stay in the cache of the processor."""

SKETCH = 63
"""Number of principal components in which all pairs are compared."""

SAMPLE = 8192
"""Number of rows from which the principal components are computed; with fewer rows, none are needed."""

TOLERANCE = 1e-4
"""Added to the upper bounds of cosines, for the rounding of float32."""

ROUNDING = 1e-6
"""Upper bound of the rounding error of the squared length of a row in float32."""

DENSE = 1 / 32
"""Fraction of candidates in two blocks above which it is faster to compare all their rows."""

CHUNK = 512
"""Number of candidates that are compared at a time, whose patches stay in the cache of the processor."""

DENSE_CHUNK = 65_536
"""The same where all rows of two blocks have been compared."""


@dataclass(frozen=True)
class _Block:
    """Consecutive rows, and the set that each was in when their comparison began; both (n,) int64."""

    rows: Indices
    sets: Indices


@dataclass(frozen=True)
class _Rows:
    """What is needed to compare N rows.

    Parameters
    ----------
    patches
        (N, V, D), see `aligned_patches`.
    inverse_lengths
        (N, V) float32, the reciprocal length of each patch.
    sketches
        (N, SKETCH + 1) or (N, V * D) float32, see `_sketch`.
    """

    patches: Patches
    inverse_lengths: Floats
    sketches: Floats

    def cosines(self, first: Indices, second: Indices) -> Floats:
        """Return the cosine of each pair of rows."""
        one, other = (self.patches[rows].astype(np.float32, copy=False) for rows in (first, second))
        products = np.einsum("nvd,nvd->nv", one, other)
        products *= self.inverse_lengths[first] * self.inverse_lengths[second]
        return np.asarray(products.mean(axis=1))


class DisjointSets:
    """A partition of n rows that is made coarser by joining pairs of rows (union–find, Tarjan 1975).

    Parameters
    ----------
    n
        Number of rows, each of which is a set at first.
    """

    def __init__(self, n: int) -> None:
        self._parents = np.arange(n)

    def find(self, rows: Indices) -> Indices:
        """Return the representative, the lowest row, of the set of each row."""
        roots = self._parents[rows]
        while not np.array_equal(above := self._parents[roots], roots):
            roots = above
        self._parents[rows] = roots
        return np.asarray(roots)

    def join(self, first: Indices, second: Indices) -> None:
        """Join the sets of each pair of rows."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(first):
            return
        roots, inverse = np.unique([self.find(first), self.find(second)], return_inverse=True)
        starts, ends = inverse.reshape(2, -1)
        graph = coo_array((np.ones(len(starts), bool), (starts, ends)), shape=(len(roots), len(roots)))
        components = connected_components(graph, directed=False)[1]
        lowest = np.unique(components, return_index=True)[1]
        self._parents[roots] = roots[lowest[components]]

    def labels(self) -> Indices:
        """Return the (n,) number of the set of each row, from 0 in the order of first appearance."""
        return np.unique(self.find(np.arange(len(self._parents))), return_inverse=True)[1].astype(np.int64)


def group_similar(patches: Patches, min_cosine: float) -> Indices:
    """Group rows that are connected by cosines (of `unit_rows`) of at least `min_cosine`.

    The result is that of comparing all pairs, in less time and in memory linear in the rows. All pairs are
    compared in a sketch of few dimensions, the first principal components and the length of the remainder,
    whose cosines are upper bounds: with x = (p, r) split into orthogonal parts, x·y = p·p' + r·r'
    ≤ p·p' + |r||r'|. Only pairs above the threshold there, and not yet in one group, are compared in full.

    Parameters
    ----------
    patches
        (N, V, D), see `aligned_patches`.
    min_cosine
        Threshold.

    Returns
    -------
    NDArray
        (N,) group numbers, from 0 in the order of first appearance.
    """
    rows = _Rows(patches, _inverse_lengths(patches), _sketch(patches))
    sets = DisjointSets(len(patches))
    find = partial(_find_similar, rows, min_cosine)
    for first, second in map_in_threads(find, _open_blocks(sets, len(patches)), per_processor=8):
        sets.join(first, second)
    return sets.labels()


def _open_blocks(sets: DisjointSets, n: int) -> Iterator[tuple[_Block, _Block]]:
    """Yield the pairs of blocks of n rows, without those whose rows are all in one set by then.

    Neighbors come first, because similar rows are often consecutive.
    """
    blocks = [np.arange(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
    for distance in range(len(blocks)):
        for first, second in zip(blocks, blocks[distance:], strict=False):
            first_sets, second_sets = sets.find(first), sets.find(second)
            if (first_sets != second_sets[0]).any() or (second_sets != second_sets[0]).any():
                yield _Block(first, first_sets), _Block(second, second_sets)


def _find_similar(rows: _Rows, min_cosine: float, blocks: tuple[_Block, _Block]) -> tuple[Indices, Indices]:
    """Return pairs of rows that connect the similar rows of two blocks, except those that are in one set."""
    first, second = blocks[0].rows, blocks[1].rows
    products = rows.sketches[first] @ rows.sketches[second].T
    row, column = np.divmod(np.flatnonzero(products >= min_cosine - TOLERANCE), len(second))
    is_open = blocks[0].sets[row] != blocks[1].sets[column]
    row, column = row[is_open], column[is_open]
    is_dense = len(row) > DENSE * products.size
    if is_dense:
        np.matmul(unit_rows(rows.patches[first]), unit_rows(rows.patches[second]).T, out=products)
    both = np.concatenate([first, second])
    connected = DisjointSets(len(both))
    chunk = DENSE_CHUNK if is_dense else CHUNK
    for start in range(0, len(row), chunk):
        i, j = row[start : start + chunk], column[start : start + chunk]
        # the chunks before may have connected them
        is_open = connected.find(i) != connected.find(j + len(first))
        i, j = i[is_open], j[is_open]
        cosines = products[i, j] if is_dense else rows.cosines(first[i], second[j])
        is_similar = cosines >= min_cosine
        connected.join(i[is_similar], j[is_similar] + len(first))
    roots = connected.find(np.arange(len(both)))
    is_connected = roots != np.arange(len(both))
    return both[is_connected], both[roots[is_connected]]


def _inverse_lengths(patches: Patches) -> Floats:
    """Return the (N, V) reciprocal length of each patch."""
    lengths = np.empty(patches.shape[:2], np.float32)
    for start in range(0, len(patches), BLOCK):
        block = slice(start, start + BLOCK)
        lengths[block] = np.linalg.norm(patches[block].astype(np.float32, copy=False), axis=2)
    return np.asarray(1 / np.maximum(lengths, 1e-9), np.float32)


def _sketch(patches: Patches) -> Floats:
    """Return (N, D) unit vectors whose cosines are upper bounds of the cosines of the rows."""
    if len(patches) <= SAMPLE:
        return unit_rows(patches)
    sample = unit_rows(patches[np.linspace(0, len(patches) - 1, SAMPLE).astype(np.int64)])
    components = np.linalg.eigh(sample.T @ sample)[1][:, -SKETCH:]
    sketches = np.empty((len(patches), SKETCH + 1), np.float32)
    for start in range(0, len(patches), BLOCK):
        block = slice(start, start + BLOCK)
        sketches[block, :-1] = unit_rows(patches[block]) @ components
        # not less than the true length of the remainder, whatever the rounding
        sketches[block, -1] = np.sqrt(np.maximum(1 - (sketches[block, :-1] ** 2).sum(axis=1), 0) + ROUNDING)
    return sketches
