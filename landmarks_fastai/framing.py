"""A square of a picture, cut out and resized, and its points led there and back.

One framing serves every way in: own pictures before training, and pictures to predict. A square is found
again from the points inside it. Knows nothing about files, faces or networks.

Points are pixels, the centre of the top-left one at (0, 0). Edges have the top-left corner of that same
pixel at (0, 0), so that the whole of a W x H picture is (0, 0, W, H).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEAN = math.radians(10)
"""Up to so far a head may lean in its square; with what goes beyond, the square turns."""


@dataclass(frozen=True)
class Square:
    """A square in edge coordinates: its left and top edge, its side, and how it is turned about its middle.

    `turn` is in radians, clockwise as one sees it; the edges are those before it is turned.
    """

    left: float
    top: float
    side: float
    turn: float = 0.0

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1, as boxes are written; before it is turned."""
        return self.left, self.top, self.left + self.side, self.top + self.side

    @property
    def middle(self) -> tuple[float, float]:
        """x, y, as edges are written."""
        return self.left + self.side / 2, self.top + self.side / 2

    def moved(self, right: float, down: float) -> Square:
        """Return it as large, turned as it is, moved by so many px."""
        return replace(self, left=self.left + right, top=self.top + down)

    def from_picture(self, points: NDArray[np.floating], size: int) -> NDArray[np.float64]:
        """Lead (…, 2) points of the picture to the `size` x `size` pixels that this square becomes."""
        edges = turn_points(points.astype(np.float64) + 0.5, -self.turn, self.middle) - (self.left, self.top)
        return np.asarray(edges * (size / self.side) - 0.5)

    def to_picture(self, points: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """Lead (…, 2) points back to the picture from the `size` x `size` pixels this square became."""
        # in float64: far to the right in a large picture, float32 would round twice
        edges = (points.astype(np.float64) + 0.5) * (self.side / size) + (self.left, self.top)
        return np.asarray(turn_points(edges, self.turn, self.middle) - 0.5, dtype=np.float32)


def turn_points(points: NDArray[np.float64], turn: float, middle: tuple[float, float]) -> NDArray[np.float64]:
    """Turn (…, 2) points about a middle by so many radians, clockwise as one sees it: y runs down."""
    if not turn:
        return points
    cos, sin = math.cos(turn), math.sin(turn)
    return np.asarray((points - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle)


def beyond_lean(angle: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return what of the angles of heads, in radians, a square turns with."""
    return np.asarray(np.copysign(np.maximum(0.0, np.abs(angle) - LEAN), angle))


def apart(one: Square, other: Square) -> float:
    """Return how far two squares are from being the same, however they are turned.

    The distance of their middles in shares of their side, plus the logarithm of how much larger one is.
    """
    distance = math.dist(one.middle, other.middle)
    return distance / math.sqrt(one.side * other.side) + abs(math.log(one.side / other.side))


def middle_square(width: int, height: int) -> Square:
    """Return the largest square in the middle of a picture, of `width` x `height` px.

    On whole pixels, so that no pixel is blurred into the next for half a pixel's centring.
    """
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def fit_square(points: NDArray[np.floating], mean: NDArray[np.floating]) -> Square | None:
    """Return the square in which these points lie as they do on average: as large, and in the middle.

    Size is that of the points' distances to their centre, which a tilted head does not change; centre and
    angle are the least-squares ones (Procrustes analysis: Gower 1975). The square turns with what of the
    angle goes beyond `LEAN`.

    Parameters
    ----------
    points
        (K, 2), x then y, px of the picture; NaN points are left out.
    mean
        (K, 2), the mean face, in shares of the side of a square: edges at 0 and 1.

    Returns
    -------
    Square or None
        None where fewer than two places are left.
    """
    known = np.isfinite(points).all(axis=1) & np.isfinite(mean).all(axis=1)
    if known.sum() < 2:
        return None
    here, there = points[known].astype(np.float64), mean[known].astype(np.float64)
    centre, middle = here.mean(axis=0), there.mean(axis=0)
    side = float(np.sqrt(((here - centre) ** 2).sum() / ((there - middle) ** 2).sum()))
    if side < 1e-6:
        return None
    (x, y), (mean_x, mean_y) = (here - centre).T, (there - middle).T
    angle = math.atan2((mean_x * y - mean_y * x).sum(), (mean_x * x + mean_y * y).sum())
    turn = float(beyond_lean(angle))
    # it turns about its own middle, the face about the centre of its points
    upright = centre + 0.5 + side * (0.5 - middle)
    left, top = (turn_points(upright, turn, tuple(centre + 0.5)) - side / 2).tolist()
    return Square(left, top, side, turn)


def cut_square(image: NDArray[np.uint8], square: Square, size: int, channels: int) -> NDArray[np.uint8]:
    """Cut a square out of a picture and resize it, antialiased, with the picture's edge repeated outside.

    Parameters
    ----------
    image
        (H, W), (H, W, 1) or (H, W, 3) uint8.
    square
        Where; edges need not fall between pixels, and may lie outside of the picture.
    size
        S, the side of what is returned.
    channels
        1 (luma, as ITU-R 601-2 and so PIL weigh the colours) or 3.

    Returns
    -------
    NDArray
        (S, S, channels) uint8.
    """
    if square.turn:
        return _cut_turned(image, square, size, channels)
    height, width = image.shape[:2]
    # the filter reaches one source pixel, or one target pixel where that is larger, beyond the square
    reach = ceil(max(1.0, square.side / size)) + 1
    x0, y0 = floor(square.left) - reach, floor(square.top) - reach
    x1, y1 = ceil(square.left + square.side) + reach, ceil(square.top + square.side) + reach
    # an index outside of the picture is that of the nearest pixel of its edge
    rows, columns = np.arange(y0, y1).clip(0, height - 1), np.arange(x0, x1).clip(0, width - 1)
    inside = image[rows[:, None], columns]
    if inside.ndim == 3 and inside.shape[2] == 1:
        inside = inside[:, :, 0]
    if inside.ndim == 3 and channels == 1:
        inside = np.asarray(Image.fromarray(inside).convert("L"))
    left, top = square.left - x0, square.top - y0
    resized = np.asarray(
        Image.fromarray(inside).resize(
            (size, size), Image.Resampling.BILINEAR, box=(left, top, left + square.side, top + square.side)
        )
    )
    if resized.ndim == 2:
        resized = resized[:, :, None]
    return resized if resized.shape[2] == channels else np.repeat(resized, channels, axis=2)


def _cut_turned(image: NDArray[np.uint8], square: Square, size: int, channels: int) -> NDArray[np.uint8]:
    """Cut out what is around the square, upright and twice as fine, turn that, and resize it.

    Twice as fine, since what lies between pixels is read bilinearly, which blurs. Pillow's bicubic would not,
    but moves edges by up to a tenth of a pixel.
    """
    edge = 2  # so far the last filter reaches beyond the square
    fine = 2 * size + 2 * edge
    cos, sin = math.cos(square.turn), math.sin(square.turn)
    wide = ceil(fine * (abs(cos) + abs(sin))) + 2
    side = wide * square.side / (2 * size)
    x, y = square.middle
    around = cut_square(image, Square(x - side / 2, y - side / 2, side), wide, channels)
    flat = Image.fromarray(around[..., 0] if channels == 1 else around)
    # Pillow asks where each place of the result, in edges, comes from
    left, top = (wide + (sin - cos) * fine) / 2, (wide - (sin + cos) * fine) / 2
    where = (cos, -sin, left, sin, cos, top)
    upright = flat.transform((fine, fine), Image.Transform.AFFINE, where, Image.Resampling.BILINEAR)
    box = (edge, edge, fine - edge, fine - edge)
    resized = upright.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).reshape(size, size, channels)
