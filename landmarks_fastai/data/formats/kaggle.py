"""Kaggle's Facial Keypoints Detection: training.csv, test.csv and IdLookupTable.csv, zipped or not.

https://www.kaggle.com/c/facial-keypoints-detection/data
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.cache import load_or_build
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.formats.base import csv_columns
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.csv_reader import CsvReader, check_point_range
from landmarks_fastai.utils.download import git_blob_sha1_of_stream
from landmarks_fastai.utils.files import file_sha256
from landmarks_fastai.utils.text import suggest

if TYPE_CHECKING:
    import pandas as pd


URL = "https://github.com/ko-redtruck/facial-landmark-detection/raw/main/facial-keypoints-detection.zip"
NAME = "kaggle"
ARCHIVE = "facial-keypoints-detection.zip"
ARCHIVE_BLOB = "910aaea5cb499befc292feee8da2a8945e0a276e"
"""Git blob SHA-1 of the zip at `URL`."""
MEMBER_BLOBS = {
    "training.zip": "42912e715e7d885eb8514c081f3d774533fea85b",
    "test.zip": "1bba825f7cca64dbc255634cec1ee0a80600d359",
}
"""Git blob SHA-1 of Kaggle's own files in that zip."""

SIDE = 96
"""Width and height of the images, pixels."""
COLUMNS = tuple(f"{landmark}_{axis}" for landmark in KAGGLE15.names for axis in "xy")
MAX_MEMBER_BYTES = 4 << 30
"""Members of a zip that unpack to more bytes are rejected; Kaggle's largest unpacks to 0.25 GB."""


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
    with _open_csv(path, "training") as (reader, name):
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
    with _open_csv(path, "test") as (reader, _):
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
    with _open_csv(path, "IdLookupTable") as (reader, _):
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


def verify_members(path: Path, blobs: dict[str, str]) -> None:
    """Check the digests of the members of a zip.

    Parameters
    ----------
    path
        The zip.
    blobs
        Expected git blob SHA-1 of each member, see `git_blob_sha1`.

    Raises
    ------
    UserError
        If a member is missing or has another digest.
    """
    with _report_read_errors(path), zipfile.ZipFile(path) as archive:
        for name, blob in blobs.items():
            info = _find_member(archive, name)
            if info is None:
                raise UserError(f"{path}: has no {name}; download it again")
            with archive.open(info) as member:
                digest = git_blob_sha1_of_stream(member, info.file_size)
            if digest != blob:
                raise UserError(f"{path}: {name} has the digest {digest}, not {blob}; download it again")


# --- unpacking -----------------------------------------------------------------------------------


@contextmanager
def _open_csv(path: Path, stem: str) -> Iterator[tuple[CsvReader, str]]:
    """Open `stem`.csv in a CSV, a zip, or a zip in a zip; yield its reader and its file name."""
    with _report_read_errors(path), ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
        head = stream.read(2)
        stream.seek(0)
        if not head:
            raise UserError(f"{path}: the file is empty (0 bytes); copy it again")
        if head != b"PK" and path.suffix.lower() != ".zip":
            yield CsvReader(stream, str(path)), path.name
            return
        archive = stack.enter_context(zipfile.ZipFile(stream))
        inner = _find_member(archive, f"{stem}.zip")
        if inner is not None:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(archive.open(inner))))
        info = _find_member(archive, f"{stem}.csv")
        if info is None:
            content = ", ".join(sorted(archive.namelist())[:8]) or "nothing"
            raise UserError(f"{path}: has no {stem}.csv; it contains {content}")
        try:
            yield CsvReader(stack.enter_context(archive.open(info)), f"{path}: {stem}.csv"), f"{stem}.csv"
        except UserError:
            # the checksum at the end of the member shows whether the row is wrong because the zip is damaged
            with archive.open(info) as member:
                while member.read(1 << 20):
                    pass
            raise


def _find_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    """Find a member by its file name, in any folder of the zip; raise UserError if it is too large."""
    for info in archive.infolist():
        if PurePosixPath(info.filename).name == name:
            # zipfile never unpacks more bytes than this, so no further check is needed while reading
            if info.file_size > MAX_MEMBER_BYTES:
                raise UserError(
                    f"{archive.filename}: {name} would unpack to {info.file_size >> 30} GB, too large"
                )
            return info
    return None


@contextmanager
def _report_read_errors(path: Path) -> Iterator[None]:
    """Turn the exceptions of a damaged, encrypted or unreadable file into a UserError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not a zip, or truncated or damaged ({error}); copy it again") from error
    except (NotImplementedError, RuntimeError) as error:  # unknown compression, encrypted
        raise UserError(f"{path}: cannot be unpacked ({error}); unpack it and name the folder") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


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
        return int(text)
    except ValueError:
        raise UserError(f"{location}: {column} is {text[:40]!r}; enter an integer") from None


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
