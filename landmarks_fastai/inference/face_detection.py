"""Face detectors by name.

To add a detector: 1. write a module in `landmarks_fastai.inference.detectors` with an `open_…` function that
takes the cache folder and a progress callback and returns a `Detector`; 2. add one line to `DETECTORS`; 3.
measure its `CropAlignment` with benchmarks/detectors.py, because predictions are inaccurate in crops that
differ from those of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import center_crop
from landmarks_fastai.inference.detectors.base import Detections, Detector
from landmarks_fastai.inference.detectors.centerface import open_centerface
from landmarks_fastai.inference.detectors.dlib import open_dlib
from landmarks_fastai.inference.detectors.yunet import open_yunet
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.download import default_cache_dir
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import suggest

AUTO = "auto"
NO_DETECTOR = "none"
DEFAULT_DETECTOR = "centerface"


def open_center_crop(cache: Path, progress: Progress | None = None) -> Detector:
    """Return a detector whose only detection is the center crop of the image."""

    def detect(image: NDArray[np.uint8]) -> Detections:
        height, width = image.shape[:2]
        return Detections(np.array([center_crop(width, height).box], np.float64), np.ones(1))

    return detect


DETECTORS: Mapping[str, Callable[[Path, Progress | None], Detector]] = {
    "centerface": open_centerface,
    "dlib": open_dlib,
    NO_DETECTOR: open_center_crop,
    "yunet": open_yunet,
}


def choose_detector(name: str, schema: LandmarkSchema) -> str:
    """Return `name`; for "auto", the default face detector if the schema has eyes, else "none"."""
    if name != AUTO:
        return name
    return NO_DETECTOR if schema.eyes is None else DEFAULT_DETECTOR


def open_detector(name: str, cache: Path | None = None, progress: Progress | None = None) -> Detector:
    """Open a detector by name.

    Parameters
    ----------
    name
        One of `DETECTORS`.
    cache
        Folder for downloads; the user's cache folder if None.
    progress
        Called with the bytes downloaded and in total.

    Raises
    ------
    UserError
        If there is no such detector, or its package is not installed.
    RunError, UserError
        See `download_yunet`, for "yunet".
    """
    if name not in DETECTORS:
        raise UserError(f"--detector {name}: no such detector; {suggest(name, DETECTORS)}")
    return DETECTORS[name](default_cache_dir() if cache is None else cache, progress)
