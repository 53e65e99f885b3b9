"""People's own points: a CSV and the pictures that it names, cut to squares of one size.

Knows how the CSV is laid out, where the pictures are looked for and how they are cut. Knows nothing about
Kaggle's files, and not what the faces are used for.
"""

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

from landmarks_fastai.data.cache import remember, sha256
from landmarks_fastai.data.csvfile import CsvFile, check_near
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError, nearest
from landmarks_fastai.framing import Square, cut_square
from landmarks_fastai.images import read_image
from landmarks_fastai.schema import Schema, schema_from_names

Floats = NDArray[np.float64]

CSV = "landmarks.csv"
FRAMES = ("points", "image")
MARGIN = 1.6
"""Side of the square around the points, in longer sides of their bounding box."""


def read_folder(path: Path, cache: Path, *, size: int = 128, frame: str = "points") -> FaceTable:
    """Read a CSV of points and the pictures that it names.

    The CSV's columns are ``image``, then ``NAME_x`` and ``NAME_y`` for every point, and ``group`` where rows
    of one person or scene are known. Coordinates are pixels of the upright picture, as a person sees it and
    annotation tools show it: a turn that stands in the EXIF is done before anything is cut. An empty cell
    is a point without a label. Pictures are looked for beside the CSV, then in ``images/`` beside it. The
    points' names and pairs follow from the columns, or from ``schema.json`` (`Schema.to_dict`) beside it.

    The result is kept in the cache under the CSV's content and the pictures' names, sizes and times of
    change: to hash their contents would mean to read gigabytes of photographs at every start. `digest` is
    made of the contents, once, as it must be the same for a copy of the folder.

    Parameters
    ----------
    path
        The CSV, or a folder with a ``landmarks.csv``.
    cache
        Folder that read tables are kept in, under ``parsed``.
    size
        Side that each square is resized to, in pixels.
    frame
        "points": the square around the labelled points, 1.6 times as long as their box; the middle square
        where fewer than two places are labelled. "image": the largest square in the middle of the picture.
        What lies outside of the picture repeats its edge.

    Returns
    -------
    FaceTable
        Gray if all pictures are (however they were saved), else RGB. Points outside of a square are NaN.

    Raises
    ------
    UserError
        If the CSV, a row of it or a picture can't be used; names the file and the row.
    """
    if frame not in FRAMES:
        raise UserError(f"data.frame: no such frame {frame!r}; {nearest(frame, FRAMES)}")
    if size < 1:
        raise UserError(f"data.size: {size} must be at least 1 pixel")
    listing = _read_listing(_find_csv(path))

    def make() -> FaceTable:
        return _read_faces(listing, size, frame)

    return remember(cache, "folder", (*listing.key(), str(size), frame), make)


# --- the CSV ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A row of the CSV: where it stands, which picture, which points (K, 2) of it."""

    where: str
    image: str
    path: Path
    points: Floats


@dataclass(frozen=True)
class _Listing:
    """All that the CSV says, and its SHA-256."""

    csv: Path
    sha256: str
    schema: Schema
    rows: list[_Row]
    groups: NDArray[np.int64] | None

    def key(self) -> tuple[str, ...]:
        """Return what changes when the CSV, the schema or a picture does."""
        pictures = hashlib.sha256()
        for row in self.rows:
            about = row.path.stat()
            pictures.update(f"{row.path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
        return str(self.csv), self.sha256, json.dumps(self.schema.to_dict()), pictures.hexdigest()


def _find_csv(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if not (path / CSV).is_file():
        raise UserError(f"{path}: the folder has no {CSV}; give the CSV itself if it has another name")
    return path / CSV


def _read_listing(csv: Path) -> _Listing:
    try:
        content = csv.read_bytes()
    except OSError as error:
        raise UserError(f"{csv}: can't be read ({error.strerror or error})") from error
    file = CsvFile(io.BytesIO(content), str(csv))
    schema = _schema(file, csv)
    image = file.columns.index("image")
    group = file.columns.index("group") if "group" in file.columns else None
    columns = [
        (name, file.columns.index(f"{name}_x"), file.columns.index(f"{name}_y")) for name in schema.points
    ]
    rows: list[_Row] = []
    numbers: dict[str, int] = {}
    groups: list[int] = []
    for line, fields in file.rows():
        where = file.at(line)
        found = [file.pair(line, name, fields[x], fields[y]) for name, x, y in columns]
        rows.append(_Row(where, fields[image], _find_image(csv, fields[image], where), np.array(found)))
        if group is not None:
            if not fields[group].strip():
                raise UserError(f"{where}: group is empty; name one in every row, or remove the column")
            groups.append(numbers.setdefault(fields[group].strip(), len(numbers)))
    if not rows:
        raise UserError(f"{csv}: no rows below the header; there is nothing to learn from")
    return _Listing(
        csv=csv,
        sha256=hashlib.sha256(content).hexdigest(),
        schema=schema,
        rows=rows,
        groups=None if group is None else np.array(groups, np.int64),
    )


def _schema(file: CsvFile, csv: Path) -> Schema:
    """Read the points' names from the header, and check that it is whole."""
    if "image" not in file.columns:
        raise UserError(
            f"{csv}: the column 'image' is missing; {nearest('image', [c[:40] for c in file.columns[:12]])}"
        )
    others = [column for column in file.columns if column not in ("image", "group")]
    for column in others:
        if len(column) < 3 or not column.endswith(("_x", "_y")):
            raise UserError(
                f"{csv}: the column {column[:40]!r} is none of image, group, NAME_x and NAME_y;"
                " rename or remove it"
            )
        partner = column[:-1] + ("y" if column.endswith("x") else "x")
        if partner not in others:
            raise UserError(f"{csv}: the column {column!r} has no {partner!r} beside it; add it")
    names = [column[:-2] for column in others if column.endswith("_x")]
    if not names:
        raise UserError(f"{csv}: no columns of points; each point needs two, NAME_x and NAME_y")
    path = csv.with_name("schema.json")
    if not path.is_file():
        return schema_from_names(csv.stem, names)
    schema = _read_schema(path)
    if set(schema.points) != set(names):
        odd = min(set(schema.points) ^ set(names))
        has, lacks = (csv, path) if odd in names else (path, csv)
        raise UserError(f"{has}: has the point {odd!r}, which {lacks} has not; name the same points in both")
    return schema


def _read_schema(path: Path) -> Schema:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, dict):
            raise UserError("a schema is a JSON object: {…}")
        return Schema.from_dict(entries)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON ({error}); mend or remove it") from error


def _find_image(csv: Path, name: str, where: str) -> Path:
    if not name.strip():
        raise UserError(f"{where}: image is empty; write the picture's file name")
    for path in (csv.parent / name, csv.parent / "images" / name):
        if os.path.isfile(path):  # Path.is_file raises where a name is too long to be one
            return path
    raise UserError(
        f"{where}: the picture {name[:80]} is not there; put it in {csv.parent} or {csv.parent / 'images'}"
    )


# --- the pictures ----------------------------------------------------------------------------------


def _read_faces(listing: _Listing, size: int, frame: str) -> FaceTable:
    rows = listing.rows
    images = np.empty((len(rows), size, size, 3), np.uint8)
    points = np.empty((len(rows), len(listing.schema), 2), np.float32)
    digest = hashlib.sha256(repr((listing.sha256, listing.schema.to_dict(), size, frame)).encode())
    for i, row in enumerate(rows):
        picture = _picture(row)
        digest.update(bytes.fromhex(sha256(row.path)))
        height, width = picture.shape[:2]
        for name, (x, y) in zip(listing.schema.points, row.points, strict=True):
            check_near(row.where, name, x, y, width, height)
        square = _square(row.points, width, height, frame)
        images[i] = cut_square(picture, square, size, 3)
        points[i] = _moved(row.points, square, size)
    gray = all((image == image[..., :1]).all() for image in images)
    often = Counter(row.image for row in rows)
    return FaceTable(
        images=np.ascontiguousarray(images[..., :1]) if gray else images,
        points=points,
        schema=listing.schema,
        # several faces of one picture are told apart by their rows
        names=tuple(r.image if often[r.image] == 1 else f"{r.image} ({Path(r.where).name})" for r in rows),
        source=str(listing.csv),
        digest=digest.hexdigest(),
        groups=listing.groups,
    )


def _picture(row: _Row) -> NDArray[np.uint8]:
    """Read a row's picture as prediction reads it."""
    try:
        return read_image(row.path)
    except UserError as error:
        raise UserError(f"{row.where}: {error}") from error


def _square(points: Floats, width: int, height: int, frame: str) -> Square:
    labelled = points[~np.isnan(points).any(1)]
    if frame == "points" and len(labelled):
        low, high = labelled.min(0), labelled.max(0)
        longer = float((high - low).max())
        if longer >= 1:  # a single place says nothing about the face's size
            x, y = (low + high) / 2 + 0.5  # from centres of pixels to their edges
            side = MARGIN * longer
            return Square(float(x) - side / 2, float(y) - side / 2, side)
    side = min(width, height)
    return Square((width - side) / 2, (height - side) / 2, side)


def _moved(points: Floats, square: Square, size: int) -> Floats:
    """Move points (K, 2) along with the pixels: centres lie half a pixel from edges, before and after."""
    moved = square.from_picture(points, size)
    outside = ((moved < -0.5) | (moved > size - 0.5)).any(1)
    moved[outside] = np.nan
    return moved
