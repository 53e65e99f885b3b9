"""A block of rows of a table of labels: points, visibility and boxes, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.data.annotations import NOT_LABELED, OCCLUDED, VISIBLE
from landmarks_fastai.data.formats.labeled_objects import Notes
from landmarks_fastai.data.formats.table_cells import NO_VISIBILITY, Cells, NumberCells, parse_visibility
from landmarks_fastai.data.formats.table_columns import BOX, TableColumns
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote, shorten


class Block:
    """A block of rows of a table.

    Parameters
    ----------
    numbers
        The number of each of the N rows in the file.
    cells
        Returns the N cells of a column.
    columns
        The columns of the table.
    location
        Returns where the row of a number is: "labels.csv, line 3".
    notes
        Where assumptions are counted.

    Attributes
    ----------
    bad
        The first thing that is wrong with each row that cannot be used, by index.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        cells: Callable[[str], Cells],
        columns: TableColumns,
        location: Callable[[int], str],
        notes: Notes,
    ) -> None:
        self.bad: dict[int, str] = {}
        self._numbers = numbers
        self._cells = cells
        self._columns = columns
        self._location = location
        self._notes = notes

    def reject(self, mask: ArrayLike, reason: str) -> None:
        """Mark the rows of a mask as unusable."""
        for index in np.flatnonzero(mask).tolist():
            self.bad.setdefault(index, reason)

    def landmarks(self, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Return the (N, K, 2) points and the (N, K) visibility."""
        points = np.empty((len(self._numbers), len(names), 2))
        visibility = np.empty((len(self._numbers), len(names)), np.uint8)
        for k, name in enumerate(names):
            x, y = (self._numbers_of(f"{name}_{axis}", "the landmark is unlabeled") for axis in "xy")
            if name in self._columns.visibility:
                visibility[:, k] = self._visibility_of(name, x, y)
            else:
                visibility[:, k] = np.where(np.isnan(x), NOT_LABELED, VISIBLE)
            for empty, filled, mask in (("x", "y", np.isnan(x)), ("y", "x", np.isnan(y))):
                title = shorten(name)
                reason = f"{title}_{empty} is empty but {title}_{filled} is not; fill in both or neither"
                self.reject(mask & (np.isnan(x) != np.isnan(y)), reason)
            points[:, k, 0], points[:, k, 1] = x, y
        return points, visibility

    def boxes(self) -> NDArray[np.float64]:
        """Return the (N, 4) boxes."""
        boxes = np.stack([self._numbers_of(name, "the row has no box") for name in BOX], axis=1)
        empty = np.isnan(boxes)
        partial = empty.any(axis=1) & ~empty.all(axis=1)
        self.reject(partial, f"some of {', '.join(BOX)} are empty; fill in all four or none")
        with np.errstate(invalid="ignore"):
            inverted = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
        self.reject(inverted, "the box is empty; box_x1 must be greater than box_x0, and box_y1 than box_y0")
        return boxes

    def _numbers_of(self, column: str, meaning: str) -> NDArray[np.float64]:
        cells = NumberCells(self._cells(column))
        if cells.first_comma is not None and cells.first_point is not None:
            comma, point = self._numbers[cells.first_comma], self._numbers[cells.first_point]
            raise UserError(
                f"{self._location(comma)}: {shorten(column)} has a decimal comma, but a decimal point in row"
                f" {point}; use one of them in the whole file"
            )
        self._notes.add("decimal comma", "decimal commas", "read as decimal points", cells.commas)
        for index, text in cells.invalid.items():
            reason = f"{shorten(column)} is {quote(text)}; enter a number, or leave it empty if {meaning}"
            self.bad.setdefault(index, reason)
        return cells.values

    def _visibility_of(self, name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the visibility of a landmark; empty its points at (0, 0) that are not labeled."""
        title = shorten(name)
        values, invalid = parse_visibility(self._cells(f"{name}_visibility"))
        for index, text in invalid.items():
            found = f"{title}_visibility is {quote(text)}"
            reason = f"{found}; enter 0 (not labeled), 1 (hidden) or 2 (visible)"
            self.bad.setdefault(index, reason)
        placeholder = (values == NOT_LABELED) & (x == 0) & (y == 0)
        x[placeholder] = y[placeholder] = np.nan
        self._notes.add(
            "landmark at (0, 0) with visibility 0",
            "landmarks at (0, 0) with visibility 0",
            "read as unlabeled",
            int(placeholder.sum()),
        )
        labeled = ~np.isnan(x) & ~np.isnan(y)
        self.reject(
            (values == NOT_LABELED) & labeled,
            f"{title}_visibility is 0 (not labeled), but {title}_x and {title}_y are filled in; enter 1"
            " (hidden) or 2 (visible), or empty the coordinates",
        )
        claimed = ((values == OCCLUDED) | (values == VISIBLE)) & np.isnan(x) & np.isnan(y)
        self.reject(
            claimed,
            f"{title}_visibility says that the landmark is labeled, but {title}_x and {title}_y are empty;"
            " fill them in, or enter 0",
        )
        assumed = (values == NO_VISIBILITY) & labeled
        self._notes.add(
            "landmark without visibility",
            "landmarks without visibility",
            "taken as visible",
            int(assumed.sum()),
        )
        return np.where(values == NO_VISIBILITY, np.where(labeled, VISIBLE, NOT_LABELED), values).astype(
            np.uint8
        )
