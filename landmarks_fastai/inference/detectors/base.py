"""What face detectors have in common: their result type, and the conversion of their boxes to crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop, excess_roll

Floats = NDArray[np.float64]

MIN_FACE_SIZE = 16
"""Crops with a smaller side, in pixels of the image, are dropped: too small to locate landmarks."""

MAX_IOU = 0.3
"""Of two crops whose intersection over union is at least this, the one with the higher score is kept."""


@dataclass(frozen=True)
class Detections:
    """Detected faces of an image, the largest first.

    Parameters
    ----------
    boxes
        (N, 4) edges x0, y0, x1, y1 of square crops before rotation, in pixels of the image. Position
        and size relative to the face are those of Kaggle's crops; they may extend beyond the image.
    scores
        (N,) confidences of the detector, from 0 to 1.
    rolls
        (N,) roll of each crop in degrees (`Crop.roll`), or one number for all.
    """

    boxes: Floats
    scores: Floats
    rolls: Floats | float = 0.0

    @property
    def crops(self) -> list[Crop]:
        """The detections as crops."""
        rolls = np.broadcast_to(self.rolls, len(self.boxes))
        return [
            Crop(x0, y0, x1 - x0, roll)
            for (x0, y0, x1, _), roll in zip(self.boxes.tolist(), rolls.tolist(), strict=True)
        ]

    def largest(self, count: int) -> Detections:
        """Return the `count` largest faces, or all if there are fewer."""
        rolls = np.broadcast_to(self.rolls, len(self.boxes))
        return Detections(self.boxes[:count], self.scores[:count], rolls[:count])


Detector = Callable[[NDArray[np.uint8]], Detections]
"""Maps an upright (H, W, 3) uint8 RGB image to its faces; thread-safe."""


@dataclass(frozen=True)
class CropAlignment:
    """Position and size of a training crop relative to a face as the detector locates it.

    Measured by benchmarks/detectors.py.

    Parameters
    ----------
    dx, dy
        From the center of the face to the center of the crop, as a fraction of the size of the face.
    scale
        Side of the crop as a multiple of the size of the face.
    """

    dx: float
    dy: float
    scale: float

    def boxes(self, centers: Floats, sizes: Floats, rolls: Floats | float = 0.0) -> Floats:
        """Return the crops of faces as boxes before rotation.

        Parameters
        ----------
        centers
            (N, 2) centers of the faces in edge coordinates.
        sizes
            (N,) sizes of the faces, pixels.
        rolls
            (N,) or scalar, degrees.

        Returns
        -------
        NDArray[np.float64]
            (N, 4) edges x0, y0, x1, y1.
        """
        cos, sin = np.cos(np.radians(rolls)), np.sin(np.radians(rolls))
        offsets = np.stack([cos * self.dx - sin * self.dy, sin * self.dx + cos * self.dy], axis=-1)
        crop_centers = centers + sizes[:, None] * offsets
        halves = sizes[:, None] * (self.scale / 2)
        return np.hstack([crop_centers - halves, crop_centers + halves])


@contextmanager
def require_package(name: str, package: str) -> Iterator[None]:
    """Turn an ImportError into a message that says how to install the detector `name`."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"--detector {name}: its package cannot be imported ({error}); pip install {package}, or choose"
            " another --detector"
        ) from error


def shrink(image: NDArray[np.uint8], factor: float) -> tuple[NDArray[np.uint8], Floats]:
    """Reduce an image by a factor, and return it with the exact factors along x and y.

    With a factor of 1 or more, the image is returned unchanged.
    """
    if factor >= 1:
        return image, np.ones(2)
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small), np.array(size) / (width, height)


def detections_from_keypoints(
    alignment: CropAlignment,
    keypoints: Floats,
    sizes: Floats,
    scores: Floats,
    image: NDArray[np.uint8],
) -> Detections:
    """Return the detections of a detector that also locates five keypoints in each face.

    The size of a face is the height of its box, or the width if the head lies on its side. Its center is the
    mean of the keypoints: for heads turned to the side, Kaggle's crops follow these and not the outline of
    the head.

    Parameters
    ----------
    alignment
        Position of the crop relative to the face.
    keypoints
        (5, N, 2) two eyes, nose and two corners of the mouth in edge coordinates, pixels. Left and right may
        be exchanged.
    sizes
        (2, N) widths and heights of the boxes, pixels.
    scores
        (N,) confidences.
    image
        (H, W, 3) image, for its size.
    """
    x, y = (keypoints[3:].mean(axis=0) - keypoints[:2].mean(axis=0)).T  # from the eyes to the mouth
    rolls = excess_roll(np.degrees(np.arctan2(-x, y)))
    cos, sin = np.cos(np.radians(rolls)), np.sin(np.radians(rolls))
    widths, heights = sizes
    boxes = alignment.boxes(keypoints.mean(axis=0), heights * cos**2 + widths * sin**2, rolls)
    return filter_detections(boxes, scores, image, rolls)


def filter_detections(
    boxes: Floats, scores: Floats, image: NDArray[np.uint8], rolls: Floats | float = 0.0
) -> Detections:
    """Apply non-maximum suppression, and drop crops that are too small or entirely outside the image.

    Parameters
    ----------
    boxes
        (N, 4) edges x0, y0, x1, y1 of square crops before rotation, pixels.
    scores
        (N,) confidences.
    image
        (H, W, 3) image, for its size.
    rolls
        (N,) or scalar, degrees.
    """
    height, width = image.shape[:2]
    sides = boxes[:, 2] - boxes[:, 0]
    inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < (width, height)).all(axis=1)
    remaining = np.flatnonzero(inside & (sides >= MIN_FACE_SIZE))
    remaining = remaining[np.argsort(-scores[remaining], kind="stable")]
    kept = []
    while len(remaining):
        kept.append(remaining[0])
        remaining = remaining[iou(boxes[remaining[0]], boxes[remaining]) < MAX_IOU]
    order = sorted(kept, key=lambda face: -sides[face])
    kept_rolls = np.broadcast_to(rolls, len(boxes))[order]
    return Detections(boxes[order].reshape(-1, 4), np.asarray(scores[order], np.float64), kept_rolls)


def iou(box: Floats, others: Floats) -> Floats:
    """Return the intersection over union of one (4,) box with each of (N, 4) others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    intersection = (high - low).clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(intersection / ((box[2:] - box[:2]).prod() + areas - intersection))
