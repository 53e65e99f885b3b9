"""Reading CSV files row by row, with the file and line number in every error message."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import IO

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote, shorten

SEPARATORS = ",;\t"
MAX_LINE = 1 << 24
"""Longest line in characters."""


EMPTY_IF_UNLABELED = ", or leave it empty if the landmark is unlabeled"
"""What to do about a wrong coordinate in a table of labels, besides correcting it."""


class CsvReader:
    """Reader of the rows of a CSV file with a header.

    Parameters
    ----------
    stream
        Bytes of text in UTF-8, with or without a byte order mark, or in UTF-16 with one. Fields are separated
        by the comma, semicolon or tab, whichever the header has most of, or the one that a first line
        ``sep=;`` (as Excel writes it) names.
    source
        Name of the file in messages.

    Attributes
    ----------
    columns
        Column names, from the header, without spaces around them.
    separator
        The comma, semicolon or tab.

    Raises
    ------
    UserError
        If the file is empty or is not such text, or a column name occurs twice.
    """

    def __init__(self, stream: IO[bytes], source: str) -> None:
        self.source = source
        self._lines_before = 0
        buffered = io.BufferedReader(stream)  # type: ignore[type-var]  # an IO has no readinto
        bom = buffered.peek(2)[:2]
        self._encoding = "utf-16" if bom in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        # newline="", because the csv module handles line breaks itself
        lines = self._lines(io.TextIOWrapper(buffered, encoding=self._encoding, newline=""))
        self._reader = csv.reader(())
        header = next(lines, "")
        self.separator = max(SEPARATORS, key=re.sub('"[^"]*"', "", header).count)
        if match := re.fullmatch(r'"?sep=([,;\t])"?\s*', header, re.IGNORECASE):
            self.separator, self._lines_before = match[1], 1
            header = next(lines, "")
        self._reader = csv.reader(chain([header], lines), delimiter=self.separator)
        self.columns = [column.strip() for column in next(self._fields(), [])]
        if not any(self.columns):
            raise UserError(f"{source}: the file is empty; its first line must name the columns")
        for column in self.columns:
            if column and self.columns.count(column) > 1:
                raise UserError(f"{source}: duplicate column {quote(column)}; remove one of them")

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number (the header is line 1) and the fields of each row; skip blank lines.

        Raises
        ------
        UserError
            If a row has more or fewer fields than the header.
        """
        for line, fields in self.records():
            if message := self.field_error(fields):
                raise UserError(f"{self.at(line)}: {message}")
            yield line, fields

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows as `rows` does, also if the number of fields is wrong, see `field_error`."""
        width = len(self.columns)
        for fields in self._fields():
            if not fields:
                continue
            if len(fields) > width and not any(fields[width:]):
                del fields[width:]
            yield self.line, fields

    def field_error(self, fields: list[str]) -> str | None:
        """Return what is wrong and what to do if a row has more or fewer fields than the header."""
        if len(fields) == len(self.columns):
            return None
        return f"{len(fields)} fields, but the header has {len(self.columns)}; correct or remove the row"

    @property
    def line(self) -> int:
        """Number of the last line read."""
        return self._lines_before + self._reader.line_num

    def at(self, line: int) -> str:
        """Return the location of a line in messages: ``"training.csv, line 2"``."""
        return f"{self.source}, line {line}"

    def number(self, text: str, line: int, column: str, remedy: str = EMPTY_IF_UNLABELED) -> float:
        """Parse a number; an empty field or ``nan`` gives NaN.

        Parameters
        ----------
        text, line, column
            The field, and where it is.
        remedy
            What to do instead of entering a number, at the end of the message.

        Raises
        ------
        UserError
            If the text is neither empty nor NaN nor a finite number.
        """
        try:
            number = text.replace(",", ".") if self.separator != "," else text
            value = float(number) if text.strip() else math.nan
        except ValueError:
            value = math.inf
        if math.isinf(value):
            raise UserError(
                f"{self.at(line)}: {shorten(column)} is {quote(text, 40)}; enter a number{remedy}"
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
            name = shorten(landmark)
            raise UserError(
                f"{self.at(line)}: {name}_{empty} is empty but {name}_{filled} is not; fill in both or"
                " neither"
            )
        return point

    def _fields(self) -> Iterator[list[str]]:
        """Yield the fields of each record, and turn CSV errors into UserErrors."""
        try:
            yield from self._reader
        except csv.Error as error:
            raise UserError(f"{self.at(self.line)}: {error}") from error

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        """Yield the lines of the file, and turn decoding errors into UserErrors."""
        try:
            while line := text.readline(MAX_LINE):
                if len(line) == MAX_LINE:
                    raise UserError(f"{self.source}: line {self.line + 1} is too long; this is not a CSV")
                yield line
        except UnicodeError:
            name = "UTF-16" if self._encoding == "utf-16" else "UTF-8"
            raise UserError(f"{self.source}: not a CSV in {name} text (near line {self.line + 1})") from None


def check_point_range(
    location: str,
    landmark: str,
    point: tuple[float, float],
    size: tuple[int, int],
    remedy: str = EMPTY_IF_UNLABELED,
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
    remedy
        What to do instead of correcting the value, at the end of the message.

    Raises
    ------
    UserError
        If x or y is farther outside the image than half its width or height.
    """
    for axis, value, length in zip("xy", point, size, strict=True):
        if value < -length / 2 or value > 1.5 * length:
            raise UserError(
                f"{location}: {shorten(landmark)}_{axis} is {value:g}, far outside the image of {size[0]} ×"
                f" {size[1]} px; correct the value{remedy}"
            )
