"""Predicting many images: several at a time, in threads, with the results in the order of the images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.box_files import ImageBox
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.predictor import Predictor, crops_from_boxes
from landmarks_fastai.inference.refinement import Refine
from landmarks_fastai.inference.rejection import describe_discarded, predict_confident_faces
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.gray_levels import depth_note
from landmarks_fastai.utils.onnx_runtime import threads_per_session
from landmarks_fastai.utils.processors import available_processors, map_in_threads
from landmarks_fastai.visualization.landmarks import draw_landmarks, number_faces
from landmarks_fastai.visualization.saving import encode_png

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """An image that is to be predicted.

    Parameters
    ----------
    path
        Its path; that of an image in an archive is only shown.
    load
        Returns the (H, W, 3) uint8 image and its depth, as `read_image_and_depth` does; a UserError says why
        it cannot be used. It is called in another thread.
    boxes
        Boxes of its faces; without, they are detected.
    """

    path: Path
    load: Callable[[], tuple[Image, int | None]]
    boxes: Sequence[ImageBox] = ()


@dataclass(frozen=True)
class Prediction:
    """What became of a `Source`.

    Parameters
    ----------
    path
        Path of the source.
    landmarks
        Landmarks of its faces, possibly none; None if the image or all of its boxes cannot be used.
    size
        Width and height of the image, pixels.
    drawing
        The image with its landmarks as the bytes of a PNG; None if none was requested.
    notes
        One line for each thing that was assumed or discarded.
    errors
        Why the image, or boxes of it, cannot be used.
    """

    path: Path
    landmarks: Landmarks | None
    size: tuple[int, int] = (0, 0)
    drawing: memoryview | None = None
    notes: tuple[str, ...] = ()
    errors: tuple[UserError, ...] = ()


@dataclass(frozen=True)
class ImagePredictor:
    """Everything that is done with one image, from its file to its drawing. Threads may share it.

    Parameters
    ----------
    predictor
        The model.
    detector
        Finds the faces of the images without boxes.
    refine
        See `Predictor.predict`.
    min_confidence
        Detected faces with less (`Landmarks.face_confidence`) are discarded.
    draw
        Draw the landmarks.
    names
        Draw the name of each landmark next to it.
    """

    predictor: Predictor
    detector: Detector
    refine: Refine
    min_confidence: float = 0.0
    draw: bool = True
    names: bool = False

    def __call__(self, source: Source) -> Prediction:
        """Predict an image."""
        notes: list[str] = []
        errors: list[UserError] = []
        path = source.path
        try:
            image, depth = source.load()
            if depth is not None:
                notes.append(depth_note(path, depth))
            landmarks = self._predict(source, image, notes, errors)
        except UserError as error:
            errors.append(error if str(path) in str(error) else UserError(f"{path}: {error}"))
            landmarks = None
        if landmarks is None:
            return Prediction(path, None, notes=tuple(notes), errors=tuple(errors))
        drawing = None
        if self.draw:
            captions = number_faces(landmarks)
            drawing = encode_png(draw_landmarks(image, landmarks, names=self.names, captions=captions))
        size = image.shape[1], image.shape[0]
        return Prediction(path, landmarks, size, drawing, tuple(notes), tuple(errors))

    def _predict(
        self, source: Source, image: Image, notes: list[str], errors: list[UserError]
    ) -> Landmarks | None:
        """Return the landmarks of an image; None if it has boxes, none of which can be used."""
        if source.boxes:
            crops = _usable_crops(source, image, errors)
            return self.predictor.predict_crops(image, crops, refine=self.refine) if crops else None
        landmarks, discarded = predict_confident_faces(
            self.predictor, self.detector, image, self.refine, self.min_confidence
        )
        if len(discarded):
            notes.append(f"{source.path}: {describe_discarded(discarded, self.min_confidence)}")
        return landmarks


def predict_sources(
    predict: ImagePredictor, sources: Iterable[Source], threads: int | None = None
) -> Generator[Prediction, None, None]:
    """Yield the prediction of each image, in order, while the next ones are predicted in other threads.

    Each thread does everything for one image: reading, detection, landmarks, drawing and encoding release
    Python's global lock, and a core that works on an image of its own waits for no other, unlike with several
    cores on one image. The results do not depend on the number of threads.

    Sources are taken in the calling thread, shortly before they are needed, from any iterable: the files of
    a folder, the entries of an archive. When it ends, for example after Ctrl-C, what was begun is still
    yielded. If the iterator that is returned is closed early, only the images in progress are finished.

    Parameters
    ----------
    predict
        What is done with each image.
    sources
        The images.
    threads
        Number of threads; None: `default_threads`.

    Examples
    --------
    >>> predict = ImagePredictor(predictor, detector, refine=1, draw=False)  # doctest: +SKIP
    >>> sources = (Source(path, partial(read_image_and_depth, path)) for path in paths)  # doctest: +SKIP
    >>> for prediction in predict_sources(predict, sources):  # doctest: +SKIP
    ...     print(prediction.path, prediction.landmarks)
    """
    return map_in_threads(predict, sources, threads=default_threads() if threads is None else threads)


@contextmanager
def sessions_for(images: int) -> Iterator[None]:
    """Within the block, open models and detectors for this number of images.

    With one thread each, if all processors have an image of their own: they compute fastest side by side.
    """
    with threads_per_session(1 if images >= available_processors() else None):
        yield


def default_threads() -> int:
    """Return the number of images in progress at a time: one per processor, and one to wait for files."""
    return available_processors() + 1


def _usable_crops(source: Source, image: Image, errors: list[UserError]) -> list[Crop]:
    """Return the crops of the boxes of an image, and append an error for each box that cannot be used."""
    crops = []
    for box in source.boxes:
        try:
            crops += crops_from_boxes(image, [box.edges])
        except UserError as error:
            errors.append(UserError(f"{source.path}: {box.location}: {error}"))
    return crops
