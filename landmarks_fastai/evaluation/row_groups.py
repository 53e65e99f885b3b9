"""Groups of rows that are not independent of each other: the units of confidence intervals and tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.near_duplicates import group_near_duplicates

FROM_DATA, NEAR_DUPLICATES, ROWS = "groups of the data", "groups of near-duplicates", "rows"
"""Where groups come from, in words. `ROWS`: every row is a group."""


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Group number of each row.

    Parameters
    ----------
    numbers
        (N,) int64; rows with the same number are not independent.
    origin
        `FROM_DATA`, `NEAR_DUPLICATES` or `ROWS`.
    """

    numbers: NDArray[np.int64]
    origin: str

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(np.unique(self.numbers))

    def subset(self, rows: NDArray[np.int64]) -> RowGroups:
        """Return the groups of some rows."""
        return RowGroups(self.numbers[rows], self.origin)


def find_row_groups(dataset: LandmarkDataset) -> RowGroups:
    """Return the groups that the data names, else near-duplicates, else rows if there are none.

    Near-duplicates are found in the whole data set, not only in the rows that are evaluated, because with
    more rows they are recognized more reliably.
    """
    if dataset.groups is not None:
        return RowGroups(dataset.groups, FROM_DATA)
    numbers = group_near_duplicates(dataset)
    is_single = len(np.unique(numbers)) == len(numbers)
    return RowGroups(numbers, ROWS if is_single else NEAR_DUPLICATES)
