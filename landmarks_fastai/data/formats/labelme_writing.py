"""Writing JSON files of LabelMe; the conventions are in `labelme`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from landmarks_fastai.data.annotations import OCCLUDED, Annotations
from landmarks_fastai.data.formats.image_files import image_reference, without_frames
from landmarks_fastai.data.formats.unwritten import (
    EMPTY_ROWS,
    GROUPS,
    SCHEMA_PARTS,
    UNLABELED,
    written_losses,
)
from landmarks_fastai.utils.files import write_json
from landmarks_fastai.utils.images import image_size
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.utils.unique_names import UniqueNames

VERSION = "5.5.0"
"""Version of LabelMe in the files: the structure has been the same since 5.0."""

HALF_PIXEL = 0.5
"""Coordinate of the center of the first pixel in the files."""

OCCLUDED_FLAG = "occluded"

BOX_LABEL = "box"
"""Label of the rectangle of a row without the column ``label``."""

LOST = (EMPTY_ROWS, UNLABELED, GROUPS, *SCHEMA_PARTS)


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write a folder with a JSON file for each image with rows; the images are referred to, not copied.

    Returns
    -------
    list of str
        One line for each thing that the format cannot hold.
    """
    annotations, losses = without_frames(annotations)
    unique_name = UniqueNames("_")
    for image in np.unique(annotations.rows).tolist():
        path = annotations.images[image].path
        width, height = image_size(path)
        rows = np.flatnonzero(annotations.rows == image).tolist()
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": [
                shape for group, row in enumerate(rows, 1) for shape in _shapes(annotations, row, group)
            ],
            "imagePath": image_reference(path, out),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(out / f"{unique_name(path.stem)}.json", content)
    return losses + written_losses(annotations, LOST, columns=("label",)) + _label_losses(annotations)


def _shapes(annotations: Annotations, row: int, group: int) -> list[dict[str, Any]]:
    """Return the box and the landmarks of a row."""
    shapes = []
    if annotations.boxes is not None and not np.isnan(annotations.boxes[row]).any():
        x0, y0, x1, y1 = annotations.boxes[row].tolist()
        labels = annotations.columns.get("label")
        label = labels[row] if labels and labels[row].strip() else BOX_LABEL
        shapes.append(_shape("rectangle", label, [[x0, y0], [x1, y1]], group, {}))
    for k, (name, point) in enumerate(zip(annotations.schema.names, annotations.points[row], strict=True)):
        if not np.isnan(point).any():
            visibility = annotations.visibility
            flags = {} if visibility is None else {OCCLUDED_FLAG: bool(visibility[row, k] == OCCLUDED)}
            shapes.append(_shape("point", name, [(point + HALF_PIXEL).tolist()], group, flags))
    return shapes


def _shape(
    kind: str, label: str, points: list[list[float]], group: int, flags: dict[str, bool]
) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": flags,
        "mask": None,
    }


def _label_losses(annotations: Annotations) -> list[str]:
    """Return a line about the labels of rows without a box, which have no rectangle to carry them."""
    labels = annotations.columns.get("label")
    if labels is None:
        return []
    boxes = annotations.boxes
    lost = sum(
        bool(label.strip()) and (boxes is None or bool(np.isnan(boxes[row]).any()))
        for row, label in enumerate(labels)
    )
    return [f"{format_count(lost, 'label')} of rows without a box: not written"] if lost else []
