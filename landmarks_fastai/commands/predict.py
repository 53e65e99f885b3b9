"""Predict and draw the landmarks of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.landmark_files import ImageResult
from landmarks_fastai.data.box_files import ImageBox
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.predictor import Predictor, crops_from_boxes
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.images import read_image
from landmarks_fastai.visualization.landmarks import draw_landmarks, number_faces
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.sheets import landmark_sheet

Box = tuple[float, float, float, float]


def predict_images(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    *,
    detector: Detector,
    boxes: Mapping[Path, Sequence[ImageBox]] | None = None,
    refine: int | None = None,
    names: bool = False,
    failed: Callable[[UserError], None],
) -> Iterator[ImageResult]:
    """Predict and draw one image after the other; images that cannot be used are reported and skipped.

    Parameters
    ----------
    predictor
        The model.
    images
        Paths of the images.
    out
        Folder for the drawings, NAME_landmarks.png.
    detector
        Finds the faces of the images without boxes.
    boxes
        Boxes of the faces of each image.
    refine
        Number of refinement passes; None: `Predictor.default_refine`.
    names
        Draw the name of each landmark next to it.
    failed
        Called with the error of each image or box that cannot be used.
    """
    taken: set[str] = set()
    passes = predictor.default_refine if refine is None else refine
    for path in images:
        try:
            image = read_image(path)
            given = [] if boxes is None else boxes.get(path, [])
            crops = _usable_crops(path, image, given, failed) if given else detector(image).crops
            if given and not crops:
                continue
            landmarks = predictor.predict_crops(image, crops, refine=passes)
        except UserError as error:
            failed(error if str(path) in str(error) else UserError(f"{path}: {error}"))
            continue
        drawing = out / f"{_unique_stem(path, taken)}_landmarks.png"
        save_png(drawing, draw_landmarks(image, landmarks, names=names, captions=number_faces(landmarks)))
        yield ImageResult(path, (image.shape[1], image.shape[0]), landmarks, drawing)


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
    path = out / "dataset.png"
    save_png(path, landmark_sheet(images, shown, captions=captions, columns=2))
    return path


def _unique_stem(path: Path, taken: set[str]) -> str:
    """Return the stem of an image's name, numbered if images of the same name come from different folders."""
    stem, number = path.stem, 1
    while stem in taken:
        number += 1
        stem = f"{path.stem}-{number}"
    taken.add(stem)
    return stem
