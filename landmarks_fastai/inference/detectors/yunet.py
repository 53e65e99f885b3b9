"""YuNet (Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector") in OpenCV."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.inference.detectors.base import (
    CropAlignment,
    Detections,
    Detector,
    detections_from_keypoints,
    require_package,
    shrink,
)
from landmarks_fastai.utils.files import file_sha256
from landmarks_fastai.utils.opencv import ERRORS, opencv_log_level
from landmarks_fastai.utils.progress import Progress

URL = (
    "https://github.com/opencv/opencv_zoo/raw/82b38c8f98e7b52aa171400f3e4c722352d0669f/"
    "models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
)
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
INPUT_SIZE = 640
"""Input size of the network, pixels. OpenCV's own engine accepts others, its ONNX Runtime engine does not."""

ALIGNMENT = CropAlignment(0.008, -0.070, 1.059)
"""CenterFace's, not measured for YuNet: both were trained on the boxes and keypoints of WIDER FACE."""


def download_yunet(
    cache: Path,
    progress: Progress | None = None,
    *,
    url: str = URL,
    sha256: str = SHA256,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Return YuNet's weights (0.2 MB) in the cache, downloaded and verified if they are missing.

    Parameters
    ----------
    cache
        Folder for the weights.
    progress
        Called with the bytes downloaded and in total.
    url, sha256
        Address and SHA-256 of the weights.
    sleep
        Called with the seconds to wait between two attempts.

    Raises
    ------
    RunError
        If there is no connection, the server returns an error, or the file cannot be written.
    UserError
        If the downloaded file is not the expected one.
    """
    from landmarks_fastai.utils.download import download

    target = cache / url.rpartition("/")[2]
    hint = f"choose another --detector, or put the file at {target} yourself"
    return download(
        url,
        target,
        sha256,
        progress,
        about="the weights of the face detector YuNet",
        digest=file_sha256,
        hint=hint,
        sleep=sleep,
    )


def open_yunet(
    cache: Path,
    progress: Progress | None = None,
    *,
    alignment: CropAlignment = ALIGNMENT,
    get_weights: Callable[[Path, Progress | None], Path] = download_yunet,
) -> Detector:
    """Open YuNet; its weights are downloaded once.

    Parameters
    ----------
    cache
        Folder for the weights.
    progress
        Called with the bytes downloaded and in total.
    alignment
        Position of the crop relative to the face.
    get_weights
        Returns the path of the weights.

    Raises
    ------
    UserError
        If OpenCV is not installed.
    RunError, UserError
        See `download_yunet`.
    """
    with require_package("yunet", "opencv-python"):
        import cv2
    side, lock = INPUT_SIZE, Lock()
    # as bytes: on Windows OpenCV cannot open paths with characters outside the system's code page
    weights = np.frombuffer(get_weights(cache, progress).read_bytes(), np.uint8)
    with opencv_log_level(cv2, ERRORS):  # OpenCV 5 logs a warning
        detector = cv2.FaceDetectorYN.create("onnx", weights, np.empty(0, np.uint8), (side, side))

    def detect(image: NDArray[np.uint8]) -> Detections:
        small, scale = shrink(image, side / max(image.shape[:2]))
        padded = np.zeros((side, side, 3), np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small[:, :, ::-1]
        with lock:
            _, found = detector.detect(padded)
        # columns: left, top, width, height, x and y of five keypoints, score
        rows = np.empty((0, 15)) if found is None else found.astype(np.float64)
        keypoints = rows[:, 4:14].reshape(-1, 5, 2).swapaxes(0, 1)
        sizes = rows[:, 2:4].T / scale[:, None]
        return detections_from_keypoints(alignment, keypoints / scale, sizes, rows[:, 14], image)

    return detect
