"""Searching an image for the object of a model, for landmarks that no detector finds.

Measured by benchmarks/whole_image.py. Coarse to fine:

1. The network predicts landmarks in overlapping square windows of several sizes.
2. Candidates are the windows that agree best with another on where the landmarks are, and those with the
   lowest expected error, if the model estimates it. Their crops are re-estimated from the landmarks.
3. The network predicts again in each of these crops and in displaced copies of it. On the object, the
   landmarks stay where they are in the image; elsewhere, they move with the crop. Confidence does not decide:
   it is not calibrated in images of anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.crops import MARGIN
from landmarks_fastai.geometry import Crop, crop_distance
from landmarks_fastai.inference.detectors.base import Detections, Detector, shrink
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks

Floats = NDArray[np.float64]

SMALLEST, LARGEST = 0.1, 0.8
"""Sizes of the objects that are searched for: from a fraction of the shorter side of the image to one of the
longer side."""

SIZE_RATIO = math.sqrt(2)
"""Ratio of consecutive window sizes."""

STRIDE = 0.5
"""Largest distance of neighboring windows as a fraction of their side."""

CANDIDATES = 6
"""Number of windows whose crops are re-estimated, by each of the two criteria."""

DISPLACEMENTS = ((0.1, 0.0, 1.0), (-0.1, 0.0, 1.0), (0.0, 0.1, 1.0), (0.0, -0.1, 1.0), (0.0, 0.0, 1.2))
"""Shift along x and y as fractions of the side, and factor of the side, of each displaced copy of a crop."""

BLOCK = 512
"""Rows of the matrix of distances that are computed at a time, which limits memory."""

MAX_MOTION = 0.03
"""The object is not found if landmarks move by more than this fraction of the crop's side (root mean square).
On the object of the benchmark, they move by about 0.01; if they move with the crop, by about 0.09. In
between, the network takes something else for the object."""


def open_image_search(predictor: Predictor) -> Detector:
    """Return a detector that searches an image with the model; it finds one object at most.

    Parameters
    ----------
    predictor
        A model with a mean shape.
    """

    def detect(image: NDArray[np.uint8]) -> Detections:
        return search_image(predictor, image)

    return detect


def search_image(predictor: Predictor, image: NDArray[np.uint8]) -> Detections:
    """Return the crop of the object in an (H, W, 3) uint8 RGB image, or nothing if it is not found.

    The score is 1 minus the motion of the landmarks relative to `MAX_MOTION`.
    """
    height, width = image.shape[:2]
    smallest_side = MARGIN * SMALLEST * min(width, height)
    # smaller windows are not needed at a higher resolution than the input of the network
    small, factors = shrink(image, predictor.header.input_size / smallest_side)
    windows = search_windows(small.shape[1], small.shape[0])
    found = predictor.predict_crops(small, windows)
    candidates = _refit(predictor, found, _choose_windows(found, windows))
    if not candidates:
        return Detections(np.empty((0, 4)), np.empty(0))
    motion = landmark_motion(predictor, small, candidates)
    best = int(np.argmin(motion))
    if not motion[best] < MAX_MOTION:
        return Detections(np.empty((0, 4)), np.empty(0))
    crop = candidates[best]
    box = np.array([crop.box]) / np.tile(factors, 2)
    return Detections(box, 1 - motion[[best]] / MAX_MOTION, crop.roll)


def search_windows(width: int, height: int) -> list[Crop]:
    """Return overlapping windows of several sizes that cover a `width` x `height` image, the largest first.

    A window extends beyond the image by the margin that a training crop has around the landmarks.
    """
    shorter, longer = min(width, height), max(width, height)
    # in a panorama, windows as large as its longer side would mostly show repeated edge pixels
    largest, smallest = MARGIN * LARGEST * min(longer, 2 * shorter), MARGIN * SMALLEST * shorter
    steps = math.ceil(math.log(largest / smallest) / math.log(SIZE_RATIO))
    return [
        Crop(x, y, side)
        for side in np.geomspace(largest, smallest, steps + 1).tolist()
        for y in _positions(height, side)
        for x in _positions(width, side)
    ]


def _positions(length: int, side: float) -> list[float]:
    """Return the positions of windows along an axis of the image, at most `STRIDE` apart."""
    margin = side * (1 - 1 / MARGIN) / 2
    free = length + 2 * margin - side
    if free <= 0:
        return [(length - side) / 2]
    count = math.ceil(free / (STRIDE * side)) + 1
    return [float(position) for position in np.linspace(-margin, free - margin, count)]


def _choose_windows(found: Landmarks, windows: Sequence[Crop]) -> list[int]:
    """Return the windows to continue with, each once."""
    criteria = [window_disagreement(found.points, windows)]
    if np.isfinite(found.scales).all():
        criteria.append(found.scales.mean(axis=1) / [window.side for window in windows])
    best = np.concatenate([np.argsort(values, kind="stable")[:CANDIDATES] for values in criteria])
    return list(dict.fromkeys(best.tolist()))


def window_disagreement(points: NDArray[np.float32], windows: Sequence[Crop]) -> Floats:
    """Return how far each window is from agreeing with another about the landmarks.

    Parameters
    ----------
    points
        (N, K, 2) landmarks predicted in N windows, pixels of the image.
    windows
        The N windows.

    Returns
    -------
    NDArray[np.float64]
        (N,) root mean square distance of the landmarks from those of the nearest other window, relative to
        the side of the smaller window.
    """
    flat = points.reshape(len(points), -1).astype(np.float64)
    sides = np.array([window.side for window in windows])
    squares = (flat**2).sum(axis=1)
    disagreement = np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = squares[rows, None] + squares - 2 * flat[rows] @ flat.T
        smaller = np.minimum(sides[rows, None], sides)
        relative = np.sqrt(np.maximum(distances, 0) / points.shape[1]) / smaller
        relative[np.arange(len(relative)), start + np.arange(len(relative))] = np.inf  # the window itself
        disagreement[rows] = relative.min(axis=1)
    return disagreement


def _refit(predictor: Predictor, found: Landmarks, rows: Sequence[int]) -> list[Crop]:
    """Return the re-estimated crops of predictions, without duplicates."""
    crops: list[Crop] = []
    for row in rows:
        crop = predictor.crop_around(found.points[row])
        if crop is not None and all(crop_distance(crop, other) > 0.02 for other in crops):
            crops.append(crop)
    return crops


def landmark_motion(predictor: Predictor, image: NDArray[np.uint8], crops: Sequence[Crop]) -> Floats:
    """Return how far landmarks move in the image when their crop is displaced.

    Returns
    -------
    NDArray[np.float64]
        Root mean square distance over landmarks and `DISPLACEMENTS`, as a fraction of the side; one per crop.
    """
    displaced = [copy for crop in crops for copy in (crop, *(_displace(crop, *by) for by in DISPLACEMENTS))]
    points = predictor.predict_crops(image, displaced).points.astype(np.float64)
    points = points.reshape(len(crops), 1 + len(DISPLACEMENTS), -1, 2)
    squares = ((points[:, 1:] - points[:, :1]) ** 2).sum(axis=-1).mean(axis=(1, 2))
    return np.asarray(np.sqrt(squares) / [crop.side for crop in crops])


def _displace(crop: Crop, dx: float, dy: float, factor: float) -> Crop:
    side = factor * crop.side
    x, y = crop.center
    return Crop(x - side / 2 + dx * crop.side, y - side / 2 + dy * crop.side, side, crop.roll)
