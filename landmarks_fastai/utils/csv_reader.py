"""Reading CSV files row by row, with the file and line number in every error message."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import IO

from landmarks_fastai.errors import UserError


class CsvReader:
    """Reader of the rows of a CSV file with a header.

    Parameters
    ----------
    stream
        Bytes of UTF-8 text, with or without a byte order mark.
    source
        Name of the file in messages.

    Attributes
    ----------
    columns
        Column names, from the header.

    Raises
    ------
    UserError
        If the file is empty or is not UTF-8 text, or a column name occurs twice.
    """

    def __init__(self, stream: IO[bytes], source: str) -> None:
        self.source = source
        # newline="", because the csv module handles line breaks itself
        self._reader = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
        self.columns = next(self._fields(), [])
        if not any(self.columns):
            raise UserError(f"{source}: the file is empty; its first line must name the columns")
        for column in self.columns:
            if column and self.columns.count(column) > 1:
                raise UserError(f"{source}: duplicate column {column!r}; remove one of them")

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number (the header is line 1) and the fields of each row; skip blank lines.

        Raises
        ------
        UserError
            If a row has more or fewer fields than the header.
        """
        for fields in self._fields():
            if not fields:
                continue
            if len(fields) != len(self.columns):
                raise UserError(
                    f"{self.at(self.line)}: {len(fields)} fields, but the header has {len(self.columns)};"
                    " correct or remove the row"
                )
            yield self.line, fields

    @property
    def line(self) -> int:
        """Number of the last line read."""
        return self._reader.line_num

    def at(self, line: int) -> str:
        """Return the location of a line in messages: ``"training.csv, line 2"``."""
        return f"{self.source}, line {line}"

    def number(self, text: str, line: int, column: str) -> float:
        """Parse a number; an empty field or ``nan`` gives NaN.

        Raises
        ------
        UserError
            If the text is neither empty nor NaN nor a finite number.
        """
        try:
            value = float(text) if text.strip() else math.nan
        except ValueError:
            value = math.inf
        if math.isinf(value):
            raise UserError(
                f"{self.at(line)}: {column} is {text[:40]!r}; enter a number, or leave it empty if the"
                " landmark is unlabeled"
            )
        return value

    def pair(self, line: int, landmark: str, x: str, y: str) -> tuple[float, float]:
        """Parse x and y of a landmark; both are NaN if it is unlabeled.

        Raises
        ------
        UserError
            If one of them is not a number, or only one of them is empty.
        """
        point = self.number(x, line, f"{landmark}_x"), self.number(y, line, f"{landmark}_y")
        if math.isnan(point[0]) != math.isnan(point[1]):
            filled, empty = ("y", "x") if math.isnan(point[0]) else ("x", "y")
            raise UserError(
                f"{self.at(line)}: {landmark}_{empty} is empty but {landmark}_{filled} is not; fill in both"
                " or neither"
            )
        return point

    def _fields(self) -> Iterator[list[str]]:
        """Yield the fields of each record, and turn decoding and CSV errors into UserErrors."""
        try:
            yield from self._reader
        except UnicodeDecodeError:
            raise UserError(f"{self.source}: not a CSV in UTF-8 text (near line {self.line + 1})") from None
        except csv.Error as error:
            raise UserError(f"{self.at(self.line)}: {error}") from error


def check_point_range(
    location: str, landmark: str, point: tuple[float, float], size: tuple[int, int]
) -> None:
    """Raise UserError if a landmark is far outside its image: most likely it belongs to another image.

    Parameters
    ----------
    location
        Location of the row in messages, see `CsvReader.at`.
    landmark
        Name of the landmark.
    point
        Its x and y in pixels; NaN is accepted.
    size
        Width and height of the image in pixels.

    Raises
    ------
    UserError
        If x or y is farther outside the image than half its width or height.
    """
    for axis, value, length in zip("xy", point, size, strict=True):
        if value < -length / 2 or value > 1.5 * length:
            raise UserError(
                f"{location}: {landmark}_{axis} is {value:g}, far outside the image of {size[0]} × {size[1]}"
                " px; correct the value, or leave it empty if the landmark is unlabeled"
            )
