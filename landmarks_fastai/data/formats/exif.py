"""Coordinates of tools that ignore the EXIF orientation, converted to those of the upright image."""

from __future__ import annotations

from landmarks_fastai.data.formats.labeled_objects import Box
from landmarks_fastai.utils.images import SWAPS_AXES

MIRRORS_X = frozenset({2, 3, 6, 7})
MIRRORS_Y = frozenset({3, 4, 7, 8})
"""EXIF orientations that mirror an axis, after those in `SWAPS_AXES` have exchanged x and y."""


def to_upright(point: tuple[float, float], size: tuple[int, int], orientation: int) -> tuple[float, float]:
    """Return the coordinates in the upright image of a point in the stored image.

    Parameters
    ----------
    point
        (x, y) in pixels of the stored image, the center of the top-left pixel at (0, 0).
    size
        Width and height of the upright image.
    orientation
        EXIF orientation, 1 to 8.
    """
    x, y = reversed(point) if orientation in SWAPS_AXES else point
    width, height = size
    return (
        width - 1 - x if orientation in MIRRORS_X else x,
        height - 1 - y if orientation in MIRRORS_Y else y,
    )


def box_to_upright(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Return the edges in the upright image of a box in the stored image; see `to_upright`."""
    corners = [
        to_upright((x - 0.5, y - 0.5), size, orientation) for x, y in ((box[0], box[1]), (box[2], box[3]))
    ]
    (x0, x1), (y0, y1) = (sorted(values) for values in zip(*corners, strict=True))
    return x0 + 0.5, y0 + 0.5, x1 + 0.5, y1 + 0.5
