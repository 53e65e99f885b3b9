"""Writing predictions as labels, so that they can be corrected in an annotation tool and read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landmarks_fastai.commands.landmark_files import DIGITS, ImageResult, face_confidence
from landmarks_fastai.data.annotations import OCCLUDED, VISIBLE, Annotations, ImageSource
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema


def label_name(name: str) -> str:
    """Return the name of the file or folder for the labels of a format: labels-coco.json for ``coco``.

    Raises
    ------
    UserError
        If there is no such format, or it cannot be written.
    """
    from landmarks_fastai.data.annotation_files import get_format, get_writer

    get_writer(name, predicted=True)
    return f"labels-{name}{get_format(name).suffix}"


def write_predicted_labels(
    results: Sequence[ImageResult], schema: LandmarkSchema, path: Path, name: str
) -> list[str]:
    """Write the landmarks found in images as labels.

    Parameters
    ----------
    results
        Landmarks by image; images without faces are included where the format allows it.
    schema
        Names of the landmarks.
    path
        A file or folder that does not exist; see `label_name`.
    name
        Name of the format.

    Returns
    -------
    list[str]
        One line for each thing that the format cannot hold.
    """
    from landmarks_fastai.data.annotation_files import write_annotations

    return write_annotations(to_annotations(results, schema), path, name, predicted=True)


def to_annotations(results: Sequence[ImageResult], schema: LandmarkSchema) -> Annotations:
    """Return predicted landmarks as annotations, one row per face, with the mean confidence as a column.

    A landmark is occluded if it is more probably occluded than visible; see `Landmarks.occluded`.
    """
    faces = [(index, face) for index, result in enumerate(results) for face in result.landmarks]
    names = [
        f"{result.image.name} face {number}"
        for result in results
        for number in range(1, len(result.landmarks) + 1)
    ]
    occluded = np.array([face.occluded[0] for _, face in faces], bool).reshape(-1, len(schema))
    is_estimated = bool(faces) and all(np.isfinite(face.visibility).all() for _, face in faces)
    return Annotations(
        schema=schema,
        images=tuple(ImageSource(result.image) for result in results),
        rows=np.array([index for index, _ in faces], np.int64),
        points=np.array([face.points[0] for _, face in faces], np.float64).reshape(-1, len(schema), 2),
        names=tuple(names),
        source="predictions",
        boxes=np.array([_box(face) for _, face in faces]).reshape(-1, 4),
        visibility=np.where(occluded, OCCLUDED, VISIBLE).astype(np.uint8) if is_estimated else None,
        columns={"confidence": tuple(_format_confidence(face) for _, face in faces)},
    )


def _box(face: Landmarks) -> tuple[float, float, float, float]:
    """Return the edges of the crop of one face before its rotation."""
    assert face.crops is not None, "predicted landmarks have crops"
    return face.crops[0].box


def _format_confidence(face: Landmarks) -> str:
    """Return the confidence of one face, as in the landmark files; empty if unknown."""
    confidence = face_confidence(face)
    return "" if confidence is None else f"{confidence:.{DIGITS}f}"
