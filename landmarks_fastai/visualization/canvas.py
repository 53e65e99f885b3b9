"""Drawing primitives on RGB arrays: antialiased strokes and text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
Indices = NDArray[np.intp]


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
    return np.broadcast_to(array, (*array.shape[:2], 3)).copy(order="C")


@dataclass(frozen=True)
class Layer:
    """How a layer of strokes is painted.

    Parameters
    ----------
    radius
        Half the width of each of N strokes, or of all of them, pixels.
    colors
        N colors as "#RRGGBB".
    opacity
        From 0 (invisible) to 1.
    inner
        Distance from each of N segments within which nothing is painted, pixels.
    """

    radius: Floats | float
    colors: Sequence[str]
    opacity: float = 1.0
    inner: Floats | float = 0.0


def draw_stroke(
    canvas: Image8,
    start: Floats,
    end: Floats,
    radius: float,
    color: str,
    opacity: float = 1.0,
    inner: float = 0.0,
) -> None:
    """Paint one stroke, in place; see `draw_strokes`."""
    draw_strokes(canvas, start[None], end[None], [Layer(radius, [color], opacity, inner)])


def draw_strokes(canvas: Image8, starts: Floats, ends: Floats, layers: Sequence[Layer]) -> None:
    """Paint the pixels around N segments, in place; a layer covers those before it, and a stroke likewise.

    A stroke is a dot if both ends are equal, and a ring if it also has an inner radius. Edges are
    antialiased: the coverage of a pixel is the signed distance of its center inside the edge plus 0.5,
    clipped to [0, 1]. Distances are computed for the pixels near all strokes at once.

    Parameters
    ----------
    canvas
        (H, W, 3) uint8 RGB.
    starts, ends
        (N, 2) x, y in pixels; a stroke with a coordinate that is NaN is not drawn.
    layers
        The strokes of each layer have the same segments.
    """
    count = len(starts)
    radii = np.stack([np.broadcast_to(layer.radius, count) for layer in layers])
    strokes, pixels, distance = _pixels_near(starts, ends, radii.max(axis=0) + 0.5, canvas.shape[:2])
    turns = _turns(pixels, canvas.shape[0] * canvas.shape[1])
    target = np.ascontiguousarray(canvas)
    flat = target.reshape(-1).view("V3")  # pixels as items of three bytes, which numpy copies fastest
    for layer, radius in zip(layers, radii, strict=True):
        coverage = (radius + 0.5).astype(np.float32).take(strokes) - distance
        coverage = coverage.clip(0, 1, out=coverage) * np.float32(layer.opacity)
        inner = np.broadcast_to(layer.inner, count).astype(np.float32)
        if (inner > 0).any():
            holes = inner.take(strokes)
            coverage *= np.where(holes > 0, (distance - holes + np.float32(0.5)).clip(0, 1), np.float32(1))
        colors = np.array([rgb(color) for color in layer.colors], np.float32).reshape(-1, 3)
        for turn in turns:
            painted = turn[coverage.take(turn) > 0]
            places = pixels.take(painted)
            below = flat.take(places).view(np.uint8).reshape(-1, 3).astype(np.float32)
            change = colors.take(strokes.take(painted), axis=0)
            change -= below
            change *= coverage.take(painted)[:, None]
            change += below
            change += np.float32(0.5)
            flat.put(places, change.astype(np.uint8).reshape(-1).view("V3"))
    if target is not canvas:
        canvas[:] = target


def _pixels_near(
    starts: Floats, ends: Floats, reach: Floats, shape: tuple[int, ...]
) -> tuple[Indices, Indices, NDArray[np.float32]]:
    """Return stroke, index in the image and distance of the pixels within `reach` of each segment.

    Along the axis in which a segment is longer, the pixels near it are a band of constant width.
    """
    is_finite = np.asarray(np.isfinite(np.hstack([starts, ends])).all(axis=1), bool)
    starts, ends = (np.where(is_finite[:, None], points, 0.0) for points in (starts, ends))
    is_steep = np.abs(ends[:, 1] - starts[:, 1]) >= np.abs(ends[:, 0] - starts[:, 0])
    # u is the longer axis of each segment, v the other one
    (u0, v0), (u1, v1) = (np.where(is_steep, points[:, ::-1].T, points.T) for points in (starts, ends))
    u_size, v_size = np.where(is_steep[:, None], shape, shape[::-1]).T
    low, high = np.minimum(u0, u1), np.maximum(u0, u1)
    first = np.floor(low - reach).clip(0, u_size)
    counts = np.where(is_finite, np.ceil(high + reach).clip(-1, u_size - 1) - first + 1, 0).clip(0)
    counts = counts.astype(np.intp)
    # one line of pixels of a band after the other
    lines = np.repeat(np.arange(len(starts)), counts)
    u = np.arange(len(lines)) - np.repeat(np.cumsum(counts) - counts, counts) + first[lines]
    slope = (v1 - v0) / np.where(u1 == u0, 1, u1 - u0)
    half = reach * np.sqrt(1 + slope**2)
    band = math.ceil(2 * half.max(initial=0)) + 1
    center = v0[lines] + slope[lines] * (u.clip(low[lines], high[lines]) - u0[lines])
    v = np.ceil(center - half[lines]).clip(-band, v_size[lines])
    squares = _squared_distances(u, v, band, *(np.stack(pair)[:, lines] for pair in ((u0, v0), (u1, v1))))
    is_near = squares < (reach * reach).astype(np.float32)[lines, None]
    if (v < 0).any() or (v + band > v_size[lines]).any():
        columns = v[:, None] + np.arange(band)
        is_near &= (columns >= 0) & (columns < v_size[lines, None])
    near = np.flatnonzero(is_near)
    line, offset = np.divmod(near, band)
    u_stride, v_stride = np.where(is_steep, [[shape[1]], [1]], [[1], [shape[1]]])[:, lines]
    corner = (u * u_stride + v * v_stride).astype(np.intp)
    pixels = corner.take(line) + offset * v_stride.take(line)
    return lines.take(line), pixels, np.sqrt(squares.take(near))


def _squared_distances(u: Floats, v: Floats, band: int, start: Floats, end: Floats) -> NDArray[np.float32]:
    """Return the (L, band) squared distances of L lines of pixels from the segment of each.

    Parameters
    ----------
    u, v
        (L,) coordinates of the first pixel of each line; v increases along it.
    band
        Number of pixels of a line.
    start, end
        (2, L) u, v of the segments.
    """
    vectors = end - start
    length = np.hypot(*vectors)
    # any direction for a dot
    along_u, along_v = np.where(length > 0, vectors / np.where(length > 0, length, 1), [[1.0], [0.0]])
    du, dv = u - start[0], v - start[1]
    steps = np.arange(band, dtype=np.float32)

    def project(first: Floats, step: Floats) -> NDArray[np.float32]:
        projected: NDArray[np.float32] = steps * step.astype(np.float32)[:, None]
        projected += first.astype(np.float32)[:, None]
        return projected

    along = project(du * along_u + dv * along_v, along_v)
    along -= along.clip(0, length.astype(np.float32)[:, None])  # how far beyond an end
    across = project(du * along_v - dv * along_u, -along_u)
    along *= along
    across *= across
    along += across
    return along


def _turns(pixels: Indices, size: int) -> list[Indices]:
    """Split indices of pixels, so that no pixel occurs twice in a turn; the first turn has each first one."""
    turns, remaining = [], np.arange(len(pixels))
    owner = np.empty(size, np.intp)  # only the entries of `pixels` are used
    while len(remaining):
        # of several values for one index, numpy keeps the last
        owner[pixels[remaining[::-1]]] = remaining[::-1]
        is_first = owner[pixels[remaining]] == remaining
        turns.append(remaining[is_first])
        remaining = remaining[~is_first]
    return turns


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
