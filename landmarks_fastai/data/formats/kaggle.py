"""Kaggle's Facial Keypoints Detection: training.csv, test.csv and IdLookupTable.csv, zipped or not.

https://www.kaggle.com/c/facial-keypoints-detection/data
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.cache import load_or_build
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.formats.base import csv_columns
from landmarks_fastai.data.formats.kaggle_archive import open_csv
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.csv_reader import CsvReader, check_point_range
from landmarks_fastai.utils.files import file_sha256
from landmarks_fastai.utils.text import quote, suggest

if TYPE_CHECKING:
    import pandas as pd


URL = "https://github.com/ko-redtruck/facial-landmark-detection/raw/main/facial-keypoints-detection.zip"
NAME = "kaggle"
ARCHIVE = "facial-keypoints-detection.zip"
ARCHIVE_BLOB = "910aaea5cb499befc292feee8da2a8945e0a276e"
"""Git blob SHA-1 of the zip at `URL`."""
ABOUT = "Kaggle's Facial Keypoints Detection"
MEMBER_BLOBS = {
    "training.zip": "42912e715e7d885eb8514c081f3d774533fea85b",
    "test.zip": "1bba825f7cca64dbc255634cec1ee0a80600d359",
}
"""Git blob SHA-1 of Kaggle's own files in that zip."""

SIDE = 96
"""Width and height of the images, pixels."""
COLUMNS = tuple(f"{landmark}_{axis}" for landmark in KAGGLE15.names for axis in "xy")
MAX_INT = 2**63 - 1


def read_training(path: Path) -> LandmarkDataset:
    """Read the labeled faces.

    Parameters
    ----------
    path
        Kaggle's zip (`ARCHIVE`), training.zip, training.csv, or a folder with one of them.

    Returns
    -------
    LandmarkDataset
        96 × 96 px gray with the schema `KAGGLE15`. A row is named by its line in the CSV: "training.csv line
        2". The digest is that of the images and labels, and therefore independent of how they are packed.

    Raises
    ------
    UserError
        If the file has other content, is damaged, or has a row that cannot be used. The message names the
        file and, for a row, the line.
    """
    path = find_file(path, "training")
    pixels = bytearray()
    points: list[list[tuple[float, float]]] = []
    names: list[str] = []
    with open_csv(path, "training") as (reader, name):
        columns = _training_columns(reader)
        for line, fields in reader.rows():
            points.append(_parse_points(reader, line, fields, columns))
            pixels += parse_pixels(fields[columns.image], reader.at(line))
            names.append(f"{name} line {line}")
        if not names:
            raise UserError(f"{reader.source}: no rows after the header")
    coordinates = np.array(points, dtype=np.float32)
    digest = hashlib.sha256(pixels)
    digest.update(coordinates.tobytes())
    return LandmarkDataset(
        images=ImageArray(_to_images(pixels)),
        points=coordinates,
        schema=KAGGLE15,
        names=tuple(names),
        source=str(path),
        digest=digest.hexdigest(),
    )


def read_test(path: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Read the test images, whose labels are not public.

    Returns
    -------
    tuple
        ImageId (M,) int64 and images (M, 96, 96, 1) uint8, in the order of the file.

    Raises
    ------
    UserError
        See `read_training`; also if an ImageId occurs twice.
    """
    path = find_file(path, "test")
    pixels = bytearray()
    lines: dict[int, int] = {}
    with open_csv(path, "test") as (reader, _):
        id_column, image_column = _column_indices(reader, ("ImageId", "Image"))
        for line, fields in reader.rows():
            image_id = _parse_int(fields[id_column], reader.at(line), "ImageId")
            if image_id in lines:
                raise UserError(
                    f"{reader.at(line)}: ImageId {image_id} also occurs in line {lines[image_id]}; remove one"
                    " of them"
                )
            lines[image_id] = line
            pixels += parse_pixels(fields[image_column], reader.at(line))
        if not lines:
            raise UserError(f"{reader.source}: no rows after the header")
    return np.array(list(lines), dtype=np.int64), _to_images(pixels)


def read_lookup(path: Path) -> pd.DataFrame:
    """Read which coordinate of which image each row of a submission must contain.

    Returns
    -------
    DataFrame
        RowId int64, ImageId int64, FeatureName str, in the order of IdLookupTable.csv.

    Raises
    ------
    UserError
        See `read_training`.
    """
    import pandas as pd

    path = find_file(path, "IdLookupTable")
    names = ("RowId", "ImageId", "FeatureName")
    rows: list[tuple[int, int, str]] = []
    with open_csv(path, "IdLookupTable") as (reader, _):
        row_column, id_column, feature_column = _column_indices(reader, names)
        for line, fields in reader.rows():
            row_id = _parse_int(fields[row_column], reader.at(line), "RowId")
            image_id = _parse_int(fields[id_column], reader.at(line), "ImageId")
            rows.append((row_id, image_id, fields[feature_column]))
        if not rows:
            raise UserError(f"{reader.source}: no rows after the header")
    return pd.DataFrame(rows, columns=list(names))


# --- the format ----------------------------------------------------------------------------------


def recognizes(path: Path) -> bool:
    """Return True for a folder with Kaggle's files, any zip, or a CSV with one of Kaggle's columns."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("training.csv", "training.zip", ARCHIVE))
    if _is_zip(path):
        return True
    columns = set(csv_columns(path))
    return "image" not in columns and bool({"ImageId", *COLUMNS} & columns)


def load_training(path: Path, cache: Path) -> LandmarkDataset:
    """Return the training data from the cache, or read it (`read_training`)."""
    path = find_file(path, "training")
    key = (file_sha256(path), path.name)
    return load_or_build(cache, NAME, key, lambda _: read_training(path))


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return path.suffix.lower() == ".zip" or stream.read(2) == b"PK"
    except OSError:
        return False


def find_file(path: Path, stem: str) -> Path:
    """Return the file that contains `stem`.csv: the path itself, or a file in the folder.

    Parameters
    ----------
    path
        Kaggle's zip (`ARCHIVE`), a zip in it, a CSV, or a folder with one of them.
    stem
        ``"training"``, ``"test"`` or ``"IdLookupTable"``.

    Raises
    ------
    UserError
        If there is no such file.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    names = (f"{stem}.csv", f"{stem}.zip", ARCHIVE)
    for name in names:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: the folder has none of {', '.join(names)}")


# --- parsing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TrainingColumns:
    """Indices of the columns of training.csv: x and y of the K landmarks, and the image."""

    x: list[int]
    y: list[int]
    image: int


def _training_columns(reader: CsvReader) -> _TrainingColumns:
    if "ImageId" in reader.columns and not set(COLUMNS) & set(reader.columns):
        raise UserError(
            f"{reader.source}: this is Kaggle's test.csv, which has no landmarks; name training.csv"
        )
    *coordinates, image = _column_indices(reader, (*COLUMNS, "Image"))
    return _TrainingColumns(coordinates[::2], coordinates[1::2], image)


def _column_indices(reader: CsvReader, names: tuple[str, ...]) -> list[int]:
    for name in names:
        if name not in reader.columns:
            others = [column for column in reader.columns if column not in names] or reader.columns
            # shortened, because in a file without a header these are pixels
            hint = suggest(name, [column[:40] for column in others[:12]])
            raise UserError(f"{reader.source}: the column {name!r} is missing; {hint}")
    return [reader.columns.index(name) for name in names]


def _parse_points(
    reader: CsvReader, line: int, fields: list[str], columns: _TrainingColumns
) -> list[tuple[float, float]]:
    points = []
    for name, x, y in zip(KAGGLE15.names, columns.x, columns.y, strict=True):
        point = reader.pair(line, name, fields[x], fields[y])
        check_point_range(reader.at(line), name, point, (SIDE, SIDE))
        points.append(point)
    return points


def _parse_int(text: str, location: str, column: str) -> int:
    try:
        value = int(text)
    except ValueError:  # also for a number with more digits than Python converts
        value = MAX_INT + 1
    if abs(value) > MAX_INT:
        raise UserError(f"{location}: {column} is {quote(text)}; enter an integer of at most 18 digits")
    return value


def parse_pixels(text: str, location: str) -> bytes:
    """Parse 96 × 96 gray values separated by spaces.

    Parameters
    ----------
    text
        Field of the column ``Image``.
    location
        Location of the row in messages.

    Raises
    ------
    UserError
        If there are other characters than digits, more or fewer values, or a value exceeds 255.
    """
    encoded = text.encode()
    invalid = encoded.translate(None, b"0123456789 ")
    if invalid:
        character = invalid.decode(errors="replace")[0]
        raise UserError(f"{location}: {character!r} among the pixels; they must be integers from 0 to 255")
    values = np.fromstring(text, dtype=np.int64, sep=" ") if encoded.strip() else np.empty(0, np.int64)
    if len(values) != SIDE * SIDE:
        raise UserError(
            f"{location}: {len(values):,} pixels, but {SIDE * SIDE:,} ({SIDE} × {SIDE}) are needed"
        )
    if values.max() > 255:
        raise UserError(f"{location}: a pixel has the value {values.max()}; it must be from 0 to 255")
    return values.astype(np.uint8).tobytes()


def _to_images(pixels: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE, 1)
