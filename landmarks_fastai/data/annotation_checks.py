"""Checks of labels in pixels of the source images: normalized, placeholders, outside image or crop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import format_count

Mask = NDArray[np.bool_]

PLACEHOLDERS = (0.0, -1.0)
"""Values of both x and y by which some tools mark a landmark that is not labeled."""

NORMALIZED_BOUND = 1.5
"""Coordinates of a row are normalized if none is larger; a landmark may be somewhat outside the image."""

NORMALIZED_FRACTION = 0.1
"""Fraction of the rows from which normalized coordinates are an error, not a remark."""

NAMES_SHOWN = 3
"""Number of rows that a line names."""

BLOCK_POINTS = 50_000
"""Number of landmarks that are checked at a time, which bounds the memory of a check."""


def check_annotations(annotations: Annotations) -> list[str]:
    """Check labels before the images are read.

    Returns
    -------
    list[str]
        One line for each problem, for the user.

    Raises
    ------
    UserError
        If the coordinates are normalized.
    """
    return check_coordinates(annotations.points, annotations.names, annotations.source)


def check_crops(
    annotations: Annotations, sizes: NDArray[np.integer], points: NDArray[np.floating]
) -> list[str]:
    """Check labels against the size of their images and the crop of their row.

    Parameters
    ----------
    annotations
        N rows on M images.
    sizes
        (M, 2) width and height of the images in pixels.
    points
        (N, K, 2) the landmarks in pixels of the crops; NaN where they are outside the crop.

    Returns
    -------
    list[str]
        One line for each problem, for the user.
    """
    outside, lost = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for block in row_blocks(points):
        labels = annotations.points[block]
        limits = sizes[annotations.rows[block]][:, None] - 0.5
        known = ~np.isnan(labels).any(axis=2) & ~find_placeholders(labels)
        is_outside = known & ((labels < -0.5) | (labels > limits)).any(axis=2)
        is_lost = known & ~is_outside & np.isnan(points[block]).any(axis=2)
        outside.append(np.flatnonzero(is_outside.any(axis=1)) + block.start)
        lost.append(np.flatnonzero(is_lost.any(axis=1)) + block.start)
    lines = []
    for rows, problem in (
        (np.concatenate(outside).tolist(), "with landmarks outside the image"),
        (np.concatenate(lost).tolist(), "with landmarks outside the crop, which count as not labeled"),
    ):
        if rows:
            lines.append(f"{format_count(len(rows), 'row')} {problem}: {name_rows(annotations.names, rows)}")
    return lines


def check_coordinates(points: NDArray[np.floating], names: Sequence[str], source: str) -> list[str]:
    """Search for normalized coordinates and placeholders.

    Parameters
    ----------
    points
        (N, K, 2) pixels; NaN where a landmark is not labeled.
    names
        N row names.
    source
        Name of the data set in messages.

    Returns
    -------
    list[str]
        One line for each problem, for the user.

    Raises
    ------
    UserError
        If the coordinates of at least `NORMALIZED_FRACTION` of the rows are normalized.
    """
    return [*_normalized_lines(points, names, source), *_placeholder_lines(points, names)]


def find_placeholders(points: NDArray[np.floating]) -> Mask:
    """Return the (…) mask of the (…, 2) points at exactly (0, 0) or (-1, -1)."""
    x, y = points[..., 0], points[..., 1]
    return np.asarray((x == y) & ((x == PLACEHOLDERS[0]) | (x == PLACEHOLDERS[1])))


def row_blocks(points: NDArray[np.floating]) -> Iterator[slice]:
    """Yield slices of the rows of (N, K, 2) points, of at most `BLOCK_POINTS` landmarks each."""
    step = max(1, BLOCK_POINTS // max(points.shape[1], 1))
    return (slice(start, start + step) for start in range(0, len(points), step))


def name_rows(names: Sequence[str], rows: Sequence[int]) -> str:
    """Return the names of the first rows: ``"a.png, b.png, c.png and 9 more"``."""
    shown = [names[row] for row in rows[:NAMES_SHOWN]]
    text = ("; " if any("," in name for name in shown) else ", ").join(shown)
    return text if len(rows) <= NAMES_SHOWN else f"{text} and {len(rows) - NAMES_SHOWN:,} more"


# --- checks --------------------------------------------------------------------------------------


def _normalized_lines(points: NDArray[np.floating], names: Sequence[str], source: str) -> Iterator[str]:
    """Raise an error if many rows are normalized, or yield a line if a few are."""
    rows, lowest = _normalized_rows(points)
    if not len(rows):
        return
    if lowest < -0.2:
        limits, remedy = (
            "-1 and 1",
            "add 1 to both, and multiply x by half the width and y by half the height",
        )
    else:
        limits, remedy = "0 and 1", "multiply x by the width and y by the height"
    labeled = sum(
        int((~np.isnan(points[block]).any(axis=2)).any(axis=1).sum()) for block in row_blocks(points)
    )
    few = NORMALIZED_FRACTION if points.shape[1] > 1 else 0.9
    if len(rows) >= few * labeled:
        raise UserError(
            f"{source}: the coordinates look normalized, because those of {len(rows):,} of"
            f" {format_count(len(points), 'row')} are between {limits}, but pixels are needed: {remedy} of"
            " the image"
        )
    yield (
        f"{format_count(len(rows), 'row')} with coordinates between {limits}, as if normalized"
        f" ({name_rows(names, rows.tolist())}): {remedy} of the image"
    )


def _normalized_rows(points: NDArray[np.floating]) -> tuple[NDArray[np.int64], float]:
    """Return the rows with normalized coordinates only, and the smallest of these coordinates."""
    needed = min(2, points.shape[1])  # one landmark of several may be in the corner of the image
    found, lowest = [np.empty(0, np.int64)], 0.0
    for block in row_blocks(points):
        part = points[block]
        known = ~np.isnan(part).any(axis=2) & ~find_placeholders(part)
        largest = np.where(known, abs(part).max(axis=2), 0).max(axis=1, initial=0)
        rows = np.flatnonzero((known.sum(axis=1) >= needed) & (largest <= NORMALIZED_BOUND))
        if len(rows):
            lowest = min(lowest, float(part[rows][known[rows]].min()))
        found.append(rows + block.start)
    return np.concatenate(found), lowest


def _placeholder_lines(points: NDArray[np.floating], names: Sequence[str]) -> Iterator[str]:
    """Yield a line for the landmarks at (0, 0), and one for those at (-1, -1)."""
    for value in PLACEHOLDERS:
        is_labeled_so = np.zeros(points.shape[1], bool)
        found = [np.empty(0, np.int64)]
        for block in row_blocks(points):
            mask = (points[block] == value).all(axis=2)
            is_labeled_so |= mask.any(axis=0)
            found.append(np.flatnonzero(mask.any(axis=1)) + block.start)
        rows = np.concatenate(found).tolist()
        if rows:
            where = f" ({name_rows(names, rows)})" if len(rows) <= NAMES_SHOWN else ""
            count = format_count(int(is_labeled_so.sum()), "landmark")
            yield (
                f"{count} at exactly ({value:g}, {value:g}) in {format_count(len(rows), 'row')}{where}: leave"
                " the cell empty where a landmark is not labeled"
            )
