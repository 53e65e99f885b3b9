"""Kaggle's Facial Keypoints Detection: training.csv, test.csv and IdLookupTable.csv, zipped or not.

Knows the competition's layout and what its files must hold. Fetches and caches nothing itself.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.csvfile import CsvFile, check_near
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError, nearest
from landmarks_fastai.schema import KAGGLE15

if TYPE_CHECKING:
    import pandas as pd

URL = "https://github.com/ko-redtruck/facial-landmark-detection/raw/main/facial-keypoints-detection.zip"
ARCHIVE = "facial-keypoints-detection.zip"
ARCHIVE_BLOB = "910aaea5cb499befc292feee8da2a8945e0a276e"
"""Git's digest of the zip at `URL`."""
MEMBER_BLOBS = {
    "training.zip": "42912e715e7d885eb8514c081f3d774533fea85b",
    "test.zip": "1bba825f7cca64dbc255634cec1ee0a80600d359",
}
"""Git's digests of Kaggle's own files inside it."""

SIDE = 96
COLUMNS = tuple(f"{point}_{axis}" for point in KAGGLE15.points for axis in "xy")
LARGEST = 4 << 30
"""Bytes that a member of a zip may unpack to; Kaggle's largest has a quarter of one GB."""


def find(path: Path, stem: str) -> Path:
    """Return the file that holds `stem`.csv: the path itself, or what a folder has.

    Parameters
    ----------
    path
        The outer zip, an inner zip, a CSV, or a folder with any of them.
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
    wanted = (f"{stem}.csv", f"{stem}.zip", ARCHIVE)
    for name in wanted:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: the folder has none of {', '.join(wanted)}")


def read_training(path: Path) -> FaceTable:
    """Read the labelled faces.

    Parameters
    ----------
    path
        The outer zip, training.zip, training.csv, or a folder with any of them.

    Returns
    -------
    FaceTable
        96 × 96 px gray, `KAGGLE15`; a row's name is its line in the CSV: "training.csv line 2".

    Raises
    ------
    UserError
        If the file is no such thing, is damaged, or has a row that can't be used; names the row.
    """
    path = find(path, "training")
    pixels = bytearray()
    points: list[list[tuple[float, float]]] = []
    names: list[str] = []
    with _open_csv(path, "training") as (file, name):
        x, y, image = _training_columns(file)
        for line, fields in file.rows():
            where = file.at(line)
            found = [
                file.pair(line, point, fields[i], fields[j])
                for point, i, j in zip(KAGGLE15.points, x, y, strict=True)
            ]
            for point, (px, py) in zip(KAGGLE15.points, found, strict=True):
                check_near(where, point, px, py, SIDE, SIDE)
            pixels += _pixels(fields[image], where)
            points.append(found)
            names.append(f"{name} line {line}")
        if not names:
            raise UserError(f"{file.label}: no rows below the header; there is nothing to learn from")
    coordinates = np.array(points, dtype=np.float32)
    digest = hashlib.sha256(pixels)  # of the faces: the same faces are known again in any wrapping
    digest.update(coordinates.tobytes())
    return FaceTable(
        images=_images(pixels),
        points=coordinates,
        schema=KAGGLE15,
        names=tuple(names),
        source=str(path),
        digest=digest.hexdigest(),
    )


def read_test(path: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Read the faces whose points Kaggle keeps back.

    Returns
    -------
    tuple
        ImageId (M,) int64 and images (M, 96, 96, 1) uint8, in the order of the file.

    Raises
    ------
    UserError
        As `read_training`; also where an ImageId stands twice.
    """
    path = find(path, "test")
    pixels = bytearray()
    ids: dict[int, int] = {}
    with _open_csv(path, "test") as (file, _):
        number, image = _columns(file, ("ImageId", "Image"))
        for line, fields in file.rows():
            where = file.at(line)
            image_id = _whole(fields[number], where, "ImageId")
            if image_id in ids:
                raise UserError(
                    f"{where}: ImageId {image_id} stands in line {ids[image_id]} too; remove one of them"
                )
            ids[image_id] = line
            pixels += _pixels(fields[image], where)
        if not ids:
            raise UserError(f"{file.label}: no rows below the header; there is nothing to predict")
    return np.array(list(ids), dtype=np.int64), _images(pixels)


def read_lookup(path: Path) -> pd.DataFrame:
    """Read which coordinate of which face each row of a submission asks for.

    Returns
    -------
    DataFrame
        RowId int64, ImageId int64, FeatureName str, in the order of IdLookupTable.csv.

    Raises
    ------
    UserError
        As `read_training`.
    """
    import pandas as pd

    path = find(path, "IdLookupTable")
    names = ("RowId", "ImageId", "FeatureName")
    rows: list[tuple[int, int, str]] = []
    with _open_csv(path, "IdLookupTable") as (file, _):
        row_id, image_id, feature = _columns(file, names)
        for line, fields in file.rows():
            where = file.at(line)
            row = _whole(fields[row_id], where, "RowId"), _whole(fields[image_id], where, "ImageId")
            rows.append((*row, fields[feature]))
        if not rows:
            raise UserError(f"{file.label}: no rows below the header; there is nothing to submit")
    return pd.DataFrame(rows, columns=list(names))


def check_members(path: Path, blobs: dict[str, str]) -> None:
    """Check the git digests of a zip's members.

    Raises
    ------
    UserError
        If one is missing or differs; names both digests.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        for name, blob in blobs.items():
            info = _member(archive, name)
            if info is None:
                raise UserError(f"{path}: has no {name}; fetch it anew")
            digest = hashlib.sha1(f"blob {info.file_size}\0".encode(), usedforsecurity=False)
            with archive.open(info) as member:
                while chunk := member.read(1 << 20):
                    digest.update(chunk)
            if digest.hexdigest() != blob:
                raise UserError(
                    f"{path}: its {name} has the digest {digest.hexdigest()}, not {blob}; fetch it anew"
                )


# --- from a path to a stream of rows ---------------------------------------------------------------


@contextmanager
def _open_csv(path: Path, stem: str) -> Iterator[tuple[CsvFile, str]]:
    """Open `stem`.csv in whatever `path` is (CSV, zip, zip in a zip), and say what it is called itself."""
    with _reading(path), ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
        head = stream.read(2)
        stream.seek(0)
        if not head:
            raise UserError(f"{path}: the file is empty (0 bytes); get a whole copy")
        if head != b"PK" and path.suffix.lower() != ".zip":
            yield CsvFile(stream, str(path)), path.name
            return
        archive = stack.enter_context(zipfile.ZipFile(stream))
        inner = _member(archive, f"{stem}.zip")
        if inner is not None:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(archive.open(inner))))
        info = _member(archive, f"{stem}.csv")
        if info is None:
            inside = ", ".join(sorted(archive.namelist())[:8]) or "nothing"
            raise UserError(f"{path}: has no {stem}.csv; it holds {inside}")
        try:
            yield CsvFile(stack.enter_context(archive.open(info)), f"{path}: {stem}.csv"), f"{stem}.csv"
        except UserError:
            # a damaged zip says so at its end, and is then why a row looked wrong
            with archive.open(info) as member:
                while member.read(1 << 20):
                    pass
            raise


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    """Find a member by its name, in whatever folder of the zip, and refuse an absurd one."""
    for info in archive.infolist():
        if PurePosixPath(info.filename).name == name:
            # zipfile never unpacks more than this number says, so it need not be watched later
            if info.file_size > LARGEST:
                raise UserError(
                    f"{archive.filename}: {name} would unpack to {info.file_size >> 30} GB; refused"
                )
            return info
    return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn all that a damaged or locked file raises into one line."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not a zip, or cut off or damaged ({error}); get a whole copy") from error
    except (NotImplementedError, RuntimeError) as error:  # another compression, a password
        raise UserError(f"{path}: can't be unpacked ({error}); unpack it and give the folder") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from error


# --- from text to numbers ---------------------------------------------------------------------------


def _training_columns(file: CsvFile) -> tuple[list[int], list[int], int]:
    """Return where x, y and the pixels stand, whatever the order of the columns."""
    if "ImageId" in file.columns and not set(COLUMNS) & set(file.columns):
        raise UserError(f"{file.label}: this is Kaggle's test.csv, which has no points; give training.csv")
    where = _columns(file, (*COLUMNS, "Image"))
    return where[:-1:2], where[1:-1:2], where[-1]


def _columns(file: CsvFile, wanted: tuple[str, ...]) -> list[int]:
    for column in wanted:
        if column not in file.columns:
            others = [other for other in file.columns if other not in wanted] or file.columns
            raise UserError(f"{file.label}: the column {column!r} is missing; {_hint(column, others)}")
    return [file.columns.index(column) for column in wanted]


def _hint(column: str, others: list[str]) -> str:
    # the header may be a row of pixels by mistake, and a message is one line
    return nearest(column, [other[:40] for other in others[:12]])


def _whole(text: str, where: str, column: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: {column} is {text[:40]!r}; write a whole number") from None


def _pixels(text: str, where: str) -> bytes:
    """Read 9,216 gray values apart by spaces."""
    encoded = text.encode()
    odd = encoded.translate(None, b"0123456789 ")
    if odd:
        raise UserError(
            f"{where}: {odd.decode(errors='replace')[0]!r} stands among the pixels; whole numbers only"
        )
    values = np.fromstring(text, dtype=np.int64, sep=" ") if encoded.strip() else np.empty(0, np.int64)
    if len(values) != SIDE * SIDE:
        raise UserError(f"{where}: {len(values):,} pixels where {SIDE * SIDE:,} ({SIDE} × {SIDE}) are needed")
    if values.max() > 255:
        raise UserError(f"{where}: a pixel has the value {values.max()}; gray goes from 0 to 255")
    return values.astype(np.uint8).tobytes()


def _images(pixels: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE, 1)
