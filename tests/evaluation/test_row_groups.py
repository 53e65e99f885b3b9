"""Groups of rows: those of the data, else near-duplicates, else rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.evaluation.row_groups import FROM_DATA, NEAR_DUPLICATES, ROWS, find_row_groups


def test_groups_of_data_are_used_as_they_are(dataset: LandmarkDataset) -> None:
    numbers = np.arange(60) // 3
    groups = find_row_groups(replace(dataset, groups=numbers))
    assert (groups.origin, groups.count) == (FROM_DATA, 20)
    part = groups.subset(np.array([0, 1, 3]))
    assert part.numbers.tolist() == [0, 0, 1]
    assert part.count == 2


def test_near_duplicates_are_groups_and_rows_if_there_are_none(dataset: LandmarkDataset) -> None:
    alone = find_row_groups(dataset)
    assert (alone.origin, alone.count) == (ROWS, 60)
    copies = dataset.subset(np.tile(np.arange(30), 2))
    groups = find_row_groups(copies)
    assert (groups.origin, groups.count) == (NEAR_DUPLICATES, 30)
    assert (groups.numbers[:30] == groups.numbers[30:]).all()
