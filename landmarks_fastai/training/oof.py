"""What each face's points are to the model that never saw its people, as a CSV.

Knows the columns. Knows nothing about how the models were trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.csvfile import CsvFile
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.files import write_csv
from landmarks_fastai.schema import Schema

OOF_NAME = "oof.csv"
FOLDS_NAME = "folds.json"
"""Beside it: the data, and how many folds have ended."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for all rows of a table, each by the model of the fold that held the row out.

    Parameters
    ----------
    fold
        (N,) int64, from 1.
    points
        (N, K, 2) float32, x then y, px of the table's images.
    confidence
        (N, K) float32, as `Landmarks` has it; NaN where the models were trained without.
    """

    fold: NDArray[np.int64]
    points: NDArray[np.float32]
    confidence: NDArray[np.float32]


def columns(schema: Schema) -> list[str]:
    """Name the columns: the face, its fold, and three for each point."""
    return [
        "face",
        "fold",
        *(f"{name}_{part}" for name in schema.points for part in ("x", "y", "confidence")),
    ]


def write_oof(path: Path, table: FaceTable, found: OutOfFold) -> None:
    """Write a row a face, in the order of the table."""
    triples = np.concatenate([found.points, found.confidence[..., None]], axis=2).reshape(len(table), -1)
    cells = (["" if math.isnan(value) else f"{value:.4g}" for value in row] for row in triples.tolist())
    rows = (
        [name, fold, *row] for name, fold, row in zip(table.names, found.fold.tolist(), cells, strict=True)
    )
    write_csv(path, [columns(table.schema), *rows])


def read_oof(path: Path, table: FaceTable) -> OutOfFold:
    """Read what `write_oof` wrote of the same table.

    Raises
    ------
    UserError
        If the file can't be read, or tells of other faces or points.
    """
    try:
        with path.open("rb") as stream:
            file = CsvFile(stream, str(path))
            if file.columns != columns(table.schema):
                raise UserError(
                    f"{path}: its columns are not those of {table.schema.name}; train the folds anew"
                )
            rows = list(_rows(file))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}); train the folds anew") from error
    if [name for name, _ in rows] != list(table.names):
        raise UserError(f"{path}: tells of other faces than {table.source} has; train the folds anew")
    numbers = np.array([values for _, values in rows], np.float64)
    triples = numbers[:, 1:].reshape(len(table), len(table.schema), 3).astype(np.float32)
    return OutOfFold(numbers[:, 0].astype(np.int64), triples[..., :2], triples[..., 2])


def _rows(file: CsvFile) -> Iterator[tuple[str, list[float]]]:
    for line, (name, *values) in file.rows():
        yield (
            name,
            [
                file.number(value, line, column)
                for column, value in zip(file.columns[1:], values, strict=True)
            ],
        )
