"""Reading CSV files row by row so that every complaint names the line a person will look at.

Knows commas, quotes and numbers. Knows nothing about faces.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import IO

from landmarks_fastai.errors import UserError


class CsvFile:
    """The header and the rows of a CSV, read as a stream.

    Parameters
    ----------
    stream
        Bytes of UTF-8 text, with or without a byte order mark.
    label
        What messages call the file.

    Raises
    ------
    UserError
        If the file is empty or no text, or a column stands twice.
    """

    def __init__(self, stream: IO[bytes], label: str) -> None:
        self.label = label
        # newline="" as the csv module asks for: it counts the lines itself
        self._reader = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
        self.columns = next(self._fields(), [])
        if not any(self.columns):
            raise UserError(f"{label}: the file is empty; its first line must name the columns")
        for column in self.columns:
            if column and self.columns.count(column) > 1:
                raise UserError(f"{label}: the column {column!r} stands twice; remove one of them")

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row's line number, the header being line 1, and its fields; blank lines are skipped.

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
                    f"{self.at(self.line)}: {len(fields)} fields where the header has {len(self.columns)};"
                    " mend or remove the row"
                )
            yield self.line, fields

    @property
    def line(self) -> int:
        """The line that was read last."""
        return self._reader.line_num

    def at(self, line: int) -> str:
        """Say where a row stands: ``training.csv line 2``."""
        return f"{self.label} line {line}"

    def number(self, text: str, line: int, column: str) -> float:
        """Read a coordinate; NaN where the field is empty or says nan.

        Raises
        ------
        UserError
            If it is not a finite number.
        """
        try:
            value = float(text) if text.strip() else math.nan
        except ValueError:
            value = math.inf
        if math.isinf(value):
            raise UserError(
                f"{self.at(line)}: {column} is {text[:40]!r}; write a number, or nothing where"
                " the point has no label"
            )
        return value

    def pair(self, line: int, point: str, x: str, y: str) -> tuple[float, float]:
        """Read the x and y of a point, both NaN where it has no label.

        Raises
        ------
        UserError
            If one of them is not a finite number, or only one of them is there.
        """
        found = self.number(x, line, f"{point}_x"), self.number(y, line, f"{point}_y")
        if math.isnan(found[0]) != math.isnan(found[1]):
            there, missing = ("y", "x") if math.isnan(found[0]) else ("x", "y")
            raise UserError(
                f"{self.at(line)}: {point}_{there} has a value and {point}_{missing} has none;"
                " fill in or empty both"
            )
        return found

    def _fields(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except UnicodeDecodeError:
            raise UserError(f"{self.label}: not a CSV in UTF-8 text (near line {self.line + 1})") from None
        except csv.Error as error:
            raise UserError(f"{self.at(self.line)}: {error}") from error


def check_near(where: str, point: str, x: float, y: float, width: int, height: int) -> None:
    """Refuse a point that lies more than half an image outside of it: most likely another file's pixels.

    Raises
    ------
    UserError
        Naming the coordinate and its value.
    """
    for axis, value, length in (("x", x, width), ("y", y, height)):
        if value < -length / 2 or value > 1.5 * length:
            raise UserError(
                f"{where}: {point}_{axis} is {value:g}, far outside of the image of {width} × {height} px;"
                " mend the value, or empty it where the point has no label"
            )
