"""Tables of DeepLabCut and Lightning Pose: header rows scorer, individuals, bodyparts and coords."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote

HEADERS = ("scorer", "individuals", "bodyparts", "coords")
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class ScorerTable:
    """The content of a table: R rows, one per image, and C columns of numbers.

    Parameters
    ----------
    path
        The file.
    headers
        For each header row that the table has, the C cells.
    images
        R paths of images with slashes, as in the table.
    values
        (R, C) float64; NaN where a cell is empty.
    locations
        R locations for messages: "CollectedData_Ann.csv, line 5".
    path_columns
        Number of columns in which the path of an image is written.
    bad_rows
        Messages of rows that cannot be used; they are not among the R rows.
    """

    path: Path
    headers: dict[str, tuple[str, ...]]
    images: tuple[str, ...]
    values: NDArray[np.float64]
    locations: tuple[str, ...]
    path_columns: int
    bad_rows: tuple[str, ...] = ()


def starts_as_scorer_table(path: Path) -> bool:
    """Return True for a text file whose first row is that of a scorer table."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64).removeprefix(codecs.BOM_UTF8)
        return path.suffix.lower() == ".csv" and start.lstrip(b'"')[:6] == b"scorer"
    except OSError:
        return False


def read_scorer_csv(path: Path) -> ScorerTable:
    """Read a scorer table from CSV; commas, semicolons or tabs, with decimal points or commas.

    Raises
    ------
    UserError
        If the file cannot be read or its header is another one.
    """
    rows = _read_cells(path)
    n_headers = next((i for i, (_, cells) in enumerate(rows[:4]) if cells[0] == "coords"), None)
    if n_headers is None:
        raise UserError(f"{path}: the rows of the header must be scorer, bodyparts and coords")
    head, body = [cells for _, cells in rows[: n_headers + 1]], rows[n_headers + 1 :]
    first = next((i for i, cell in enumerate(head[-1]) if i and cell), len(head[-1]))
    headers = {cells[0]: tuple(cells[first:]) for cells in head}
    check_headers(path, headers)
    width = len(head[-1])
    images, values, locations, bad = [], [], [], []
    for line, cells in body:
        location = f"{path}, line {line}"
        try:
            values.append(_parse_row(cells, first, width, headers["coords"], location))
        except UserError as error:
            bad.append(str(error))
            continue
        images.append("/".join(cell.strip().replace("\\", "/") for cell in cells[:first]))
        locations.append(location)
    numbers = np.array(values, np.float64).reshape(-1, width - first)
    return ScorerTable(path, headers, tuple(images), numbers, tuple(locations), first, tuple(bad))


def check_headers(path: Path, headers: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError if the header rows are not those of a scorer table."""
    expected = [name for name in HEADERS if name in headers]
    if list(headers) != expected or not {"scorer", "bodyparts", "coords"} <= set(headers):
        raise UserError(f"{path}: the rows of the header must be scorer, bodyparts and coords")
    if len({len(cells) for cells in headers.values()}) != 1 or not headers["coords"]:
        raise UserError(f"{path}: the rows of the header differ in length, or name no landmarks")


def _read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Return the line numbers and cells of all rows that are not blank."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: more than {MAX_BYTES >> 30} GB; split it")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a CSV in UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    if separator == ",":
        return rows
    return [(line, [_decimal_point(cell) for cell in cells]) for line, cells in rows]


def _decimal_point(cell: str) -> str:
    """Return a number with its decimal comma replaced; anything else unchanged."""
    number = cell.replace(",", ".")
    try:
        float(number)
    except ValueError:
        return cell
    return number


def _parse_row(cells: list[str], first: int, width: int, coords: Sequence[str], location: str) -> list[float]:
    """Return the numbers of a row; NaN for empty cells and for columns that are no coordinates."""
    if len(cells) != width:
        raise UserError(f"{location}: {len(cells)} fields, but the header has {width}")
    values = []
    for cell, coordinate in zip(cells[first:], coords, strict=True):
        try:
            value = float(cell) if cell.strip() and coordinate in ("x", "y") else np.nan
        except ValueError:
            raise UserError(f"{location}: {quote(cell)} is not a number; correct or empty the cell") from None
        if np.isinf(value) or abs(value) > 1e6:
            raise UserError(f"{location}: {quote(cell)} is not a number of pixels; correct or empty the cell")
        values.append(value)
    return values


# --- points --------------------------------------------------------------------------------------


def landmark_columns(table: ScorerTable, scorer: str | None = None) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the columns of x and y of each (individual, landmark); the individual is "" if there are none.

    Parameters
    ----------
    table
        The table.
    scorer
        Whose labels are read if there are several scorers.

    Raises
    ------
    UserError
        If there are several scorers and `scorer` is not one of them, a column occurs twice, or x or y is
        missing.
    """
    pairs = zip(table.headers["scorer"], table.headers["coords"], strict=True)
    scorers = sorted({who for who, coordinate in pairs if who and coordinate in ("x", "y")})
    if len(scorers) > 1:
        if scorer not in scorers:
            raise UserError(
                f"{table.path}: labels of several scorers ({', '.join(scorers)[:80]}); keep one of them"
            )
        scorers = [scorer]
    columns: dict[tuple[str, str], dict[str, int]] = {}
    individuals = table.headers.get("individuals", ("",) * len(table.headers["coords"]))
    rows = zip(
        table.headers["scorer"], individuals, table.headers["bodyparts"], table.headers["coords"], strict=True
    )
    for index, (who, individual, landmark, coordinate) in enumerate(rows):
        if coordinate not in ("x", "y") or (scorers and who not in scorers):
            continue
        places = columns.setdefault((individual.strip(), landmark.strip()), {})
        if coordinate in places:
            raise UserError(f"{table.path}: the column {quote(landmark)} {coordinate} occurs twice")
        places[coordinate] = index
    incomplete = next((key for key, places in columns.items() if len(places) != 2), None)
    if incomplete is not None or not columns:
        name = "landmarks" if incomplete is None else repr(incomplete[1][:40])
        raise UserError(f"{table.path}: the columns x and y of {name} are not complete")
    return {key: (places["x"], places["y"]) for key, places in columns.items()}


def points_of(table: ScorerTable, columns: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Return (R, K, 2) points; NaN where x or y is empty."""
    points = table.values[:, np.array(columns)]
    points[np.isnan(points).any(axis=2)] = np.nan
    return points
