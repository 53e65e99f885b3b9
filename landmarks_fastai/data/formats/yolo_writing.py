"""Writing a YOLO pose data set: copies of the images, label files and data.yaml."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import NOT_LABELED, VISIBLE, Annotations
from landmarks_fastai.data.formats.coco_categories import skeleton_edges
from landmarks_fastai.data.formats.folders import copy_image
from landmarks_fastai.data.formats.image_files import label_extent, without_frames
from landmarks_fastai.data.formats.unwritten import (
    EYES,
    GROUPS,
    MIDLINE,
    NORMALIZER,
    UNKNOWN_VISIBILITY,
    written_losses,
)
from landmarks_fastai.data.formats.yolo_config import SPLITS
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import write_text
from landmarks_fastai.utils.images import image_size
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.utils.unique_names import UniqueNames

SPLIT, CLASS = "split", "class"
SPLIT_NAMES = {"valid": "val", "validation": "val"} | {split: split for split in SPLITS}

Floats = NDArray[np.float64]

LOST = (UNKNOWN_VISIBILITY, GROUPS, EYES, NORMALIZER, MIDLINE)


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write the folders images/SPLIT and labels/SPLIT, and data.yaml.

    The column "split" (train, val or test) selects the split of a row, else it is train, and the column
    "class" its class.

    Raises
    ------
    UserError
        If the size of an image cannot be read, or no row is left.
    """
    kept, losses = without_frames(annotations)
    sizes = np.array([image_size(image.path) for image in kept.images], np.float64).reshape(-1, 2)
    kept, lines = _fit_into_images(kept, sizes)
    losses += lines
    classes = list(dict.fromkeys(kept.columns.get(CLASS, (kept.schema.name,))))
    splits = [SPLIT_NAMES.get(value.lower(), "train") for value in kept.columns.get(SPLIT, ())]
    splits = splits or ["train"] * len(kept)
    boxes, filled = _boxes(kept, sizes[kept.rows])
    by_image: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, split in enumerate(splits):
        by_image[split, int(kept.rows[row])].append(row)
    unique_name: dict[str, UniqueNames] = defaultdict(lambda: UniqueNames("_"))
    for (split, index), rows in by_image.items():
        source = kept.images[index].path
        stem = unique_name[split](source.stem)
        copy_image(source, out / "images" / split / f"{stem}{source.suffix}")
        text = "".join(_line(kept, row, boxes[row], sizes[index], classes) for row in rows)
        write_text(out / "labels" / split / f"{stem}.txt", text)
    losses += _write_config(kept.schema, classes, set(splits), out / "data.yaml")
    return losses + filled + written_losses(kept, LOST, columns=(SPLIT, CLASS))


def _fit_into_images(annotations: Annotations, sizes: Floats) -> tuple[Annotations, list[str]]:
    """Make landmarks outside their image unlabeled, and leave out rows without labeled landmarks."""
    lines = []
    size = sizes[annotations.rows][:, None]
    with np.errstate(invalid="ignore"):
        outside = np.any((annotations.points < -0.5) | (annotations.points > size - 0.5), axis=2)
    points = np.where(outside[:, :, None], np.nan, annotations.points)
    visibility = annotations.visibility
    if outside.any():
        count = format_count(int(outside.sum()), "landmark")
        lines.append(f"{count} outside the image: written as unlabeled")
        visibility = (
            None if visibility is None else np.where(outside, NOT_LABELED, visibility).astype(np.uint8)
        )
    rows = np.flatnonzero(~np.isnan(points).all(axis=(1, 2)))
    if len(rows) < len(annotations):
        count = format_count(len(annotations) - len(rows), "row")
        lines.append(f"{count} without labeled landmarks left out")
    if not len(rows):
        raise UserError(f"{annotations.source}: no row has a labeled landmark inside its image")
    return replace(annotations, points=points, visibility=visibility).subset(rows), lines


def _boxes(annotations: Annotations, sizes: Floats) -> tuple[Floats, list[str]]:
    """Return (N, 4) boxes inside the images of (N, 2) sizes, and a line about those that changed."""
    lines = []
    boxes, filled = label_extent(annotations)
    if filled:
        lines.append(f"{format_count(filled, 'row')} without a box: the box of the landmarks is written")
    clipped = boxes.reshape(-1, 2, 2).clip(0, sizes[:, None]).reshape(-1, 4)
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    if empty.any():
        extent, _ = label_extent(replace(annotations, boxes=None))
        clipped[empty] = extent.reshape(-1, 2, 2).clip(0, sizes[:, None]).reshape(-1, 4)[empty]
    given = np.full_like(boxes, np.nan) if annotations.boxes is None else annotations.boxes
    changed = int((np.abs(clipped - given) > 1e-6).any(axis=1).sum())
    if changed:
        lines.append(f"{changed:,} {'box' if changed == 1 else 'boxes'} clipped to the image")
    return clipped, lines


def _line(annotations: Annotations, row: int, box: Floats, size: Floats, classes: list[str]) -> str:
    """Return the line of a row in the label file of its image."""
    points = annotations.points[row]
    labeled = ~np.isnan(points).any(axis=1)
    flags = np.where(labeled, VISIBLE, NOT_LABELED)
    if annotations.visibility is not None:
        flags = np.where(labeled, annotations.visibility[row], NOT_LABELED)
    class_index = classes.index(annotations.columns[CLASS][row]) if CLASS in annotations.columns else 0
    low, high = box[:2] / size, box[2:] / size
    values = [*((low + high) / 2).tolist(), *(high - low).tolist()]
    fields = [str(class_index), *map(_format, values)]
    positions = np.where(labeled[:, None], (points + 0.5) / size, 0)
    for (x, y), flag in zip(positions.tolist(), flags.tolist(), strict=True):
        fields += (_format(x), _format(y), str(flag))
    return " ".join(fields) + "\n"


def _format(value: float) -> str:
    return f"{value:.8g}"


def _write_config(schema: LandmarkSchema, classes: list[str], splits: set[str], path: Path) -> list[str]:
    """Write data.yaml; return a line if a split that training needs stands for another one."""
    lines = []
    entries: dict[str, object] = {split: f"images/{split}" for split in SPLITS if split in splits}
    for split in ("train", "val"):
        if split not in splits:
            other = next(each for each in SPLITS if each in splits)
            entries[split] = f"images/{other}"
            lines.append(f"no row is in the split {split}, which training needs: it refers to {other}")
    entries |= {
        "names": dict(enumerate(classes)),
        "kpt_shape": [len(schema), 3],
        "flip_idx": list(schema.flip_index),
        "kpt_names": {index: list(schema.names) for index in range(len(classes))},
        "skeleton": [list(edge) for edge in skeleton_edges(schema)],
    }
    write_text(path, yaml.dump(entries, Dumper=_Dumper, allow_unicode=True, sort_keys=False))
    return lines


class _Dumper(yaml.SafeDumper):
    """Dumper without aliases, which PyYAML writes for equal lists and `read_yaml` refuses."""

    def ignore_aliases(self, data: object) -> bool:
        return True
