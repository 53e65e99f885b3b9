"""The CSV file of out-of-fold predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.out_of_fold import (
    OutOfFoldPredictions,
    column_names,
    read_out_of_fold,
    write_out_of_fold,
)
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import KAGGLE15

ROWS = np.arange(4)


@pytest.fixture
def predictions(dataset: LandmarkDataset) -> OutOfFoldPredictions:
    """Return predictions for the first four rows; the confidence of one landmark is unknown."""
    rng = np.random.default_rng(0)
    points = (np.nan_to_num(dataset.points[ROWS], nan=-1.5) + rng.normal(0, 1, (4, 15, 2))).astype(np.float32)
    points[0, 0] = 1e-7, -123456.79
    confidence = rng.random((4, 15), np.float32)
    confidence[2, 3] = np.nan
    landmarks = Landmarks(points, KAGGLE15, confidence, np.ones_like(confidence))
    return OutOfFoldPredictions(np.array([2, 1, 1, 2]), landmarks)


@pytest.fixture
def path(tmp_path: Path, dataset: LandmarkDataset, predictions: OutOfFoldPredictions) -> Path:
    """Return the path of the file of `predictions`."""
    write_out_of_fold(tmp_path / "oof.csv", dataset.subset(ROWS), predictions)
    return tmp_path / "oof.csv"


def test_out_of_fold_file_returns_what_was_written(
    path: Path, dataset: LandmarkDataset, predictions: OutOfFoldPredictions
) -> None:
    loaded = read_out_of_fold(path, dataset.subset(ROWS))
    np.testing.assert_array_equal(loaded.folds, predictions.folds)
    np.testing.assert_array_equal(loaded.landmarks.points, predictions.landmarks.points)
    np.testing.assert_array_equal(loaded.landmarks.confidence, predictions.landmarks.confidence)
    assert np.isnan(loaded.landmarks.visibility).all()
    assert np.isnan(loaded.landmarks.scales).all()
    assert loaded.landmarks.schema == KAGGLE15


def test_out_of_fold_file_has_one_line_per_row(path: Path, dataset: LandmarkDataset) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("face,fold,left_eye_center_x,left_eye_center_y,left_eye_center_confidence,")
    assert lines[0].split(",") == column_names(KAGGLE15)
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [name, fold] for name, fold in zip(dataset.names[:4], "2112", strict=True)
    ]
    assert lines[3].split(",")[2 + 3 * 3 + 2] == ""  # unknown confidence


def test_out_of_fold_file_has_visibility_if_it_is_predicted(
    tmp_path: Path, dataset: LandmarkDataset, predictions: OutOfFoldPredictions
) -> None:
    visibility = np.random.default_rng(1).random((4, 15), np.float32)
    landmarks = replace(predictions.landmarks, visibility=visibility)
    rows = dataset.subset(ROWS)
    write_out_of_fold(tmp_path / "oof.csv", rows, replace(predictions, landmarks=landmarks))
    header = (tmp_path / "oof.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header[2:6] == [f"left_eye_center_{value}" for value in ("x", "y", "confidence", "visibility")]
    loaded = read_out_of_fold(tmp_path / "oof.csv", rows).landmarks
    np.testing.assert_array_equal(loaded.visibility, visibility)
    np.testing.assert_array_equal(loaded.points, landmarks.points)


def test_out_of_fold_file_written_by_an_earlier_version_is_read(
    path: Path, dataset: LandmarkDataset, predictions: OutOfFoldPredictions
) -> None:
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    rounded = [
        ",".join([*cells[:2], *(f"{float(cell):.4g}" if cell else "" for cell in cells[2:])])
        for cells in (line.split(",") for line in lines)
    ]
    path.write_text("\n".join([first, *rounded]) + "\n", encoding="utf-8")
    loaded = read_out_of_fold(path, dataset.subset(ROWS))
    np.testing.assert_allclose(loaded.landmarks.points, predictions.landmarks.points, rtol=1e-3)


def test_out_of_fold_file_of_other_rows_is_refused(path: Path, dataset: LandmarkDataset) -> None:
    with pytest.raises(UserError, match=r"oof.csv: the rows are not those of .*; run the cross-validation"):
        read_out_of_fold(path, dataset.subset(ROWS + 1))


def test_out_of_fold_file_of_other_landmarks_is_refused(path: Path, dataset: LandmarkDataset) -> None:
    schema = LandmarkSchema("other", tuple(f"point {i}" for i in range(15)))
    other = replace(dataset.subset(ROWS), schema=schema)
    with pytest.raises(UserError, match=r"oof.csv: the columns are not the landmarks of other; run the"):
        read_out_of_fold(path, other)


def test_out_of_fold_file_that_is_missing_is_refused(tmp_path: Path, dataset: LandmarkDataset) -> None:
    with pytest.raises(UserError, match=r"oof.csv: cannot be read \(No such file.*\); run the cross-val"):
        read_out_of_fold(tmp_path / "oof.csv", dataset)
