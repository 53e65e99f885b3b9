"""Data sets in a CSV of landmarks and image files, which are cropped and resized to a common size."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.cache import load_or_parse
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.formats.base import Format, csv_columns
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop, center_crop, extract_crop, outside_square
from landmarks_fastai.schema import LandmarkSchema, schema_from_names
from landmarks_fastai.utils.csv_reader import CsvReader, check_point_range
from landmarks_fastai.utils.files import file_sha256
from landmarks_fastai.utils.images import read_image
from landmarks_fastai.utils.text import suggest

Floats = NDArray[np.float64]

CSV_NAME = "landmarks.csv"
SCHEMA_NAME = "schema.json"
CROPS = ("landmarks", "image")
DEFAULT_SIZE = 128
MARGIN = 1.6
"""Side of the crop around the landmarks, relative to the longer side of their bounding box."""


def read_csv_dataset(
    path: Path, cache: Path, *, size: int = DEFAULT_SIZE, crop: str = "landmarks"
) -> LandmarkDataset:
    """Read a CSV of landmarks and the image files that it lists.

    The columns are ``image``, then ``NAME_x`` and ``NAME_y`` for each landmark, and optionally ``group``:
    any text that is the same for all rows of one person or scene. Coordinates are pixels of the upright
    image, after its EXIF orientation is applied, as annotation tools show it. An empty cell means that the
    landmark is unlabeled. Images are searched for in the folder of the CSV, then in its subfolder ``images``.
    The schema is read from ``schema.json`` (`LandmarkSchema.to_dict`) next to the CSV, or follows from the
    column names.

    The cache key is derived from the content of the CSV and the paths, sizes and modification times of the
    images, because hashing gigabytes of images on every start would take too long. `LandmarkDataset.digest`
    is computed once, from the contents, and is therefore the same for a copy of the folder.

    Parameters
    ----------
    path
        The CSV, or a folder with ``landmarks.csv``.
    cache
        Cache folder, see `load_or_parse`.
    size
        Side of the resized crops, pixels.
    crop
        ``"landmarks"``: a crop around the labeled landmarks, 1.6 times as large as the longer side of their
        bounding box; the center crop if that side is less than 1 pixel or unknown. ``"image"``: the center
        crop of the image. Outside the image, edge pixels are repeated.

    Returns
    -------
    LandmarkDataset
        Gray if all images are gray, whatever their file format, else RGB. Landmarks outside the crop are NaN.

    Raises
    ------
    UserError
        If the CSV, one of its rows or an image cannot be used. The message names the file and the line.
    """
    if crop not in CROPS:
        raise UserError(f"data.crop: no such crop {crop!r}; {suggest(crop, CROPS)}")
    if size < 1:
        raise UserError(f"data.image_size: {size} must be at least 1 pixel")
    labels = _read_labels(_find_csv(path))
    key = (*labels.cache_key(), str(size), crop)
    return load_or_parse(cache, "csv", key, lambda: _read_images(labels, size, crop))


def _recognizes(path: Path) -> bool:
    return (path / CSV_NAME).is_file() if path.is_dir() else "image" in csv_columns(path)


def _read(path: Path, data: DataConfig, cache: Path) -> LandmarkDataset:
    size = DEFAULT_SIZE if data.image_size is None else data.image_size
    return read_csv_dataset(path, cache, size=size, crop=data.crop or "landmarks")


FORMAT = Format(_recognizes, _read, options=frozenset({"image_size", "crop"}))


# --- the CSV -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A row of the CSV.

    Parameters
    ----------
    line
        Line number in the CSV.
    location
        Location of the row in messages: "landmarks.csv, line 2".
    image
        File name of the image, as in the CSV.
    path
        Path of the image.
    points
        (K, 2) pixels of the image; NaN where unlabeled.
    """

    line: int
    location: str
    image: str
    path: Path
    points: Floats


@dataclass(frozen=True)
class _Labels:
    """The content of the CSV.

    Parameters
    ----------
    csv
        Path of the CSV.
    sha256
        SHA-256 of the CSV, as hex.
    schema
        Names of the K landmarks.
    rows
        The N rows.
    groups
        (N,) group numbers; None without the column ``group``.
    """

    csv: Path
    sha256: str
    schema: LandmarkSchema
    rows: list[_Row]
    groups: NDArray[np.int64] | None

    def cache_key(self) -> tuple[str, ...]:
        """Return strings that change when the CSV, the schema or an image changes."""
        images = hashlib.sha256()
        for row in self.rows:
            status = row.path.stat()
            images.update(f"{row.path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return str(self.csv), self.sha256, json.dumps(self.schema.to_dict()), images.hexdigest()


def _find_csv(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if not (path / CSV_NAME).is_file():
        raise UserError(f"{path}: no {CSV_NAME} in this folder; name the CSV itself if it has another name")
    return path / CSV_NAME


def _read_labels(csv: Path) -> _Labels:
    """Read and validate the CSV and the schema."""
    try:
        content = csv.read_bytes()
    except OSError as error:
        raise UserError(f"{csv}: cannot be read ({error.strerror or error})") from error
    reader = CsvReader(io.BytesIO(content), str(csv))
    schema = _read_schema(reader, csv)
    image = reader.columns.index("image")
    columns = [
        (name, reader.columns.index(f"{name}_x"), reader.columns.index(f"{name}_y")) for name in schema.names
    ]
    rows: list[_Row] = []
    groups: list[str] = []
    for line, fields in reader.rows():
        points = [reader.pair(line, name, fields[x], fields[y]) for name, x, y in columns]
        path = _find_image(csv, fields[image], reader.at(line))
        rows.append(_Row(line, reader.at(line), fields[image], path, np.array(points)))
        if "group" in reader.columns:
            groups.append(_parse_group(fields[reader.columns.index("group")], reader.at(line)))
    if not rows:
        raise UserError(f"{csv}: no rows after the header")
    return _Labels(
        csv=csv,
        sha256=hashlib.sha256(content).hexdigest(),
        schema=schema,
        rows=rows,
        groups=_number_groups(groups) if groups else None,
    )


def _parse_group(text: str, location: str) -> str:
    if not text.strip():
        raise UserError(f"{location}: 'group' is empty; enter a group in every row, or remove the column")
    return text.strip()


def _number_groups(groups: list[str]) -> NDArray[np.int64]:
    """Return the group number of each row, numbered in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def _read_schema(reader: CsvReader, csv: Path) -> LandmarkSchema:
    """Return the schema of schema.json if there is one, else the schema that follows from the columns."""
    names = _landmark_names(reader.columns, csv)
    path = csv.with_name(SCHEMA_NAME)
    if not path.is_file():
        return schema_from_names(csv.stem, names)
    schema = _read_schema_json(path)
    if set(schema.names) != set(names):
        name = min(set(schema.names) ^ set(names))
        present, missing = (csv, path) if name in names else (path, csv)
        raise UserError(
            f"{present}: has the landmark {name!r}, which {missing} does not have; use the same names"
        )
    return schema


def _landmark_names(columns: list[str], csv: Path) -> list[str]:
    """Return the landmark names of the columns NAME_x and NAME_y, and check the other columns."""
    if "image" not in columns:
        hint = suggest("image", [column[:40] for column in columns[:12]])
        raise UserError(f"{csv}: the column 'image' is missing; {hint}")
    coordinates = [column for column in columns if column not in ("image", "group")]
    for column in coordinates:
        if len(column) < 3 or not column.endswith(("_x", "_y")):
            raise UserError(
                f"{csv}: unknown column {column[:40]!r}; the columns are image, group, NAME_x and NAME_y:"
                " rename or remove it"
            )
        partner = column[:-1] + ("y" if column.endswith("x") else "x")
        if partner not in coordinates:
            raise UserError(f"{csv}: the column {column!r} needs a column {partner!r}; add it")
    names = [column[:-2] for column in coordinates if column.endswith("_x")]
    if not names:
        raise UserError(f"{csv}: no columns of landmarks; each landmark needs two, NAME_x and NAME_y")
    return names


def _read_schema_json(path: Path) -> LandmarkSchema:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, dict):
            raise UserError("a schema must be a JSON object")
        return LandmarkSchema.from_dict(entries)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); correct or remove it") from error


def _find_image(csv: Path, name: str, location: str) -> Path:
    """Return the path of an image of the CSV."""
    if not name.strip():
        raise UserError(f"{location}: 'image' is empty; enter the file name of the image")
    for path in (csv.parent / name, csv.parent / "images" / name):
        if os.path.isfile(path):  # Path.is_file raises for names that are too long
            return path
    raise UserError(
        f"{location}: no such image {name[:80]}; put it into {csv.parent} or {csv.parent / 'images'}"
    )


# --- the images ----------------------------------------------------------------------------------


def _read_images(labels: _Labels, size: int, crop: str) -> LandmarkDataset:
    """Read, crop and resize the images, and map the landmarks into the crops."""
    rows = labels.rows
    images = np.empty((len(rows), size, size, 3), np.uint8)
    points = np.empty((len(rows), len(labels.schema), 2), np.float32)
    digest = hashlib.sha256(repr((labels.sha256, labels.schema.to_dict(), size, crop)).encode())
    for index, row in enumerate(rows):
        image = _read_row_image(row)
        digest.update(bytes.fromhex(file_sha256(row.path)))
        height, width = image.shape[:2]
        for name, (x, y) in zip(labels.schema.names, row.points.tolist(), strict=True):
            check_point_range(row.location, name, (x, y), (width, height))
        region = choose_crop(row.points, width, height, crop)
        images[index] = extract_crop(image, region, size, 3)
        points[index] = map_to_crop(row.points, region, size)
    is_gray = all((image == image[..., :1]).all() for image in images)
    return LandmarkDataset(
        images=np.ascontiguousarray(images[..., :1]) if is_gray else images,
        points=points,
        schema=labels.schema,
        names=_row_names(labels),
        source=str(labels.csv),
        digest=digest.hexdigest(),
        groups=labels.groups,
    )


def _row_names(labels: _Labels) -> tuple[str, ...]:
    """Return the name of each row: its image, and also its line if several rows have the same image."""
    counts = Counter(row.image for row in labels.rows)
    return tuple(
        row.image if counts[row.image] == 1 else f"{row.image} ({labels.csv.name} line {row.line})"
        for row in labels.rows
    )


def _read_row_image(row: _Row) -> NDArray[np.uint8]:
    try:
        return read_image(row.path)
    except UserError as error:
        raise UserError(f"{row.location}: {error}") from error


def choose_crop(points: Floats, width: int, height: int, crop: str) -> Crop:
    """Return the crop around (K, 2) labeled landmarks, or the center crop; see `read_csv_dataset`."""
    labeled = points[~np.isnan(points).any(axis=1)]
    if crop == "landmarks" and len(labeled):
        low, high = labeled.min(axis=0), labeled.max(axis=0)
        longer_side = float((high - low).max())
        if longer_side >= 1:  # the size of the face is unknown if all landmarks coincide
            x, y = ((low + high) / 2 + 0.5).tolist()  # in edge coordinates
            side = MARGIN * longer_side
            return Crop(x - side / 2, y - side / 2, side)
    return center_crop(width, height)


def map_to_crop(points: Floats, crop: Crop, size: int) -> Floats:
    """Map (K, 2) points of the image to pixels of the `size` x `size` crop; those outside become NaN."""
    mapped = crop.to_crop(points, size)
    mapped[outside_square(mapped, size)] = np.nan
    return mapped
