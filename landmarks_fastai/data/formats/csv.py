"""Labels in a CSV with the columns image, NAME_x and NAME_y, and further ones; see `tables`.

Fields are separated by commas, semicolons or tabs, and numbers have decimal points or decimal commas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.table_columns import holds_pixels, image_column
from landmarks_fastai.data.formats.table_writing import write_table
from landmarks_fastai.data.formats.tables import TableBuilder
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.files import write_csv
from landmarks_fastai.utils.text import quote

CSV_NAME = "landmarks.csv"
BLOCK_ROWS = 4096


def recognizes(path: Path) -> bool:
    """Return True for a CSV with a column of image files, or a folder with landmarks.csv."""
    try:
        csv = path / CSV_NAME if path.is_dir() else path
        with csv.open("rb") as stream:
            reader = CsvReader(stream, str(csv))
            image = image_column(reader.columns)
            return image is not None and not _holds_pixels(reader, image)
    except (OSError, UserError):
        return False


def read(path: Path) -> Annotations:
    """Read a CSV, or landmarks.csv in a folder.

    A row is named by its image, and also by its line if several rows have the same image. The schema is that
    of the file beside it (`schema_beside`). Images are searched for in the folder of the CSV and in its
    subfolder ``images``.

    Raises
    ------
    UserError
        If the file cannot be read, its header or the schema cannot be used, or all images are missing.
    """
    csv = _find_csv(path)
    try:
        with csv.open("rb") as stream:
            reader = CsvReader(stream, str(csv))
            builder = TableBuilder(csv, reader.columns, "line")
            for block in _blocks(reader.records()):
                _add_block(builder, reader, block)
    except OSError as error:
        raise UserError(f"{csv}: cannot be read ({error.strerror or error})") from error
    return builder.build()


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write a CSV with commas and decimal points, and schema.json beside it.

    Raises
    ------
    UserError
        If another schema is beside `out`, or a landmark name cannot be a column.
    """
    table, losses = write_table(annotations, out)
    rows = zip(*map(_format_cells, table.values()), strict=True)
    write_csv(out, chain([list(table)], rows))
    return losses


FORMAT = AnnotationFormat(
    "csv", "CSV with the columns image, NAME_x and NAME_y", recognizes, read, write, suffix=".csv"
)


def _find_csv(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    if not (path / CSV_NAME).is_file():
        raise UserError(f"{path}: no {CSV_NAME} in this folder; name the CSV itself if it has another name")
    return path / CSV_NAME


def _holds_pixels(reader: CsvReader, image: str) -> bool:
    """Return True if the first row has pixels in the column of images."""
    _, fields = next(reader.records(), (0, []))
    index = reader.columns.index(image)
    return index < len(fields) and holds_pixels(fields[index])


def _blocks(records: Iterator[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    while block := list(islice(records, BLOCK_ROWS)):
        yield block


def _add_block(builder: TableBuilder, reader: CsvReader, block: list[tuple[int, list[str]]]) -> None:
    """Add rows; those with a wrong number of fields become bad rows."""
    numbers: list[int] = []
    rows: list[list[str]] = []
    for line, fields in block:
        if reason := reader.field_error(fields):
            builder.add_bad(line, reason)
        else:
            numbers.append(line)
            rows.append(fields)
    if rows:
        columns = dict(zip(reader.columns, zip(*rows, strict=True), strict=True))
        if holds_pixels(columns[builder.columns.image][0]):
            raise UserError(
                f"{reader.at(numbers[0])}: the column {quote(builder.columns.image)} holds pixels, as in"
                " Kaggle's files; use --format kaggle"
            )
        builder.add(numbers, columns.__getitem__)


def _format_cells(values: list[object]) -> list[object]:
    """Return the values with 4 decimals, which are far finer than labels; NaN as an empty cell."""
    return [
        ("" if math.isnan(value) else round(value, 4)) if isinstance(value, float) else value
        for value in values
    ]
