"""Drawing primitives on RGB arrays: antialiased strokes and text."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.visualization.style import rgb

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Image8 = NDArray[np.uint8]
Floats = NDArray[np.float64]

SLAB = 64
"""Number of rows that are painted at a time along a stroke."""


def to_rgb(image: Image8) -> Image8:
    """Return a writable RGB copy of a (H, W), (H, W, 1) or (H, W, 3) uint8 image.

    Raises
    ------
    UserError
        If it has another shape or type.
    """
    array = np.asarray(image)
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise UserError(f"an image must be (H, W), (H, W, 1) or (H, W, 3) uint8, not {shape} {array.dtype}")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3))).copy()


def draw_stroke(
    canvas: Image8,
    start: Floats,
    end: Floats,
    radius: float,
    color: str,
    opacity: float = 1.0,
    inner: float = 0.0,
) -> None:
    """Paint the pixels within `radius` of a segment, but not within `inner`, in place.

    The stroke is a dot if both ends are equal, and a ring if it also has an inner radius. Edges are
    antialiased: the coverage of a pixel is the signed distance of its center inside the edge plus 0.5,
    clipped to [0, 1]. Long segments are painted in slabs, so that only the pixels near them are touched.

    Parameters
    ----------
    canvas
        (H, W, 3) uint8 RGB.
    start, end
        (2,) x, y in pixels; nothing is drawn if a coordinate is NaN.
    radius, inner
        Pixels.
    color
        "#RRGGBB".
    opacity
        From 0 (invisible) to 1.
    """
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        return
    if abs(end[0] - start[0]) > abs(end[1] - start[1]):  # transpose, so that the slabs run along the segment
        canvas, start, end = canvas.swapaxes(0, 1), start[::-1], end[::-1]
    (x0, y0), (x1, y1) = start.tolist(), end.tolist()
    height, width = canvas.shape[:2]
    reach, length = radius + 0.5, math.hypot(x1 - x0, y1 - y0)
    direction = ((x1 - x0) / length, (y1 - y0) / length) if length else (0.0, 0.0)
    components = np.array(rgb(color), np.float32)
    first, last = max(0, math.floor(min(y0, y1) - reach)), min(height - 1, math.ceil(max(y0, y1) + reach))
    for top in range(first, last + 1, SLAB):
        bottom = min(top + SLAB - 1, last)
        fractions = [0.0, 0.0]
        if y1 != y0:
            fractions = [min(1.0, max(0.0, (y - y0) / (y1 - y0))) for y in (top - reach, bottom + reach)]
        columns = [x0 + fraction * (x1 - x0) for fraction in fractions]
        left, right = (
            max(0, math.floor(min(columns) - reach)),
            min(width - 1, math.ceil(max(columns) + reach)),
        )
        if left > right:
            continue
        x = np.arange(left, right + 1)[None] - x0
        y = np.arange(top, bottom + 1)[:, None] - y0
        along = np.clip(x * direction[0] + y * direction[1], 0, length)
        distance = np.hypot(x - along * direction[0], y - along * direction[1])
        coverage = opacity * np.clip(reach - distance, 0, 1)
        if inner > 0:
            coverage *= np.clip(distance - inner + 0.5, 0, 1)
        patch = canvas[top : bottom + 1, left : right + 1]
        patch[:] = patch + coverage[..., None].astype(np.float32) * (components - patch) + 0.5


@lru_cache(maxsize=8)
def _font(size: int) -> FreeTypeFont:
    """Return the font that matplotlib uses, so that text looks the same in images and plots."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def text_size(text: str, size: int) -> tuple[int, int]:
    """Return the width and height of a line of text in pixels; the height depends on `size` only."""
    ascent, descent = _font(size).getmetrics()
    return math.ceil(_font(size).getlength(text)), ascent + descent


def draw_text(
    canvas: Image8, left: int, top: int, text: str, size: int, color: str, outline: str | None = None
) -> None:
    """Draw a line of text, in place; parts outside the canvas are clipped.

    Parameters
    ----------
    canvas
        (H, W, 3) uint8 RGB.
    left, top
        Top-left corner of the text's box, pixels.
    text
        The text.
    size
        Font size, pixels.
    color, outline
        "#RRGGBB"; no outline if None.
    """
    from PIL import Image, ImageDraw

    rim = 0 if outline is None else max(1, size // 8)
    width, height = text_size(text, size)
    y, x = max(0, top - rim), max(0, left - rim)
    patch = canvas[y : top + height + rim, x : left + width + rim]
    if not patch.size:
        return
    image = Image.fromarray(patch)
    ImageDraw.Draw(image).text(
        (left - x, top - y), text, rgb(color), _font(size), stroke_width=rim, stroke_fill=outline
    )
    patch[:] = np.asarray(image)
