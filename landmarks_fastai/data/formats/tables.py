"""Tables of labels, one row an object: the columns, and their values as `Annotations`.

The columns are ``image``, ``NAME_x`` and ``NAME_y`` for each landmark, and optionally ``NAME_visibility``
(0 not labeled, 1 or hidden, 2 or visible), ``group`` (any text that is the same for all rows of one person or
scene) and the edges ``box_x0``, ``box_y0``, ``box_x1``, ``box_y1``. Other columns are kept for slices of an
evaluation. Coordinates are pixels of the upright image, the center of the top-left pixel at (0, 0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.labeled_objects import Notes
from landmarks_fastai.data.formats.schema_files import schema_beside
from landmarks_fastai.data.formats.table_cells import Cells, is_empty, parse_texts
from landmarks_fastai.data.formats.table_columns import GROUP, IMAGE, TableColumns
from landmarks_fastai.data.formats.table_rows import Block
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import format_count, quote

MAX_ROWS = 10_000_000
MAX_CELLS = 1 << 28


class TableBuilder:
    """Collects the blocks of a table and returns them as `Annotations`.

    Parameters
    ----------
    path
        The file.
    columns
        Names of all columns.
    row_word
        What a row is called in messages and names: "line" or "row".
    """

    def __init__(self, path: Path, columns: Sequence[str], row_word: str) -> None:
        self.columns = TableColumns.from_names(columns, str(path))
        self._path = path
        self._row_word = row_word
        self._schema = schema_beside(path, self.columns.landmarks)
        self._files = ImageFiles([path.parent, path.parent / "images"])
        self._notes = Notes()
        self._rows_read = 0
        self._mentions: Counter[str] = Counter()
        self._bad: list[str] = []
        self._images: list[str] = []
        self._numbers: list[int] = []
        self._points: list[NDArray[np.float64]] = []
        self._visibility: list[NDArray[np.uint8]] = []
        self._boxes: list[NDArray[np.float64]] = []
        self._texts: dict[str, list[str]] = {
            name: [] for name in (*self.columns.others, *([GROUP] if self.columns.has_group else []))
        }
        unnamed = sum(not column for column in columns)
        self._notes.add("column without a name", "columns without a name", "ignored", unnamed)

    def location(self, number: int) -> str:
        """Return where a row is: "labels.csv, line 3"."""
        return f"{self._path}, {self._row_word} {number}"

    def add_bad(self, number: int, reason: str) -> None:
        """Add a row that cannot be used."""
        self._bad.append(f"{self.location(number)}: {reason}")

    def add(self, numbers: Sequence[int], cells: Callable[[str], Cells]) -> None:
        """Add a block of rows.

        Parameters
        ----------
        numbers
            The number of each row.
        cells
            Returns the cells of a column.

        Raises
        ------
        UserError
            If a column has decimal points and decimal commas, or there are too many rows.
        """
        self._count_rows(len(numbers))
        block = Block(numbers, cells, self.columns, self.location, self._notes)
        images = parse_texts(cells(self.columns.image))
        block.reject([not name for name in images], "'image' is empty; enter the file name of the image")
        points, visibility = block.landmarks(self._schema.names)
        boxes = block.boxes() if self.columns.has_boxes else None
        texts = {name: parse_texts(cells(name)) for name in self._texts}
        if self.columns.has_group:
            reason = "'group' is empty; enter a group in every row, or remove the column"
            block.reject([is_empty(group) for group in texts[GROUP]], reason)
        self._mentions.update(images)
        for index, reason in sorted(block.bad.items()):
            self.add_bad(numbers[index], reason)
        kept = [index for index in range(len(numbers)) if index not in block.bad]
        self._images += [images[index] for index in kept]
        self._numbers += [numbers[index] for index in kept]
        self._points.append(points[kept])
        self._visibility.append(visibility[kept])
        if boxes is not None:
            self._boxes.append(boxes[kept])
        for name, values in texts.items():
            self._texts[name] += [values[index] for index in kept]

    def build(self) -> Annotations:
        """Return the rows.

        Raises
        ------
        UserError
            If there are no rows, or all images are missing.
        """
        if not self._rows_read and not self._bad:
            raise UserError(f"{self._path}: no rows after the header")
        places = [self.location(number) for number in self._numbers]
        rows = [self._files.add(name, place) for name, place in zip(self._images, places, strict=True)]
        k = len(self._schema)
        texts = {name: tuple(values) for name, values in self._texts.items()}
        groups = texts.pop(GROUP, None)
        return self._files.drop_missing(
            Annotations(
                schema=self._schema,
                images=self._files.sources(),
                rows=np.array(rows, np.int64),
                points=np.concatenate([np.empty((0, k, 2)), *self._points]),
                names=tuple(map(self._row_name, self._images, self._numbers)),
                source=str(self._path),
                visibility=(
                    np.concatenate([np.empty((0, k), np.uint8), *self._visibility])
                    if self.columns.visibility
                    else None
                ),
                boxes=np.concatenate([np.empty((0, 4)), *self._boxes]) if self.columns.has_boxes else None,
                groups=groups,
                columns=texts,
                notes=(*self._column_notes(), *self._notes.lines()),
                bad_rows=tuple(self._bad),
                locations=tuple(places),
            )
        )

    def _row_name(self, image: str, number: int) -> str:
        """Return the name of a row: its image, and also its number if several rows have the same image."""
        return (
            image if self._mentions[image] == 1 else f"{image} ({self._path.name} {self._row_word} {number})"
        )

    def _column_notes(self) -> list[str]:
        notes = []
        if self.columns.image != IMAGE:
            notes.append(f"the column {quote(self.columns.image)} is read as 'image'")
        lacking = len(self.columns.landmarks) - len(self.columns.visibility)
        if self.columns.visibility and lacking:
            notes.append(f"{format_count(lacking, 'landmark')} without a visibility column: taken as visible")
        if self.columns.others:
            names = ", ".join(self.columns.others)
            names = names if len(names) <= 80 else f"{names[:79]}…"
            notes.append(f"other columns, kept for slices of an evaluation: {names}")
        return notes

    def _count_rows(self, number: int) -> None:
        self._rows_read += number
        per_row = 3 * len(self._schema) + len(self._texts) + 5
        limit = min(MAX_ROWS, MAX_CELLS // per_row)
        if self._rows_read > limit:
            raise UserError(f"{self._path}: more than {limit:,} rows; split it into several files")
