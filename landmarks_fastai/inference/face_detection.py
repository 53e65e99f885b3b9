"""Face detectors by name, and the search for objects that are not faces.

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
from landmarks_fastai.inference.image_search import open_image_search
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import suggest

AUTO = "auto"
NO_DETECTOR = "none"
SEARCH = "search"
DEFAULT_DETECTOR = "centerface"
FACE_DETECTORS = ("centerface", "dlib", "yunet")


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


def choose_detector(name: str, header: ModelHeader) -> str:
    """Return `name`; for "auto", the default face detector if the landmarks include eyes.

    Else "search", but "none" for a model that was trained on the center crops of images, and for one without
    a mean shape, which cannot search.
    """
    if name != AUTO:
        return name
    if header.landmark_schema.eyes is not None:
        return DEFAULT_DETECTOR
    trained_on_center_crops = header.config.get("data", {}).get("crop") == "image"
    return NO_DETECTOR if trained_on_center_crops or header.mean_shape is None else SEARCH


def open_detector(
    name: str,
    cache: Path | None = None,
    progress: Progress | None = None,
    predictor: Predictor | None = None,
    max_faces: int | None = None,
) -> Detector:
    """Open a detector by name.

    Parameters
    ----------
    name
        One of `DETECTORS`, or "search".
    cache
        Folder for downloads; the user's cache folder if None.
    progress
        Called with the bytes downloaded and in total.
    predictor
        The model that searches, for "search".
    max_faces
        Return only the largest faces, at most this many; None: all. CenterFace is faster with few faces.

    Raises
    ------
    UserError
        If there is no such detector, its package is not installed, "search" has no model that can search, or
        `max_faces` is less than 1.
    RunError, UserError
        See `download_yunet`, for "yunet".
    """
    if name == SEARCH:
        if predictor is None or predictor.header.mean_shape is None:
            raise UserError("--detector search: needs a model with a mean shape; train it again")
        return open_image_search(predictor)
    if name not in DETECTORS:
        raise UserError(f"--detector {name}: no such detector; {suggest(name, [*DETECTORS, SEARCH])}")
    if max_faces is not None and max_faces < 1:
        raise UserError(f"max_faces: {max_faces} must be at least 1")
    cache = default_cache_dir() if cache is None else cache
    if max_faces is None:
        return DETECTORS[name](cache, progress)
    if name == "centerface":
        return open_centerface(cache, progress, max_faces=max_faces)
    detect, count = DETECTORS[name](cache, progress), max_faces
    return lambda image: detect(image).largest(count)
