"""Predict and draw the landmarks of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.landmark_files import ImageResult
from landmarks_fastai.commands.prediction_folder import PredictionFolder
from landmarks_fastai.commands.prediction_record import file_state
from landmarks_fastai.data.box_files import ImageBox
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.predictor import Predictor, crops_from_boxes
from landmarks_fastai.inference.rejection import describe_discarded, discard_unconfident
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.gray_levels import depth_note
from landmarks_fastai.utils.images import read_image_and_depth
from landmarks_fastai.utils.interrupt import Interrupt
from landmarks_fastai.visualization.landmarks import draw_landmarks, number_faces
from landmarks_fastai.visualization.saving import encode_png, save_png
from landmarks_fastai.visualization.sheets import landmark_sheet

Box = tuple[float, float, float, float]

SAMPLES_NAME = "dataset.png"


@dataclass(frozen=True)
class PredictSummary:
    """What `predict_images` has done.

    Parameters
    ----------
    predicted
        Number of images that were predicted.
    skipped
        Number of images that had been done before.
    failed
        Number of images of which nothing could be predicted.
    remaining
        Number of images that an interruption left undone; 0 if there was none.
    """

    predicted: int = 0
    skipped: int = 0
    failed: int = 0
    remaining: int = 0


def predict_images(
    predictor: Predictor,
    images: Sequence[Path],
    folder: PredictionFolder,
    *,
    detector: Detector,
    boxes: Mapping[Path, Sequence[ImageBox]] | None = None,
    refine: int | None = None,
    min_confidence: float = 0.0,
    names: bool = False,
    interrupt: Interrupt | None = None,
    found: Callable[[ImageResult], None],
    failed: Callable[[UserError], None],
    noted: Callable[[str], None] | None = None,
) -> PredictSummary:
    """Predict and draw one image after the other; images that cannot be used are reported and skipped.

    Each image is added to the folder before the next one is read; memory does not grow with their number.

    Parameters
    ----------
    predictor
        The model.
    images
        Paths of the images.
    folder
        Takes the landmarks and drawings; what it has already is skipped.
    detector
        Finds the faces of the images without boxes.
    boxes
        Boxes of the faces of each image.
    refine
        Number of refinement passes; None: `Predictor.default_refine`.
    min_confidence
        Faces found by the detector are discarded if they have less (`Landmarks.face_confidence`).
    names
        Draw the name of each landmark next to it.
    interrupt
        Ends the command after the current image.
    found
        Called with the result of each image.
    failed
        Called with the error of each image or box that cannot be used.
    noted
        Called with one line about each image whose levels were scaled by the bits in use, or of which faces
        were discarded.

    Raises
    ------
    RunError
        If the results cannot be written.
    """
    passes = predictor.default_refine if refine is None else refine
    predicted = skipped = unusable = 0
    for index, path in enumerate(images):
        if interrupt is not None and interrupt.requested:
            return PredictSummary(predicted, skipped, unusable, len(images) - index)
        try:
            _check_name(path)
            state = file_state(path)
            if folder.is_done(path, state):
                skipped += 1
                continue
            image = _read_image(path, noted)
            given = () if boxes is None else boxes.get(path, ())
            landmarks = _predict_image(predictor, path, image, detector, given, passes, failed)
            if landmarks is not None and not given:
                landmarks, discarded = discard_unconfident(landmarks, min_confidence)
                if len(discarded) and noted is not None:
                    noted(f"{path}: {describe_discarded(discarded, min_confidence)}")
        except UserError as error:
            failed(error if str(path) in str(error) else UserError(f"{path}: {error}"))
            landmarks = None
        if landmarks is None:
            unusable += 1
            continue
        drawing = draw_landmarks(image, landmarks, names=names, captions=number_faces(landmarks))
        size = image.shape[1], image.shape[0]
        found(folder.add(path, state, size, landmarks, encode_png(drawing)))
        predicted += 1
    return PredictSummary(predicted, skipped, unusable)


def _read_image(path: Path, noted: Callable[[str], None] | None) -> NDArray[np.uint8]:
    """Return an image, and report if its levels were scaled by the bits in use."""
    image, depth = read_image_and_depth(path)
    if depth is not None and noted is not None:
        noted(depth_note(path, depth))
    return image


def _check_name(path: Path) -> None:
    """Raise a UserError if the name of a file cannot be written to a text file."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="replace").decode()
        raise UserError(f"{shown}: the name is not valid Unicode ({path}); rename the file") from None


def _predict_image(
    predictor: Predictor,
    path: Path,
    image: NDArray[np.uint8],
    detector: Detector,
    boxes: Sequence[ImageBox],
    passes: int,
    failed: Callable[[UserError], None],
) -> Landmarks | None:
    """Return the landmarks of an image; None if it has boxes, none of which can be used."""
    crops = _usable_crops(path, image, boxes, failed) if boxes else detector(image).crops
    if boxes and not crops:
        return None
    return predictor.predict_crops(image, crops, refine=passes)


def _usable_crops(
    path: Path, image: NDArray[np.uint8], boxes: Sequence[ImageBox], failed: Callable[[UserError], None]
) -> list[Crop]:
    """Return the crops of the boxes of an image, and report each box that cannot be used."""
    crops = []
    for box in boxes:
        try:
            crops += crops_from_boxes(image, [box.edges])
        except UserError as error:
            failed(UserError(f"{path}: {box.location}: {error}"))
    return crops


def predict_faces(
    predictor: Predictor,
    image: NDArray[np.uint8],
    detector: Detector,
    box: Box | None = None,
    refine: int | None = None,
) -> Landmarks:
    """Predict the landmarks of every detected face of an image, or of the one in a box.

    Parameters
    ----------
    predictor
        The model.
    image
        (H, W, 3) uint8 RGB, upright.
    detector
        Finds the faces if no box is given.
    box
        Edges x0, y0, x1, y1 of the only face, pixels.
    refine
        Number of refinement passes; None: `Predictor.default_refine`.
    """
    passes = predictor.default_refine if refine is None else refine
    if box is not None:
        return predictor.predict(image, np.array([box]), refine=passes)
    return predictor.predict_crops(image, detector(image).crops, refine=passes)


def draw_dataset_samples(predictor: Predictor, dataset: LandmarkDataset, out: Path, count: int = 3) -> Path:
    """Draw labels and predictions of the first rows side by side; return the path of the image."""
    rows = dataset.subset(np.arange(min(count, len(dataset))))
    predicted = predictor.predict_batch(rows.images).select(dataset.schema)
    shown = Landmarks.concatenate(
        [
            part
            for labels, prediction in zip(rows.landmarks, predicted, strict=True)
            for part in (labels, prediction)
        ],
        dataset.schema,
    )
    images = np.repeat(rows.images[:], 2, axis=0)
    captions = [f"{name}: {kind}" for name in rows.names for kind in ("label", "prediction")]
    path = out / SAMPLES_NAME
    save_png(path, landmark_sheet(images, shown, captions=captions, columns=2))
    return path
