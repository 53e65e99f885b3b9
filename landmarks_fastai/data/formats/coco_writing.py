"""Writing COCO keypoints JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import NOT_LABELED, VISIBLE, Annotations
from landmarks_fastai.data.formats.coco_categories import FLIP_MAP, skeleton_edges
from landmarks_fastai.data.formats.image_files import image_reference, label_extent, without_frames
from landmarks_fastai.data.formats.unwritten import (
    EMPTY_ROWS,
    EYES,
    MIDLINE,
    NORMALIZER,
    UNKNOWN_VISIBILITY,
    written_losses,
)
from landmarks_fastai.utils.files import write_text
from landmarks_fastai.utils.images import image_size
from landmarks_fastai.utils.text import format_count

LOST = (EMPTY_ROWS, UNKNOWN_VISIBILITY, EYES, NORMALIZER, MIDLINE)

Entries = dict[str, object]


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write a COCO file that refers to the images where they are.

    Not part of COCO, and ignored by other programs: the flip pairs in the category, as Detectron2 has them
    (``keypoint_flip_map``), and ``group`` and ``attributes`` of an annotation.

    Raises
    ------
    UserError
        If the size of an image cannot be read.
    """
    kept, losses = without_frames(annotations)
    schema = kept.schema
    category: Entries = {
        "id": 1,
        "name": schema.name,
        "supercategory": schema.name,
        "keypoints": list(schema.names),
        "skeleton": [[i + 1, j + 1] for i, j in skeleton_edges(schema)],
        FLIP_MAP: [list(pair) for pair in schema.flip_pairs],
    }
    boxes, filled = label_extent(kept)
    content = {
        "info": {"description": "Written by landmarks-fastai"},
        "licenses": [],
        "images": _images(kept, out),
        "annotations": [_annotation(kept, row, boxes[row]) for row in range(len(kept))],
        "categories": [category],
    }
    write_text(out, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")
    return losses + _losses(kept, filled)


def _images(annotations: Annotations, out: Path) -> list[Entries]:
    entries = []
    for index, image in enumerate(annotations.images):
        width, height = image_size(image.path)
        name = image_reference(image.path, out.parent)
        entries.append({"id": index + 1, "file_name": name, "width": width, "height": height})
    return entries


def _annotation(annotations: Annotations, row: int, box: NDArray[np.float64]) -> Entries:
    """Return the annotation of a row; `box` are its edges, NaN if it has none."""
    points = annotations.points[row]
    labeled = ~np.isnan(points).any(axis=1)
    visibility = np.where(labeled, VISIBLE, NOT_LABELED)
    if annotations.visibility is not None:
        visibility = np.where(labeled, annotations.visibility[row], NOT_LABELED)
    keypoints: list[float] = []
    for (x, y), flag in zip(np.nan_to_num(points).round(4).tolist(), visibility.tolist(), strict=True):
        keypoints += (x, y, int(flag))
    x0, y0, x1, y1 = np.nan_to_num(box).round(4).tolist()
    width, height = round(x1 - x0, 4), round(y1 - y0, 4)
    entries: Entries = {
        "id": row + 1,
        "image_id": int(annotations.rows[row]) + 1,
        "category_id": 1,
        "keypoints": keypoints,
        "num_keypoints": int(labeled.sum()),
        "bbox": [x0, y0, width, height],
        "area": round(width * height, 4),
        "iscrowd": 0,
    }
    if annotations.groups is not None:
        entries["group"] = annotations.groups[row]
    if annotations.columns:
        entries["attributes"] = {name: values[row] for name, values in annotations.columns.items()}
    return entries


def _losses(annotations: Annotations, filled: int) -> list[str]:
    """Return a line for each thing that a COCO file cannot hold."""
    lines = written_losses(annotations, LOST, columns=annotations.columns)
    if filled:
        lines.append(f"{format_count(filled, 'row')} without a box: the box of the landmarks is written")
    return lines
