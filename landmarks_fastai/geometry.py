"""Coordinate conventions, crops and similarity fits.

Points (x, y) are pixel coordinates: the center of the top-left pixel is (0, 0). Boxes (x0, y0, x1, y1) are
edge coordinates: the top-left corner of that pixel is (0, 0), so a whole W x H image is the box (0, 0, W, H).
A point (x, y) is therefore at (x + 0.5, y + 0.5) in edge coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

ROLL_TOLERANCE = 10.0
"""Degrees of roll up to which a fitted crop stays upright; only the excess rotates it. Measured in
benchmarks/refinement.md."""


@dataclass(frozen=True)
class Crop:
    """A square region of an image, possibly rotated.

    Parameters
    ----------
    left, top
        Left and top edge before rotation, in pixels of the image.
    side
        Side length in pixels of the image.
    roll
        Rotation about the center in degrees, clockwise as seen on the screen (y points down).
    """

    left: float
    top: float
    side: float
    roll: float = 0.0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Edges (x0, y0, x1, y1) before rotation."""
        return self.left, self.top, self.left + self.side, self.top + self.side

    @property
    def center(self) -> tuple[float, float]:
        """Center (x, y) in edge coordinates."""
        return self.left + self.side / 2, self.top + self.side / 2

    def shifted(self, dx: float, dy: float) -> Crop:
        """Return the crop moved by (dx, dy) pixels."""
        return replace(self, left=self.left + dx, top=self.top + dy)

    def to_crop(self, points: NDArray[np.floating], size: int) -> Floats:
        """Map (…, 2) points of the image to pixels of the `size` x `size` resized crop."""
        edges = rotate_points(points.astype(np.float64) + 0.5, -self.roll, self.center)
        return np.asarray((edges - (self.left, self.top)) * (size / self.side) - 0.5)

    def to_image(self, points: NDArray[np.floating], size: int) -> NDArray[np.float32]:
        """Map (…, 2) points of the `size` x `size` resized crop to pixels of the image."""
        # in float64, because intermediate float32 results would be rounded at large coordinates
        edges = (points.astype(np.float64) + 0.5) * (self.side / size) + (self.left, self.top)
        return np.asarray(rotate_points(edges, self.roll, self.center) - 0.5, dtype=np.float32)


def rotate_points(points: Floats, degrees: float, center: tuple[float, float]) -> Floats:
    """Rotate (…, 2) points about `center`, clockwise as seen on the screen (y points down)."""
    if not degrees:
        return points
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray((points - center) @ np.array([[cos, sin], [-sin, cos]]) + center)


@overload
def outside_square(points: NDArray[np.floating], size: int) -> NDArray[np.bool_]: ...
@overload
def outside_square(points: Tensor, size: int) -> Tensor: ...
def outside_square(points: Any, size: int) -> Any:
    """Return a (…) mask of the (…, 2) points that lie outside a `size` x `size` image; False for NaN."""
    return ((points < -0.5) | (points > size - 0.5)).any(-1)


def excess_roll(degrees: Floats | float) -> Floats:
    """Return the part of a roll angle that exceeds `ROLL_TOLERANCE`, with its sign."""
    return np.asarray(np.copysign(np.maximum(0.0, np.abs(degrees) - ROLL_TOLERANCE), degrees))


def crop_distance(first: Crop, second: Crop) -> float:
    """Return how much two crops differ in position and size, ignoring roll.

    It is the distance between the centers divided by the geometric mean of the sides, plus the absolute
    logarithm of the ratio of the sides.
    """
    distance = math.dist(first.center, second.center)
    return distance / math.sqrt(first.side * second.side) + abs(math.log(first.side / second.side))


def center_crop(width: int, height: int) -> Crop:
    """Return the largest centered crop of a `width` x `height` image, aligned to whole pixels.

    Without the alignment, an offset of half a pixel would blend each pixel with its neighbor.
    """
    side = min(width, height)
    return Crop((width - side) // 2, (height - side) // 2, side)


def square_crop(x0: float, y0: float, x1: float, y1: float) -> Crop:
    """Return the square with the center of a box, given by its edges in pixels, and its longer side."""
    side = max(x1 - x0, y1 - y0)
    return Crop((x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side)


@dataclass(frozen=True)
class Similarity:
    """N similarity transforms of a shape to points, with positions as complex numbers x + iy.

    ``point = points_mean + transform * (shape_point - shape_mean)``: the modulus of `transform` is the scale
    and its argument the rotation, clockwise as seen on the screen.

    Parameters
    ----------
    transform, points_mean, shape_mean
        (N,) complex128.
    scatter
        (N,) weighted sum of squared distances of the shape's points from their mean; 0 where no transform can
        be determined.
    """

    transform: Complex
    points_mean: Complex
    shape_mean: Complex
    scatter: Floats

    def to_shape(self, points: Complex) -> Complex:
        """Map (N, K) points into the coordinate system of the shape by the inverse transforms."""
        return (points - self.points_mean[:, None]) / self.transform[:, None] + self.shape_mean[:, None]


def fit_similarity(points: Complex, shape: Complex, weights: NDArray[Any]) -> Similarity:
    """Fit similarity transforms that map a shape to points by weighted least squares.

    Ordinary Procrustes analysis in the plane (Gower 1975, "Generalized Procrustes Analysis"; in complex form
    Kent 1994, "The complex Bingham distribution and shape analysis").

    Parameters
    ----------
    points
        (N, K) complex, x + iy; values with zero weight are ignored but must be finite.
    shape
        (K,) complex, in any unit; finite.
    weights
        (N, K), non-negative numbers or a mask.

    Returns
    -------
    Similarity
        Where all weighted shape points coincide, the transform is 0.
    """
    weights = weights.astype(np.float64)
    total = np.maximum(weights.sum(axis=1), 1e-9)
    points_mean = (weights * points).sum(axis=1) / total
    shape_mean = (weights * shape).sum(axis=1) / total
    centered = weights * (shape - shape_mean[:, None])
    scatter = (centered * (shape - shape_mean[:, None]).conj()).sum(axis=1).real
    covariance = ((points - points_mean[:, None]) * centered.conj()).sum(axis=1)
    return Similarity(covariance / np.maximum(scatter, 1e-9), points_mean, shape_mean, scatter)


def to_complex(points: NDArray[np.floating]) -> Complex:
    """Return (…, 2) points as (…) complex numbers x + iy."""
    return np.asarray(points[..., 0] + 1j * points[..., 1].astype(np.float64), np.complex128)


def fit_crop(points: NDArray[np.floating], mean_shape: NDArray[np.floating]) -> Crop | None:
    """Return the crop that places the landmarks as they are placed on average in the training crops.

    Center and roll are those of the least-squares similarity (`fit_similarity`). The side is the ratio of the
    root mean square distances from the centroid, which does not shrink when the fit is poor. Only the roll in
    excess of `ROLL_TOLERANCE` rotates the crop.

    Parameters
    ----------
    points
        (K, 2) pixels of the image; NaN points are ignored.
    mean_shape
        (K, 2) mean landmark positions as fractions of the crop: 0 and 1 are its edges.

    Returns
    -------
    Crop or None
        None if fewer than two distinct points are known.
    """
    known = np.isfinite(points).all(axis=1) & np.isfinite(mean_shape).all(axis=1)
    if known.sum() < 2:
        return None
    observed, expected = points[known].astype(np.float64), mean_shape[known].astype(np.float64)
    centroid, expected_centroid = observed.mean(axis=0), expected.mean(axis=0)
    side = float(np.sqrt(((observed - centroid) ** 2).sum() / ((expected - expected_centroid) ** 2).sum()))
    if side < 1e-6:
        return None
    fit = fit_similarity(to_complex(observed)[None], to_complex(expected), np.ones((1, len(observed))))
    roll = float(excess_roll(float(np.degrees(np.angle(fit.transform[0])))))
    # the crop rotates about its own center, the face about the centroid of its landmarks
    upright_center = centroid + 0.5 + side * (0.5 - expected_centroid)
    center = rotate_points(upright_center, roll, (centroid[0] + 0.5, centroid[1] + 0.5))
    left, top = (center - side / 2).tolist()
    return Crop(left, top, side, roll)


def extract_crop(image: NDArray[np.uint8], crop: Crop, size: int, channels: int) -> NDArray[np.uint8]:
    """Cut a crop out of an image and resize it with antialiasing.

    Outside the image, its edge pixels are repeated.

    Parameters
    ----------
    image
        (H, W), (H, W, 1) or (H, W, 3) uint8.
    crop
        Its edges may be fractional and may lie outside the image.
    size
        S, side of the result in pixels.
    channels
        1 (luma of ITU-R 601-2, as in PIL) or 3.

    Returns
    -------
    NDArray
        (S, S, channels) uint8.
    """
    if crop.roll:
        return _extract_rotated(image, crop, size, channels)
    height, width = image.shape[:2]
    # the filter reaches one source pixel, or one target pixel if that is larger, beyond the crop
    margin = math.ceil(max(1.0, crop.side / size)) + 1
    x0, y0 = math.floor(crop.left) - margin, math.floor(crop.top) - margin
    x1, y1 = math.ceil(crop.left + crop.side) + margin, math.ceil(crop.top + crop.side) + margin
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        region = image[y0:y1, x0:x1]
    else:  # indices outside the image are clipped, which repeats its edge pixels
        rows, columns = np.arange(y0, y1).clip(0, height - 1), np.arange(x0, x1).clip(0, width - 1)
        region = image[rows[:, None], columns]
    if region.ndim == 3 and region.shape[2] == 1:
        region = region[:, :, 0]
    if region.ndim == 3 and channels == 1:
        region = np.asarray(Image.fromarray(region).convert("L"))
    left, top = crop.left - x0, crop.top - y0
    resized = np.asarray(
        Image.fromarray(region).resize(
            (size, size), Image.Resampling.BILINEAR, box=(left, top, left + crop.side, top + crop.side)
        )
    )
    if resized.ndim == 2:
        resized = resized[:, :, None]
    return resized if resized.shape[2] == channels else np.repeat(resized, channels, axis=2)


def extract_input(
    image: NDArray[np.uint8], crop: Crop, size: int, channels: int, image_size: int | None
) -> NDArray[np.uint8]:
    """Cut a crop out of an image and resize it as the network saw crops in training.

    A data set stores its crops at one side, from which training resizes them to the input of the network.
    Resizing in one step instead of two gives sharper crops, which the network does not know.

    Parameters
    ----------
    image, crop, channels
        See `extract_crop`.
    size
        S, side of the network input in pixels.
    image_size
        Side of the images of the data set in pixels; None if it is unknown: resize in one step.

    Returns
    -------
    NDArray
        (S, S, channels) uint8.
    """
    if image_size is None or image_size == size:
        return extract_crop(image, crop, size, channels)
    stored = extract_crop(image, crop, image_size, channels)
    return extract_crop(stored, Crop(0, 0, image_size), size, channels)


def _extract_rotated(image: NDArray[np.uint8], crop: Crop, size: int, channels: int) -> NDArray[np.uint8]:
    """Extract an upright region around the crop at twice the resolution, rotate it, and resize it.

    The doubled resolution reduces the blur of bilinear interpolation. Pillow's bicubic interpolation
    would not blur, but shifts edges by up to a tenth of a pixel.
    """
    border = 2  # reach of the final resize filter beyond the crop
    rotated_size = 2 * size + 2 * border
    angle = math.radians(crop.roll)
    cos, sin = math.cos(angle), math.sin(angle)
    region_size = math.ceil(rotated_size * (abs(cos) + abs(sin))) + 2
    side = region_size * crop.side / (2 * size)
    x, y = crop.center
    region = extract_crop(image, Crop(x - side / 2, y - side / 2, side), region_size, channels)
    source = Image.fromarray(region[..., 0] if channels == 1 else region)
    # Pillow's matrix maps each output position, in edge coordinates, to its position in the source
    left = (region_size + (sin - cos) * rotated_size) / 2
    top = (region_size - (sin + cos) * rotated_size) / 2
    matrix = (cos, -sin, left, sin, cos, top)
    rotated = source.transform(
        (rotated_size, rotated_size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    box = (border, border, rotated_size - border, rotated_size - border)
    resized = rotated.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).reshape(size, size, channels)
