"""The columns of a table of labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote, suggest

IMAGE, GROUP = "image", "group"
BOX = ("box_x0", "box_y0", "box_x1", "box_y1")

_PIXELS = re.compile(r"\s*(\d+\s+){99}\d+")


def image_column(columns: Sequence[str]) -> str | None:
    """Return the name of the column of images: ``image``, also with capital letters."""
    if IMAGE in columns:
        return IMAGE
    found = [column for column in columns if column.lower() == IMAGE]
    return found[0] if len(found) == 1 else None


def holds_pixels(cell: str) -> bool:
    """Return True if a cell of the column of images holds pixels, as in Kaggle's files."""
    return _PIXELS.match(cell) is not None


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table.

    Parameters
    ----------
    image
        Name of the column of images.
    landmarks
        The landmark names, in the order of their columns.
    visibility
        Landmarks that have a column of visibility.
    has_group, has_boxes
        Whether there are columns of groups and of boxes.
    others
        Names of the other columns.
    """

    image: str
    landmarks: tuple[str, ...]
    visibility: frozenset[str]
    has_group: bool
    has_boxes: bool
    others: tuple[str, ...]

    @classmethod
    def from_names(cls, columns: Sequence[str], source: str) -> TableColumns:
        """Find the columns by their names.

        Raises
        ------
        UserError
            If there is no column of images or of landmarks, or one of several that belong together.
        """
        image = image_column(columns)
        if image is None:
            hint = suggest(IMAGE, [column[:40] for column in columns[:12]])
            raise UserError(f"{source}: the column 'image' is missing; {hint}")
        coordinates = {column for column in columns if len(column) > 2 and column.endswith(("_x", "_y"))}
        for column in (column for column in columns if column in coordinates):
            partner = column[:-1] + ("y" if column.endswith("x") else "x")
            if partner not in coordinates:
                raise UserError(
                    f"{source}: the column {quote(column)} needs a column {quote(partner)}; add it"
                )
        landmarks = tuple(c[:-2] for c in columns if c in coordinates and c.endswith("_x"))
        if not landmarks:
            raise UserError(f"{source}: no columns of landmarks; each landmark needs two, NAME_x and NAME_y")
        boxes = [column for column in BOX if column in columns]
        if boxes and len(boxes) < len(BOX):
            lacking = next(column for column in BOX if column not in columns)
            raise UserError(f"{source}: the column {boxes[0]!r} needs a column {lacking!r}; add it")
        visibility = {f"{name}_visibility": name for name in landmarks if f"{name}_visibility" in columns}
        known = {image, GROUP, *BOX, *coordinates, *visibility}
        return cls(
            image=image,
            landmarks=landmarks,
            visibility=frozenset(visibility.values()),
            has_group=GROUP in columns,
            has_boxes=bool(boxes),
            others=tuple(column for column in columns if column and column not in known),
        )
