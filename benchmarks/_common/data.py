"""Data sets with their near-duplicate groups: held-out identities, and statistics over identities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.near_duplicates import group_near_duplicates
from landmarks_fastai.data.sources import load_dataset

Indices = NDArray[np.int64]

BOOTSTRAP_DRAWS = 1000


def load_with_groups(source: str) -> tuple[LandmarkDataset, Indices]:
    """Load a data set, and find the near-duplicate group of each row."""
    dataset = load_dataset(source)
    return dataset, group_near_duplicates(dataset)


def hold_out(groups: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split rows by whole groups, chosen at random.

    Returns
    -------
    tuple of NDArray
        Training rows, and held-out rows: at most `fraction` of all.
    """
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    sizes = np.array([(groups == group).sum() for group in order])
    chosen = order[np.cumsum(sizes) <= fraction * len(groups)]
    held_out = np.isin(groups, chosen)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def bootstrap_over_groups(
    sums: NDArray[np.float64], groups: Indices, counts: Indices | None = None
) -> NDArray[np.float64]:
    """Return the mean over all rows for each of `BOOTSTRAP_DRAWS` bootstrap draws (Efron 1979) of groups.

    Whole groups are drawn, with replacement, because the rows of one identity are not independent.

    Parameters
    ----------
    sums
        (n,) value of each row, or the sum of its values.
    groups
        (n,) group of each row.
    counts
        (n,) number of values of each row; 1 if None.
    """
    index = np.unique(groups, return_inverse=True)[1]
    totals = np.stack([np.bincount(index, sums), np.bincount(index, counts)])
    draws = np.random.default_rng(0).integers(0, totals.shape[1], (BOOTSTRAP_DRAWS, totals.shape[1]))
    numerators, denominators = totals[:, draws].sum(axis=2)
    return np.asarray(numerators / denominators)
