"""From an image and the crops of its faces to landmarks in pixels of that image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import (
    Crop,
    center_crop,
    extract_input,
    fit_crop,
    square_crop,
)
from landmarks_fastai.inference.averaging import confidence_of
from landmarks_fastai.inference.backends import (
    AUTO,
    Backend,
    choose_runtime,
    onnx_backend,
    resolve_device,
    torch_backend,
)
from landmarks_fastai.inference.refinement import (
    CONFIDENT_RATIO,
    REFINEMENT_PASSES,
    Refine,
    refine_landmarks,
)
from landmarks_fastai.inference.rejection import default_min_confidence, typical_confidence
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.discovery import resolve_model
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas.sides import unpaired_names
from landmarks_fastai.utils.image_formats import MAX_PIXELS

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

OUTSIDE_CONFIDENCE = 0.5
"""Factor of the confidence of landmarks outside the image. Measured in benchmarks/false_faces.md."""


class Predictor:
    """A model that predicts landmarks.

    Parameters
    ----------
    header
        The model's header.
    backend
        Runs the network on a batch of crops.
    """

    def __init__(self, header: ModelHeader, backend: Backend) -> None:
        self.header = header
        self._backend = backend

    @classmethod
    def open(
        cls,
        path: str | Path,
        device: str = "auto",
        trust_pickle: bool = False,
        backend: str = AUTO,
        note: Callable[[str], None] | None = None,
    ) -> Predictor:
        """Open a model file, run folder or released model; on a CPU, ONNX Runtime runs it, without torch.

        Parameters
        ----------
        path
            See `open_model`.
        device
            "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" or "mps".
        trust_pickle
            Allow a ``.pkl``, which can execute arbitrary code.
        backend
            What runs the network: "auto" (`choose_runtime`), "onnx" or "torch".
        note
            Called with one line if ONNX Runtime has to be prepared for an architecture, which takes seconds.

        Raises
        ------
        UserError
            If the file cannot be opened, or the device or backend is not available.
        RunError
            If ONNX Runtime cannot run the network.
        """
        path = resolve_model(path)
        runtime = choose_runtime(path, backend, device)
        model = open_model(path, trust_pickle, device, runtime, note)
        if model.network is None:
            return cls(model.header, onnx_backend(model))
        return cls(model.header, torch_backend(model.network, model.header, resolve_device(device)))

    @property
    def headers(self) -> tuple[ModelHeader, ...]:
        """The header of each model that takes part in a prediction."""
        return (self.header,)

    @property
    def schema(self) -> LandmarkSchema:
        """Names of the K landmarks."""
        return self.header.landmark_schema

    @property
    def name(self) -> str:
        """Label of this model in plots."""
        return self.header.arch

    @property
    def synthetic(self) -> bool:
        """Whether the model was trained on synthetic data."""
        return self.header.synthetic

    @property
    def predicts_visibility(self) -> bool:
        """Whether the model predicts the probability that a landmark is visible."""
        return self.header.predicts_visibility

    @property
    def default_refine(self) -> Refine:
        """Number of refinement passes measured to be best: "auto", but 0 if the model has no mean shape."""
        return "auto" if self.header.mean_shape is not None else 0

    @property
    def estimates_confidence(self) -> bool:
        """Whether the model estimates how accurate each landmark is."""
        return self.header.estimates_confidence

    @property
    def default_min_confidence(self) -> float:
        """Confidence below which a detected face is discarded by default; 0 if the model estimates none."""
        return default_min_confidence(self.header) if self.estimates_confidence else 0.0

    def predict(
        self, image: Image, boxes: ArrayLike | None = None, flip: bool = False, refine: Refine = 0
    ) -> Landmarks:
        """Predict the landmarks of every face given by a box.

        Parameters
        ----------
        image
            (H, W, 3), (H, W, 1) or (H, W) uint8.
        boxes
            (N, 4) edges x0, y0, x1, y1 in pixels. Each box is extended to a square with the same center and
            the box's longer side; outside the image, its edge pixels are repeated. None: the center crop.
        flip
            Average with the prediction on the mirrored crop.
        refine
            Number of refinement passes: the crop is re-estimated from the predicted landmarks, including
            roll, and the model runs again. "auto": one pass, but none for a confident face whose crop would
            hardly change (`refine_landmarks`). Passes with similar crops are averaged
            (`average_landmarks`); without confidence, the last pass is returned.

        Returns
        -------
        Landmarks
            N faces, one if `boxes` is None; in pixels of `image`.

        Raises
        ------
        UserError
            If a box cannot be used (`crops_from_boxes`); if `flip` is set and the schema has
            no flip pairs; if `refine` is set and the model has no mean shape.
        """
        return self.predict_crops(image, crops_from_boxes(image, boxes), flip, refine)

    def predict_crops(
        self, image: Image, crops: Sequence[Crop], flip: bool = False, refine: Refine = 0
    ) -> Landmarks:
        """Predict the landmarks of faces given by crops; see `predict` for the other parameters.

        Landmarks outside the image have `OUTSIDE_CONFIDENCE` times the confidence that follows from their
        scale, because the model does not know that it sees repeated edge pixels there.
        """
        if refine and self.header.mean_shape is None:
            raise UserError("--refine: this model has no mean shape; use --refine 0, or train it again")

        def predict(chosen: Sequence[Crop]) -> Landmarks:
            return self._predict_faces([(image, crop) for crop in chosen], batch_size=64, flip=flip)

        passes, confident = (REFINEMENT_PASSES, self._confident) if refine == "auto" else (refine, math.inf)
        landmarks = refine_landmarks(predict, self.crop_around, crops, passes, confident)
        return _lower_outside(landmarks, image)

    @property
    def _confident(self) -> float:
        """Confidence of a face that needs no refinement if its crop hardly changes; infinite if unknown."""
        typical = [typical_confidence(header) for header in self.headers]
        return CONFIDENT_RATIO * max(math.inf if value is None else value for value in typical)

    def crop_around(self, points: NDArray[np.floating]) -> Crop | None:
        """Return the crop in which (K, 2) landmarks lie as in training.

        None if the points do not determine a crop, or if it would have more than `MAX_PIXELS` pixels.
        """
        assert self.header.mean_shape is not None, "the model has no mean shape"
        crop = fit_crop(points, np.array(self.header.mean_shape))
        return crop if crop is not None and crop.side**2 <= MAX_PIXELS else None

    def predict_batch(
        self, images: Image | ImageArray, batch_size: int = 64, flip: bool = False
    ) -> Landmarks:
        """Predict the landmarks of square images of one face each, such as the rows of a data set.

        Parameters
        ----------
        images
            (N, S, S, C) uint8, C = 1 or 3. An `ImageArray` is loaded one batch at a time.
        batch_size
            Number of images in one forward pass.
        flip
            Average with the prediction on the mirrored image.

        Returns
        -------
        Landmarks
            N faces, in pixels of `images`.
        """
        if images.ndim != 4 or images.shape[1] != images.shape[2]:
            raise UserError(f"images must be (N, S, S, C), not {images.shape}")
        whole = Crop(0, 0, images.shape[1])
        return Landmarks.concatenate(
            [
                self._predict_faces([(image, whole) for image in batch], batch_size, flip)
                for batch in ImageArray.of(images).blocks(batch_size)
            ],
            self.schema,
        )

    def _predict_faces(self, faces: Sequence[tuple[Image, Crop]], batch_size: int, flip: bool) -> Landmarks:
        """Predict the landmarks of faces, each given by an image and a crop of it."""
        if flip and not self.schema.flip_pairs:
            raise UserError(f"--flip: schema {self.schema.name} has no flip pairs; remove --flip")
        if flip and (unpaired := unpaired_names(self.schema)):
            raise UserError(f"--flip: {unpaired[0]!r} has no partner in mirrored images; remove --flip")
        size, channels = self.header.input_size, self.header.channels
        image_size = self.header.image_size
        points = np.empty((len(faces), len(self.schema), 2), np.float32)
        scales, visibility = np.empty((2, *points.shape[:2]), np.float32)
        for start in range(0, len(faces), batch_size):
            batch = faces[start : start + batch_size]
            crops = np.stack(
                [extract_input(image, crop, size, channels, image_size) for image, crop in batch]
            )
            crop_points, crop_scales, crop_visibility = (self._run_with_flip if flip else self._run)(crops)
            visibility[start : start + len(batch)] = crop_visibility
            for row, (_, crop) in enumerate(batch):
                points[start + row] = crop.to_image(crop_points[row], size)
                scales[start + row] = crop_scales[row] * (crop.side / size)
        sides = np.array([crop.side for _, crop in faces])
        return Landmarks(
            points,
            self.schema,
            confidence_of(scales, sides),
            scales,
            tuple(crop for _, crop in faces),
            visibility=visibility,
        )

    def _run(self, crops: Image) -> tuple[Floats, Floats, Floats]:
        """Return the (B, K, 2) points, (B, K) scales and (B, K) visibility of crops; NaN where unknown."""
        points, *others = self._backend(crops)
        unknown = np.full(points.shape[:2], np.nan, np.float32)
        visibility = others.pop() if self.predicts_visibility else unknown
        return points, others[0] if others else unknown, visibility

    def _run_with_flip(self, crops: Image) -> tuple[Floats, Floats, Floats]:
        """Average the prediction with that on the mirrored crops."""
        points, *others = self._run(crops)
        mirrored_points, *mirrored = self._run(np.ascontiguousarray(crops[:, :, ::-1]))
        size = self.header.input_size
        # the label bias does not change sides when a crop is mirrored
        mirrored_points[..., 0] = size - 1 - mirrored_points[..., 0] + 2 * self.header.label_bias * size
        order, half = list(self.schema.flip_index), np.float32(0.5)
        scales, visibility = ((a + b[:, order]) * half for a, b in zip(others, mirrored, strict=True))
        return (points + mirrored_points[:, order]) * half, scales, visibility


def crops_from_boxes(image: Image, boxes: ArrayLike | None) -> list[Crop]:
    """Return a square crop around each box, or the center crop if `boxes` is None.

    Parameters
    ----------
    image
        (H, W), (H, W, 1) or (H, W, 3) uint8.
    boxes
        (N, 4) edges x0, y0, x1, y1 in pixels.

    Raises
    ------
    UserError
        If the image or the boxes have another shape, or a box is empty, not finite, a fraction of a pixel at
        the origin, outside the image or too large.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        raise UserError(
            f"an image must be (H, W), (H, W, 1) or (H, W, 3) uint8, not {image.shape} {image.dtype}"
        )
    height, width = image.shape[:2]
    if boxes is None:
        return [center_crop(width, height)]
    rows = np.asarray(boxes, dtype=np.float64)
    if rows.size == 0:
        return []
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise UserError(f"boxes must be (N, 4): x0, y0, x1, y1; not {rows.shape}")
    crops = []
    for x0, y0, x1, y1 in rows.tolist():
        name = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if not np.isfinite((x0, y0, x1, y1)).all() or x1 <= x0 or y1 <= y0:
            raise UserError(f"{name}: its edges must be finite, with x0 < x1 and y0 < y1")
        if x0 >= 0 and y0 >= 0 and x1 <= 1 and y1 <= 1:
            edges = (x0 * width, y0 * height, x1 * width, y1 * height)
            raise UserError(
                f"{name}: these are fractions of the image, not pixels; here, they stand for"
                f" {','.join(f'{edge:.0f}' for edge in edges)}"
            )
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise UserError(f"{name}: outside the image of {width} x {height} pixels")
        crop = square_crop(x0, y0, x1, y1)
        if crop.side**2 > MAX_PIXELS:
            raise UserError(
                f"{name}: more than {MAX_PIXELS // 10**6} million pixels; draw the box around one face"
            )
        crops.append(crop)
    return crops


def _lower_outside(landmarks: Landmarks, image: Image) -> Landmarks:
    """Lower the confidence of the landmarks that are outside the image by `OUTSIDE_CONFIDENCE`."""
    size = np.array([image.shape[1], image.shape[0]])
    outside = ((landmarks.points < -0.5) | (landmarks.points > size - 0.5)).any(axis=-1)
    if not outside.any():
        return landmarks
    factor = np.where(outside, np.float32(OUTSIDE_CONFIDENCE), np.float32(1))
    return replace(landmarks, confidence=landmarks.confidence * factor)
