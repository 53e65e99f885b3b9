"""dlib's frontal face detector: histograms of oriented gradients and a linear classifier (King 2015)."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.inference.detectors.base import (
    CropAlignment,
    Detections,
    Detector,
    filter_detections,
    require_package,
    shrink,
)
from landmarks_fastai.utils.progress import Progress

MAX_PIXELS = 1024 * 1024
"""Larger images are reduced to this many pixels. Nearly all faces of at least 48 px in the reduced image are
found."""

ALIGNMENT = CropAlignment(0.019, -0.055, 1.254)


def open_dlib(
    cache: Path, progress: Progress | None = None, *, alignment: CropAlignment = ALIGNMENT
) -> Detector:
    """Open dlib's frontal face detector; each image is upsampled once.

    dlib's box is a square from the eyebrows to the chin. Instead of a confidence, dlib returns a distance d
    from the decision threshold; the score is its logistic function, 1 / (1 + exp(-d)), and thus at least 0.5.
    Crops are always upright, because dlib finds upright faces only.

    Parameters
    ----------
    cache, progress
        Not used: nothing is downloaded.
    alignment
        Position of the crop relative to the face.

    Raises
    ------
    UserError
        If the package is not installed.
    """
    with require_package("dlib", "dlib-bin"):
        import dlib  # type: ignore[import-not-found, import-untyped, unused-ignore]
    detector, lock = dlib.get_frontal_face_detector(), Lock()

    def detect(image: NDArray[np.uint8]) -> Detections:
        small, scale = shrink(image, sqrt(MAX_PIXELS / image[..., 0].size))
        # dlib 20 frees its copy of a non-contiguous array too early and then reads noise
        small = np.ascontiguousarray(small)
        with lock:  # the detector stores the image in itself
            found, distances, _ = detector.run(small, 1, 0.0)
        # right and bottom are the last column and row of pixels in the box
        edges = [(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box in found]
        corners = np.array(edges, np.float64).reshape(-1, 2, 2) / scale
        sizes = (corners[:, 1] - corners[:, 0]).mean(axis=1)
        boxes = alignment.boxes(corners.mean(axis=1), sizes)
        return filter_detections(boxes, 1 / (1 + np.exp(-np.array(distances, np.float64))), image)

    return detect
