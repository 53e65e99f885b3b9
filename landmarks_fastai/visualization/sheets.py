"""Contact sheets: many images with their landmarks, captions and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.visualization.canvas import Floats, Image8, draw_stroke, draw_text, text_size, to_rgb
from landmarks_fastai.visualization.landmarks import draw_cross, draw_landmarks, landmark_colors
from landmarks_fastai.visualization.style import STYLE, rgb


def landmark_sheet(
    images: Sequence[Image8] | Image8,
    landmarks: Landmarks,
    *,
    truth: Landmarks | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 8,
    scale: int | None = None,
) -> Image8:
    """Arrange images with their landmarks on a sheet, with captions and a legend.

    Parameters
    ----------
    images
        (N, H, W, C) uint8, or N images of any size, as `draw_landmarks` takes them.
    landmarks
        N faces, each in pixels of its image.
    truth
        Labels of the same N faces.
    captions
        N texts below the images; one that is too long for its image is truncated with "…".
    columns
        Number of images per row.
    scale
        Integer factor by which each image is enlarged. None: its longer side is resized to `Style.cell`
        pixels.

    Returns
    -------
    NDArray[np.uint8]
        (H', W', 3) RGB.

    Raises
    ------
    UserError
        If there is no image, the numbers of images, faces and captions do not agree, or `columns` or `scale`
        is less than 1.
    """
    count = len(images)
    if not count:
        raise UserError("a sheet needs at least one image")
    for what, given in (("faces", landmarks), ("labeled faces", truth), ("captions", captions)):
        if given is not None and len(given) != count:
            raise UserError(f"a sheet of {count} images needs {count} {what}, not {len(given)}")
    if columns < 1 or (scale is not None and scale < 1):
        raise UserError(f"columns and scale of a sheet must be 1 or more, not {columns} and {scale}")

    cells = []
    for index, image in enumerate(images):
        enlarged, factor = _resize(to_rgb(image), scale)
        scaled = _scaled(landmarks[[index]], factor)
        cells.append(
            draw_landmarks(enlarged, scaled, truth=None if truth is None else _scaled(truth[[index]], factor))
        )
    page = _arrange(cells, captions, min(columns, count))
    legend = _legend(landmarks.schema, truth is not None, bool(landmarks.occluded.any()), page.shape[1])
    return np.concatenate([page, legend])


OCCLUDED_ENTRY = "occluded"
"""Text of the legend for crosses."""


def evaluation_sheet(
    dataset: LandmarkDataset,
    predicted: Landmarks,
    nme: ArrayLike,
    rows: NDArray[np.int64],
    *,
    columns: int = 4,
) -> Image8:
    """Draw labels and predictions of some rows of a data set, each captioned with its name and NME.

    Parameters
    ----------
    dataset
        N rows with labels.
    predicted
        Landmarks of the same rows.
    nme
        (N,) NME of each row, as a fraction.
    rows
        Indices of the rows to show, in this order.
    columns
        Number of images per row.
    """
    shown = dataset.subset(rows)
    errors = np.asarray(nme)[rows]
    captions = [f"{name}: {error:.1%}" for name, error in zip(shown.names, errors, strict=True)]
    return landmark_sheet(
        shown.images[:], predicted[rows], truth=shown.landmarks, captions=captions, columns=columns
    )


def _scaled(face: Landmarks, factor: Floats) -> Landmarks:
    """Return the landmarks of one face in pixels of its resized image; `factor` is (2,), along x and y."""
    points = (face.points.astype(np.float64) + 0.5) * factor - 0.5
    return replace(Landmarks.from_points(points, face.schema), visibility=face.visibility)


def _arrange(cells: Sequence[Image8], captions: Sequence[str] | None, columns: int) -> Image8:
    """Arrange the cells with their captions on a sheet, without the legend."""
    count = len(cells)
    width = max(cell.shape[1] for cell in cells)
    caption_height = 0 if captions is None else text_size("", STYLE.caption)[1] + 4
    heights = [max(cell.shape[0] for cell in cells[row : row + columns]) for row in range(0, count, columns)]
    tops = np.cumsum([STYLE.gap, *(height + caption_height + STYLE.gap for height in heights)])
    page = np.empty((tops[-1], columns * (width + STYLE.gap) + STYLE.gap, 3), np.uint8)
    page[:] = rgb(STYLE.paper)
    for index, cell in enumerate(cells):
        x, y = STYLE.gap + index % columns * (width + STYLE.gap), tops[index // columns]
        page[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
        if captions is not None:
            text = _truncate(captions[index], width, STYLE.caption)
            draw_text(page, x, y + heights[index // columns] + 2, text, STYLE.caption, STYLE.ink)
    return page


def _resize(image: Image8, scale: int | None) -> tuple[Image8, Floats]:
    """Resize an image for a sheet, and return it with the exact factors along x and y."""
    from PIL import Image

    height, width = image.shape[:2]
    factor = STYLE.cell / max(height, width) if scale is None else scale
    size = max(1, round(factor * width)), max(1, round(factor * height))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return resized, np.array(size) / (width, height)


def _truncate(text: str, width: int, size: int) -> str:
    """Return a caption as one line of at most `width` pixels, truncated with an ellipsis if necessary."""
    line = " ".join(text.split())
    if text_size(line, size)[0] <= width:
        return line
    while line and text_size(line + "…", size)[0] > width:
        line = line[:-1]
    return line.rstrip() + "…"


def _legend(schema: LandmarkSchema, truth: bool, occluded: bool, width: int) -> Image8:
    """Return the strip below a sheet that explains the colors, in as many lines as needed."""
    colors = landmark_colors(schema)
    names = {STYLE.left: "subject's left", STYLE.right: "subject's right", STYLE.middle: "middle"}
    entries = [(color, name) for color, name in names.items() if color in colors] if schema.flip_pairs else []
    if truth:
        entries = [*(entries or [(STYLE.middle, "prediction")]), (STYLE.truth, "label")]
    if occluded:
        entries = [*entries, (STYLE.middle, OCCLUDED_ENTRY)]
    line = STYLE.caption + 12
    positions, x, y = [], STYLE.gap, 0
    for color, name in entries:
        needed = 20 + text_size(name, STYLE.caption)[0]
        if x > STYLE.gap and x + needed > width:
            x, y = STYLE.gap, y + line
        positions.append((x, y, color, name))
        x += needed + 18
    strip = np.empty((y + line if entries else 0, width, 3), np.uint8)
    strip[:] = rgb(STYLE.paper)
    for x, y, color, name in positions:
        _draw_legend_marker(strip, np.array([x + 7.0, y + 8.0]), color, occluded=name == OCCLUDED_ENTRY)
        draw_text(strip, x + 20, y, name, STYLE.caption, STYLE.ink)
    return strip


def _draw_legend_marker(strip: Image8, center: Floats, color: str, occluded: bool) -> None:
    """Draw the dot, ring or cross of an entry of the legend."""
    if occluded:
        draw_cross(strip, center, 5.0, 1.5, STYLE.outline)
        draw_cross(strip, center, 5.0, 0.0, color)
        return
    draw_stroke(strip, center, center, 6.0, STYLE.outline)
    draw_stroke(strip, center, center, 4.5, color)
    if color == STYLE.truth:
        draw_stroke(strip, center, center, 2.5, STYLE.outline)
