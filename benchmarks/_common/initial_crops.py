"""Predictions in whole frames: their initial crops, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from _common.frames68 import Frame68
from landmarks_fastai.evaluation.metrics import inter_ocular_distance, nme
from landmarks_fastai.geometry import Crop, crop_distance
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import MATCH_DISTANCE
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.images import read_image

Image = NDArray[np.uint8]

DETECTORS = ("centerface", "dlib")

DISPLACED = {
    "true crop, shifted right by 0.15": (0.15, 1.0),
    "true crop, 1.3 times too large": (0.0, 1.3),
    "true crop, 1.3 times too small": (0.0, 1 / 1.3),
}
"""Deliberately inaccurate crops: shift as a fraction of the side, and factor of the side."""

read_frame = cache(read_image)


def initial_crops(frames: Sequence[Frame68]) -> dict[str, list[Crop | None]]:
    """Return the initial crops of the frames by their origin; None where a detector misses the face."""
    crops: dict[str, list[Crop | None]] = {"true crop": [frame.crop for frame in frames]}
    for name, (shift, factor) in DISPLACED.items():
        crops[name] = [_displace(frame.crop, shift, factor) for frame in frames]
    for name in DETECTORS:
        detect = open_detector(name, default_cache_dir())
        crops[name] = [nearest_crop(detect(read_frame(frame.image)).crops, frame.crop) for frame in frames]
    return crops


def nearest_crop(detected: Sequence[Crop], true: Crop) -> Crop | None:
    """Return the detected crop that shows the face of the true crop; None if there is none."""
    nearest = min(detected, key=lambda crop: crop_distance(crop, true), default=None)
    return nearest if nearest is not None and crop_distance(nearest, true) < MATCH_DISTANCE else None


def _displace(crop: Crop, shift: float, factor: float) -> Crop:
    side = crop.side * factor
    x, y = crop.shifted(shift * crop.side, 0).center
    return Crop(x - side / 2, y - side / 2, side)


def frame_errors(
    predictor: Predictor, frames: Sequence[Frame68], crops: Sequence[Crop | None], refine: int
) -> NDArray[np.float64]:
    """Return the NME of each frame; NaN where there is no crop. See `image_errors`."""
    images = [read_frame(frame.image) for frame in frames]
    labels = np.stack([frame.points for frame in frames])
    return image_errors(predictor, images, labels, crops, refine)


def image_errors(
    predictor: Predictor,
    images: Sequence[Image],
    labels: NDArray[np.float64],
    crops: Sequence[Crop | None],
    refine: int,
) -> NDArray[np.float64]:
    """Return the NME (inter-ocular distance) of the landmarks predicted in each image from its initial crop.

    Parameters
    ----------
    predictor
        The model.
    images
        N images of one face each.
    labels
        (N, 15, 2) pixels of the images.
    crops
        N initial crops; None where there is none.
    refine
        Number of refinement passes.

    Returns
    -------
    NDArray[np.float64]
        (N,); NaN where there is no crop.
    """
    predicted = np.full(labels.shape, np.nan)
    for row, (image, crop) in enumerate(zip(images, crops, strict=True)):
        if crop is not None:
            predicted[row] = predictor.predict_crops(image, [crop], refine=refine).points[0]
    known = np.isfinite(predicted).all(axis=(1, 2))
    errors = np.full(len(labels), np.nan)
    errors[known] = nme(predicted[known], labels[known], inter_ocular_distance(labels[known], KAGGLE15))
    return errors
