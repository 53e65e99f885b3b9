"""Grouping rows that show the same person or scene, by comparing their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from landmarks_fastai.data.aligned_patches import aligned_patches
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.grouping_cache import load_or_group
from landmarks_fastai.data.identities import group_identities
from landmarks_fastai.data.similar_pairs import DisjointSets, group_similar

Indices = NDArray[np.int64]

NEAR_DUPLICATE = 0.88
"""Minimum correlation of the patches of near-duplicates."""

MIN_ROWS = 100
"""With fewer rows, principal components are not reliable, and only near-duplicates are grouped."""

MAX_ROWS = 30_000
"""With more rows, clustering, whose time is quadratic in the rows, takes minutes, and only near-duplicates
are grouped."""


def group_near_duplicates(dataset: LandmarkDataset) -> Indices:
    """Return the group number of each row; rows of one person or scene have the same number.

    Rows of one image, or of identical ones, are always grouped. If the data set has groups, those are used.
    Otherwise rows are compared by their pixels, in two views aligned by the labeled landmarks
    (`aligned_patches`):

    1. Rows whose locally normalized patches correlate by at least `NEAR_DUPLICATE` are near-duplicates.
    2. The patches are clustered into identities (`group_identities`).

    Grouping different people costs little, but one person on both sides of a split makes the validation
    error too optimistic. The thresholds therefore favor grouping. With fewer than `MIN_ROWS` or more than
    `MAX_ROWS` rows, step 2 is skipped.

    The result is kept in the cache entry of the data set, if it has one, and computed only once.

    Returns
    -------
    NDArray
        (N,) int64, numbered from 0 in the order of first appearance.
    """
    return load_or_group(dataset, _group)


def grouping_notes(dataset: LandmarkDataset) -> tuple[str, ...]:
    """Return what the user should know about the grouping of a data set, one line each."""
    if dataset.groups is not None or len(dataset) <= MAX_ROWS:
        return ()
    return (
        f"{dataset.source}: of more than {MAX_ROWS:,} rows, only near-duplicates are grouped, so one person"
        " may be on both sides of the split; add a column 'group' with a person, video or scene",
    )


def _group(dataset: LandmarkDataset) -> Indices:
    groupings: list[NDArray[Any]] = [dataset.images.ids]
    if dataset.groups is not None:
        groupings.append(dataset.groups)
    elif len(dataset) > 1:
        groupings += _group_by_pixels(dataset)
    return _merge(groupings)


def _group_by_pixels(dataset: LandmarkDataset) -> list[Indices]:
    n = len(dataset)
    # the threads of BLAS wait for each other busily, which takes many times longer on a machine with other
    # work; there is one thread per processor above BLAS
    with threadpool_limits(1, user_api="blas"):
        patches = aligned_patches(dataset, n > MAX_ROWS)
        groupings = [group_similar(patches, NEAR_DUPLICATE)]
        if MIN_ROWS <= n <= MAX_ROWS:
            groupings.append(group_identities(patches))
    return groupings


def _merge(groupings: list[NDArray[Any]]) -> Indices:
    """Merge groupings: rows that share a group in any of them share a group; numbered by first appearance."""
    n = len(groupings[0])
    sets = DisjointSets(n)
    for groups in groupings:
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        sets.join(np.arange(n), first[inverse])
    return sets.labels()
