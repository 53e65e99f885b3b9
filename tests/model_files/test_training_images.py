"""Which rows a model has not seen, judged by the images of its run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.training_images import format_ids, read_training_images, unseen_rows


def write_run(folder: Path, dataset: LandmarkDataset, valid: Sequence[int]) -> Path:
    """Write the files of a run that describe its data, and return its folder."""
    folder.mkdir()
    train = np.setdiff1d(np.arange(len(dataset)), valid).tolist()
    split = {"train": train, "valid": list(valid)}
    (folder / "data.json").write_text(json.dumps({"split": split, "images": format_ids(dataset.images.ids)}))
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder


def unseen(dataset: LandmarkDataset, *runs: Path) -> list[int] | None:
    rows = unseen_rows(runs, dataset)
    return None if rows is None else rows.tolist()


def other_images(dataset: LandmarkDataset) -> LandmarkDataset:
    return replace(dataset, images=255 - dataset.images[:])


def test_unseen_rows_are_validation_rows_of_all_runs(tmp_path: Path, dataset: LandmarkDataset) -> None:
    one = write_run(tmp_path / "one", dataset, [3, 5, 8, 13])
    two = write_run(tmp_path / "two", dataset, [13, 4, 5])
    other_data = write_run(tmp_path / "other", other_images(dataset), [1])
    no_run = tmp_path / "empty"
    no_run.mkdir()
    assert unseen(dataset, one) == [3, 5, 8, 13]
    assert unseen(dataset, one, two) == unseen(dataset, two, other_data, one) == [5, 13]
    assert unseen(dataset, other_data, one, no_run) == [3, 5, 8, 13]
    assert unseen(dataset, other_data, no_run) is None


def test_unseen_rows_do_not_depend_on_order_labels_or_other_rows(
    tmp_path: Path, dataset: LandmarkDataset
) -> None:
    """What used to pass as other data: another order, corrected labels, an additional row."""
    run = write_run(tmp_path / "run", dataset.subset(np.arange(59)), [3, 5])
    moved = replace(dataset, points=dataset.points + 1, digest="0", corrections="1")
    order = np.array([59, 5, 4, 3, 2])  # row 59 is new
    assert unseen(moved.subset(order), run) == [0, 1, 3]


def test_unseen_rows_leave_out_new_images_in_a_group_with_training_images(
    tmp_path: Path, dataset: LandmarkDataset
) -> None:
    run = write_run(tmp_path / "run", dataset.subset(np.arange(10)), [0])
    groups = np.arange(len(dataset))
    groups[20] = groups[4]  # another frame of a person in the training rows
    groups[21] = groups[0]  # another frame of a person in the validation rows
    expected = [0, *(row for row in range(10, 60) if row != 20)]
    assert unseen(replace(dataset, groups=groups), run) == expected


def test_unseen_rows_of_all_folds_raises(tmp_path: Path, dataset: LandmarkDataset) -> None:
    parts = np.array_split(np.arange(len(dataset)), 3)
    folds = [write_run(tmp_path / f"fold-{i}", dataset, part.tolist()) for i, part in enumerate(parts, 1)]
    with pytest.raises(UserError, match=r"one of these 3 models .* use other --data, .*out-of-fold"):
        unseen_rows(folds, dataset)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"images": ["x"]}', '{"images": [], "split": {"train": [1]}}', '{"images": [7]}'],
)
def test_read_training_images_of_damaged_file_raises(tmp_path: Path, content: str) -> None:
    assert read_training_images(tmp_path) is None
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(
        UserError, match=r"data\.json.*: .*(restore the original file|copy (it|the file) again)"
    ):
        read_training_images(tmp_path)
