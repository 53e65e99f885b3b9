"""Cells of tables of labels: numbers, decimal commas, visibility and empty cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import NOT_LABELED, OCCLUDED, VISIBLE
from landmarks_fastai.data.formats.labeled_objects import MAX_COORDINATE

EMPTY = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Cells without a value, in lower case."""

VISIBILITIES = {
    "0": NOT_LABELED,
    "1": OCCLUDED,
    "2": VISIBLE,
    "hidden": OCCLUDED,
    "visible": VISIBLE,
}
NO_VISIBILITY = 255
"""Visibility of an empty cell."""

Cells = Sequence[str] | NDArray[np.float64]
"""A column of a block: text, or numbers of a file that stores numbers."""


def is_empty(cell: str) -> bool:
    """Return True if a cell of text has no value."""
    return cell.strip().lower() in EMPTY


class NumberCells:
    """A column of numbers.

    Parameters
    ----------
    cells
        N cells.

    Attributes
    ----------
    values
        (N,) numbers; NaN for empty and invalid cells.
    invalid
        Text of the invalid cells, shortened, by index.
    commas
        Number of cells with a decimal comma.
    first_comma, first_point
        Index of the first cell with a decimal comma and of the first with a decimal point; None if there is
        none, or if only points occur.
    """

    def __init__(self, cells: Cells) -> None:
        self.invalid: dict[int, str] = {}
        self.commas = 0
        self.first_comma: int | None = None
        self.first_point: int | None = None
        self.values = cells.copy() if isinstance(cells, np.ndarray) else self._parse(cells)
        for index in np.flatnonzero(np.abs(self.values) > MAX_COORDINATE).tolist():
            value = float(self.values[index])
            self.invalid[index] = f"{value:g}" if isinstance(cells, np.ndarray) else cells[index].strip()[:40]
            self.values[index] = math.nan

    def _parse(self, cells: Sequence[str]) -> NDArray[np.float64]:
        text = "".join(cells)
        if "," not in text and "_" not in text:  # float accepts 1_000
            try:
                return np.array([float(cell) for cell in cells])
            except ValueError:
                pass
        values = np.full(len(cells), math.nan)
        for index, cell in enumerate(cells):
            number = self._convert(cell)
            if "," in cell and number is not None:
                self.commas += 1
                self.first_comma = index if self.first_comma is None else self.first_comma
            elif "." in cell and number is not None:
                self.first_point = index if self.first_point is None else self.first_point
            if number is None:
                self.invalid[index] = cell.strip()[:40]
            else:
                values[index] = number
        return values

    @staticmethod
    def _convert(cell: str) -> float | None:
        """Return the number; NaN if the cell is empty, None if it is not a number."""
        try:
            return None if "_" in cell else float(cell if "." in cell else cell.replace(",", ".", 1))
        except ValueError:
            return math.nan if is_empty(cell) else None


def parse_visibility(cells: Cells) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Return the (N,) visibility of a column, `NO_VISIBILITY` for empty and invalid cells.

    Returns
    -------
    tuple
        The values, and the text of the invalid cells, shortened, by index.
    """
    values = np.full(len(cells), NO_VISIBILITY, np.uint8)
    invalid: dict[int, str] = {}
    texts = [f"{cell:g}" for cell in cells.tolist()] if isinstance(cells, np.ndarray) else cells
    known: dict[str, int | None] = {}
    for index, text in enumerate(texts):
        if text not in known:
            known[text] = _visibility(text)
        value = known[text]
        if value is None:
            invalid[index] = text.strip()[:40]
        else:
            values[index] = value
    return values, invalid


def _visibility(text: str) -> int | None:
    word = text.strip().lower()
    if word in EMPTY:
        return NO_VISIBILITY
    return VISIBILITIES.get(word.removesuffix(".0").removesuffix(",0"))


def parse_texts(cells: Cells) -> list[str]:
    """Return a column as text without spaces around it."""
    if isinstance(cells, np.ndarray):
        return ["" if math.isnan(cell) else f"{cell:.15g}" for cell in cells.tolist()]
    return [cell.strip() for cell in cells]
