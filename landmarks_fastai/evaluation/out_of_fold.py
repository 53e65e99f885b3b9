"""Out-of-fold predictions of a cross-validation, and their CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.files import write_csv

OOF_NAME = "oof.csv"
FOLDS_NAME = "folds.json"
"""File of a cross-validation that describes its data set and counts the finished folds."""


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Predictions for all rows of a data set, each by the model of the fold that did not train on the row.

    Parameters
    ----------
    folds
        (N,) int64, the fold of each row, from 1.
    landmarks
        Predicted landmarks of the N rows, in pixels of the data set's images. Their scales are NaN if they
        were read from a file, which contains only confidences, and so is visibility if it is not predicted.
    """

    folds: NDArray[np.int64]
    landmarks: Landmarks


VALUES = ("x", "y", "confidence")
"""What the file contains of each landmark; also its visibility if that is predicted."""


def column_names(schema: LandmarkSchema, visibility: bool = False) -> list[str]:
    """Return the columns of the file: the row's name, its fold, and the values of each landmark."""
    values = (*VALUES, "visibility") if visibility else VALUES
    return ["face", "fold", *(f"{name}_{value}" for name in schema.names for value in values)]


def write_out_of_fold(path: Path, dataset: LandmarkDataset, predictions: OutOfFoldPredictions) -> None:
    """Write one line for each row, in the order of the data set.

    The numbers have as many digits as float32 needs, so that `read_out_of_fold` returns the same numbers.
    """
    landmarks = predictions.landmarks
    visibility = bool(np.isfinite(landmarks.visibility).any())
    parts = [landmarks.points, landmarks.confidence[..., None]]
    parts += [landmarks.visibility[..., None]] if visibility else []
    values = np.concatenate(parts, axis=2, dtype=np.float32).reshape(len(dataset), -1)
    cells = np.where(np.isnan(values), "", values.astype(np.str_))
    lines = (
        [name, fold, *row]
        for name, fold, row in zip(dataset.names, predictions.folds.tolist(), cells.tolist(), strict=True)
    )
    write_csv(path, [column_names(dataset.schema, visibility), *lines])


def read_out_of_fold(path: Path, dataset: LandmarkDataset) -> OutOfFoldPredictions:
    """Read the file that `write_out_of_fold` wrote for the same data set.

    Raises
    ------
    UserError
        If the file cannot be read, or has other rows or landmarks.
    """
    try:
        with path.open("rb") as stream:
            file = CsvReader(stream, str(path))
            with_visibility = file.columns == column_names(dataset.schema, visibility=True)
            if not with_visibility and file.columns != column_names(dataset.schema):
                raise UserError(
                    f"{path}: the columns are not the landmarks of {dataset.schema.name}; run the"
                    " cross-validation again"
                )
            rows = list(_parse_rows(file))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); run the cross-validation again"
        ) from error
    if [name for name, _ in rows] != list(dataset.names):
        raise UserError(f"{path}: the rows are not those of {dataset.source}; run the cross-validation again")
    numbers = np.array([values for _, values in rows], np.float64)
    values = numbers[:, 1:].reshape(len(dataset), len(dataset.schema), -1).astype(np.float32)
    confidence = values[..., 2]
    unknown = np.full_like(confidence, np.nan)
    visibility = values[..., 3] if with_visibility else unknown
    landmarks = Landmarks(values[..., :2], dataset.schema, confidence, unknown, visibility=visibility)
    return OutOfFoldPredictions(numbers[:, 0].astype(np.int64), landmarks)


def _parse_rows(file: CsvReader) -> Iterator[tuple[str, list[float]]]:
    """Yield the name and the numbers of each row."""
    for line, (name, *cells) in file.rows():
        columns = zip(file.columns[1:], cells, strict=True)
        yield name, [file.number(cell, line, column) for column, cell in columns]
