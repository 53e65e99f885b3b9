"""From a picture, and the boxes of its faces, to points in the picture's own pixels.

Knows nothing about files of pictures, about finding faces, or about how a model was trained.

Points are pixels, the centre of the top-left one at (0, 0). Boxes are edges, the top-left corner of
that same pixel at (0, 0), so that the whole of a W x H picture is (0, 0, W, H).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.calibration import chance_near
from landmarks_fastai.errors import UserError
from landmarks_fastai.framing import Square, apart, cut_square, fit_square, middle_square
from landmarks_fastai.images import MAX_PIXELS
from landmarks_fastai.inference.modelfile import LoadedModel, ModelHeader, open_model
from landmarks_fastai.schema import Schema

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float32]

Run = Callable[[NDArray[np.uint8]], tuple[Floats, ...]]
"""Maps (B, S, S, C) bytes to (B, K, 2) points in pixels of these S x S images and, if the model knows them,
(B, K) Laplace scales of their errors along x and along y, in the same pixels."""


ALIKE = 0.25
"""Points from a square that is more `apart` from the last one are not averaged with its: a face that is cut
off, or far too small, can't be seen well, whatever the network claims. Measured in benchmarks/refine.md."""


@dataclass(frozen=True)
class Landmarks:
    """The points of B faces.

    Parameters
    ----------
    points
        (B, K, 2) float32, x then y, pixels of the picture.
    scales
        (B, K) float32: the Laplace scales of the points' errors along x and along y, pixels of the picture:
        so far off they are expected to lie. NaN where the model was trained without confidence.
    squares
        The square of each face that the points were found in; of several looks the last.
    """

    points: Floats
    scales: Floats
    squares: tuple[Square, ...]

    @property
    def confidence(self) -> Floats:
        """(B, K) float32: the model's own probability that a point lies near the truth.

        Near is within 2.5 % of the square's side, along x and along y. NaN where the model was trained
        without confidence.
        """
        sides = np.array([square.side for square in self.squares])
        return chance_near(self.scales, sides[:, None]).astype(np.float32)


def mean_landmarks(found: Sequence[Landmarks]) -> Landmarks:
    """Average what several models, or looks, found of the same faces, point by point.

    By inverse variance: a point of Laplace scale b weighs ``1 / b²``, which makes the variance of the mean
    least if they err independently. A point of which one of them knows no scale is a plain mean, and has
    none. The squares are the last one's.

    The mean's scale is the weighted mean of the scales. More can't be known without how alike they err: if
    they err as one, it is exact, and else too large, by up to the root of their number.
    """
    points = np.stack([one.points for one in found]).astype(np.float64)
    scales = np.stack([one.scales for one in found]).astype(np.float64)
    weights = np.where(np.isfinite(scales).all(axis=0), scales**-2.0, 1.0)
    weights /= weights.sum(axis=0)
    return Landmarks(
        (weights[..., None] * points).sum(axis=0).astype(np.float32),
        (weights * scales).sum(axis=0).astype(np.float32),
        found[-1].squares,
    )


class Predictor:
    """A model that is ready to find points.

    Parameters
    ----------
    header
        What the model file says of itself.
    run
        The network: bytes in, pixels out.
    device
        Where it runs, in words.
    """

    def __init__(self, header: ModelHeader, run: Run, device: str = "cpu") -> None:
        self.header = header
        self.device = device
        self._run = run

    @classmethod
    def open(cls, path: str | Path, device: str = "auto", trust_pickle: bool = False) -> Predictor:
        """Open a model file or run folder; an ``.onnx`` needs no torch.

        Parameters
        ----------
        path
            What `open_model` takes.
        device
            "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
        trust_pickle
            Open a ``.pkl``, which can run any code.

        Raises
        ------
        UserError
            If the file can't be opened, or the device is not there.
        """
        model = open_model(path, trust_pickle=trust_pickle, device=device)
        if model.network is None:
            return cls(model.header, *onnx_run(model))
        chosen = torch_device(device)
        return cls(model.header, torch_run(model.network, model.header, chosen), chosen)

    @property
    def schema(self) -> Schema:
        """What the K points are called."""
        return self.header.landmarks

    @property
    def name(self) -> str:
        """What a curve of it is called."""
        return self.header.arch

    def predict(
        self, image: NDArray[np.uint8], boxes: ArrayLike | None = None, flip: bool = False, refine: int = 0
    ) -> Landmarks:
        """Find the points of every boxed face.

        Parameters
        ----------
        image
            (H, W, 3) or (H, W, 1) or (H, W) uint8.
        boxes
            (B, 4) x0, y0, x1, y1, edges. Each is made square around its centre by its longer side; what
            lies outside of the picture shows the nearest pixel of its edge. None: the largest square in
            the middle of the picture.
        flip
            Average with the prediction on the mirrored face.
        refine
            How often the square is laid anew around the points that were found in it, as the faces of
            training lay in theirs and turned with the head, and the points are found again. All that was
            found in squares that are `ALIKE` is averaged (`mean_landmarks`); of a model that does not know
            its points' scales, the last counts alone.

        Returns
        -------
        Landmarks
            In pixels of `image`; B is 1 where no boxes are given.

        Raises
        ------
        UserError
            If a box is empty, endless or does not touch the picture, the schema can't be mirrored, or the
            model file does not say how faces lay in their squares.
        """
        return self.predict_squares(image, _squares(image, boxes), flip, refine)

    def predict_squares(
        self, image: NDArray[np.uint8], squares: Sequence[Square], flip: bool = False, refine: int = 0
    ) -> Landmarks:
        """Find the points of faces whose squares are known; for the rest see `predict`."""
        if refine and self.header.mean_face is None:
            raise UserError("refine: this model file is older than that and has no mean face; train it anew")
        looks = [self._find([(image, square) for square in squares], batch_size=64, flip=flip)]
        for _ in range(refine):
            squares = [
                self.square_around(face) or old for face, old in zip(looks[-1].points, squares, strict=True)
            ]
            looks.append(self._find([(image, square) for square in squares], batch_size=64, flip=flip))
        *earlier, last = looks
        if not earlier or not np.isfinite(last.scales).all():
            return last
        return mean_landmarks([*(_where_alike(look, last) for look in earlier), last])

    def square_around(self, points: NDArray[np.floating]) -> Square | None:
        """Return the square in which a face's (K, 2) points lie as the faces of training did in theirs.

        None where the points say nothing of it, or the square would have more than `MAX_PIXELS` pixels.
        """
        assert self.header.mean_face is not None, "a model file without a mean face"
        square = fit_square(points, np.array(self.header.mean_face))
        return square if square is not None and square.side**2 <= MAX_PIXELS else None

    def predict_crops(self, images: NDArray[np.uint8], batch_size: int = 64, flip: bool = False) -> Landmarks:
        """Find the points in images that each show one face, as a table holds them.

        Parameters
        ----------
        images
            (N, S, S, C) uint8, C = 1 or 3.
        batch_size
            How many go through the network at once.
        flip
            Average with the prediction on the mirrored face.

        Returns
        -------
        Landmarks
            Of N faces, in pixels of `images`.
        """
        if images.ndim != 4 or images.shape[1] != images.shape[2]:
            raise UserError(f"face images must be (N, S, S, C), not {images.shape}")
        whole = Square(0, 0, images.shape[1])
        return self._find([(image, whole) for image in images], batch_size=batch_size, flip=flip)

    def _find(
        self, faces: Sequence[tuple[NDArray[np.uint8], Square]], batch_size: int, flip: bool
    ) -> Landmarks:
        """Find the points of faces, each a square of a picture, in pixels of the pictures."""
        if flip and not self.schema.flip_pairs:
            raise UserError(f"flip: schema {self.schema.name} has no pairs of points that mirror each other")
        size, channels = self.header.input_size, self.header.channels
        found = np.empty((len(faces), len(self.schema), 2), np.float32)
        spread = np.empty(found.shape[:2], np.float32)
        for start in range(0, len(faces), batch_size):
            batch = faces[start : start + batch_size]
            crops = np.stack([cut_square(image, square, size, channels) for image, square in batch])
            points, scales = self._run_both(crops) if flip else self._run_once(crops)
            for row, (_, square) in enumerate(batch):
                found[start + row] = square.to_picture(points[row], size)
                spread[start + row] = scales[row] * (square.side / size)
        return Landmarks(found, spread, tuple(square for _, square in faces))

    def _run_once(self, crops: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Run the network; scales that the model does not know are NaN."""
        points, *known = self._run(crops)
        return points, known[0] if known else np.full(points.shape[:2], np.nan, np.float32)

    def _run_both(self, crops: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Average with the mirrored crops' points, mirrored back under their mirror images' names."""
        points, scales = self._run_once(crops)
        mirrored, others = self._run_once(np.ascontiguousarray(crops[:, :, ::-1]))
        size = self.header.input_size
        # labels lie to one side in the mirrored crops too, and so do the points that are found there
        mirrored[..., 0] = size - 1 - mirrored[..., 0] + 2 * self.header.label_shift * size
        back, half = list(self.schema.flip_index), np.float32(0.5)
        return (points + mirrored[:, back]) * half, (scales + others[:, back]) * half


def torch_device(device: str) -> str:
    """Return the name of the torch device that `device`, perhaps "auto", means.

    Raises
    ------
    UserError
        If this machine has no such device.
    """
    import torch

    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if device == "auto":
        return there[1] if len(there) > 1 else "cpu"
    chosen = "cuda:0" if device == "cuda" else device
    if chosen not in there:
        raise UserError(
            f"--device {device}: not on this machine, whose torch has {', '.join(there)}; use auto or cpu"
        )
    return chosen


def torch_run(network: nn.Module, header: ModelHeader, device: str) -> Run:
    """Make a network with scaled points take bytes and answer in pixels."""
    import torch

    from landmarks_fastai.network import BytesToPixels

    to_pixels = BytesToPixels(network, header.mean, header.std, header.input_size, header.scale_factor).eval()
    to_pixels = to_pixels.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(crops: NDArray[np.uint8]) -> tuple[Floats, ...]:
        with torch.inference_mode():
            # (B, S, S, C) seen as (B, C, S, S) is channels_last already
            image = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float()
            return tuple(part.float().cpu().numpy() for part in to_pixels(image))

    return run


def onnx_run(model: LoadedModel) -> tuple[Run, str]:
    """Make an ONNX session, which normalises by itself, take bytes; and say where it runs."""
    session: Any = model.session
    names = [port.name for port in session.get_outputs()]
    wanted = [name for name in ("points", "scales") if name in names]

    def run(crops: NDArray[np.uint8]) -> tuple[Floats, ...]:
        image = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32)
        return tuple(session.run(wanted, {"image": image}))

    return run, "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"


def _where_alike(look: Landmarks, last: Landmarks) -> Landmarks:
    """Return what a look found, and for faces whose square it had wrong what the last one found."""
    pairs = zip(look.squares, last.squares, strict=True)
    alike = np.array([apart(a, b) + abs(a.turn - b.turn) < ALIKE for a, b in pairs], bool)[:, None]
    return Landmarks(
        np.where(alike[..., None], look.points, last.points),
        np.where(alike, look.scales, last.scales),
        last.squares,
    )


def _squares(image: NDArray[np.uint8], boxes: ArrayLike | None) -> list[Square]:
    """Make boxes square, or none at all the largest square in the middle."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        raise UserError(f"a picture must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    if boxes is None:
        return [middle_square(width, height)]
    rows = np.asarray(boxes, dtype=np.float64)
    if rows.size == 0:
        return []
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise UserError(f"boxes must be (B, 4): x0, y0, x1, y1; not {rows.shape}")
    squares = []
    for x0, y0, x1, y1 in rows.tolist():
        name = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not np.isfinite((x0, y0, x1, y1)).all() or x1 <= x0 or y1 <= y0:
            raise UserError(f"{name}: needs x0 < x1 and y0 < y1, in pixels")
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise UserError(f"{name}: lies outside of the picture of {width} x {height} pixels")
        side = max(x1 - x0, y1 - y0)
        if side**2 > MAX_PIXELS:
            raise UserError(
                f"{name}: more than {MAX_PIXELS // 10**6} million pixels; draw it around one face"
            )
        squares.append(Square((x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side))
    return squares
