"""Predict and draw the landmarks of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.landmark_files import ImageResult
from landmarks_fastai.commands.prediction_folder import PredictionFolder
from landmarks_fastai.commands.prediction_pipeline import ImagePredictor, Source, predict_sources
from landmarks_fastai.commands.prediction_record import FileState, file_state
from landmarks_fastai.data.box_files import ImageBox
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.images import read_image_and_depth
from landmarks_fastai.utils.interrupt import Interrupt
from landmarks_fastai.visualization.saving import save_png
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
    draw: bool = True,
    interrupt: Interrupt | None = None,
    threads: int | None = None,
    found: Callable[[ImageResult], None],
    failed: Callable[[UserError], None],
    noted: Callable[[str], None] | None = None,
) -> PredictSummary:
    """Predict and draw images; those that cannot be used are reported and skipped.

    Several images are in progress at a time (`predict_sources`), and added to the folder one after the other,
    in their order; memory does not grow with their number.

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
    draw
        Draw the landmarks.
    interrupt
        Ends the command after the images in progress.
    threads
        Number of images that are in progress at a time; None: `default_threads`.
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
    predict = ImagePredictor(predictor, detector, passes, min_confidence, draw, names)
    queue = _ImageQueue(images, folder, boxes or {}, interrupt)
    predicted = unusable = 0
    with closing(predict_sources(predict, queue, threads)) as predictions:
        for prediction in predictions:
            if noted is not None:
                for note in prediction.notes:
                    noted(note)
            for error in prediction.errors:
                failed(error)
            state = queue.states.pop(prediction.path)
            if prediction.landmarks is None:
                unusable += 1
                continue
            assert state is not None, "an image without landmarks has no state"
            found(
                folder.add(prediction.path, state, prediction.size, prediction.landmarks, prediction.drawing)
            )
            predicted += 1
    return PredictSummary(predicted, queue.skipped, unusable, queue.remaining)


class _ImageQueue:
    """Iterates over the images that are not done, until an interruption.

    Parameters
    ----------
    images, folder, boxes, interrupt
        See `predict_images`.

    Attributes
    ----------
    states
        State of each image file that was taken and not yet removed here; None if the file cannot be used.
    skipped
        Number of images that had been done before.
    remaining
        Number of images that an interruption left undone.
    """

    def __init__(
        self,
        images: Sequence[Path],
        folder: PredictionFolder,
        boxes: Mapping[Path, Sequence[ImageBox]],
        interrupt: Interrupt | None,
    ) -> None:
        self._images, self._folder, self._boxes, self._interrupt = images, folder, boxes, interrupt
        self.states: dict[Path, FileState | None] = {}
        self.skipped = self.remaining = 0

    def __iter__(self) -> Iterator[Source]:
        """Yield the images."""
        for index, path in enumerate(self._images):
            if self._interrupt is not None and self._interrupt.requested:
                self.remaining = len(self._images) - index
                return
            try:
                _check_name(path)
                state = file_state(path)
            except UserError as error:
                self.states[path] = None
                yield Source(path, partial(_fail, error))
                continue
            if self._folder.is_done(path, state):
                self.skipped += 1
                continue
            self.states[path] = state
            yield Source(path, partial(read_image_and_depth, path), self._boxes.get(path, ()))


def _fail(error: UserError) -> NoReturn:
    """Raise the error of a file that cannot be used when it is its turn to be reported."""
    raise error


def _check_name(path: Path) -> None:
    """Raise a UserError if the name of a file cannot be written to a text file."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="replace").decode()
        raise UserError(f"{shown}: the name is not valid Unicode ({path}); rename the file") from None


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
