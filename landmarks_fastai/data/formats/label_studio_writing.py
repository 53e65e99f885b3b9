"""Writing tasks and the labeling interface of Label Studio; the conventions are in `label_studio`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

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
from landmarks_fastai.utils.files import write_json, write_text
from landmarks_fastai.utils.images import image_size
from landmarks_fastai.utils.text import format_count

HALF_PIXEL = 0.5
"""Distance of the center of the first pixel from the corner of the image, from which percents count."""

OCCLUDED_CHOICE = "occluded"
BOX_LABEL = "box"
"""Label of the rectangle of a row without the column ``label``."""

KEYPOINT_WIDTH = 0.5
"""Size at which a keypoint is drawn, percent of the image."""

MODEL_VERSION = "landmarks-fastai"

HELP = (
    " For Settings, Labeling Interface, Code. The tasks refer to images as /data/local-files/?d=PATH: start"
    " Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and"
    " LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root} "
)

LOST = (EMPTY_ROWS, UNLABELED, GROUPS, *SCHEMA_PARTS)


def write_label_studio(annotations: Annotations, out: Path, *, as_predictions: bool = False) -> list[str]:
    """Write a JSON file of tasks, and the labeling interface as NAME.interface.xml beside it.

    Parameters
    ----------
    annotations
        What is written. The images are referred to, not copied.
    out
        The JSON file.
    as_predictions
        Whether the labels are predictions that annotators correct, instead of finished annotations.

    Returns
    -------
    list of str
        One line for each thing that the format cannot hold.
    """
    annotations, losses = without_frames(annotations)
    references = [image_reference(image.path, out.parent) for image in annotations.images]
    root = out.absolute().parent
    if any(reference.startswith(("../", "/")) for reference in references):
        # Label Studio refuses paths that lead out of its document root
        references = [image.path.resolve().as_posix() for image in annotations.images]
        root = Path(root.anchor)
    tasks = [
        _task(annotations, image, references[image], as_predictions)
        for image in np.unique(annotations.rows).tolist()
    ]
    write_json(out, tasks)
    write_text(out.with_name(f"{out.stem}.interface.xml"), _interface(annotations, root))
    return losses + written_losses(annotations, LOST, columns=("label",)) + _further_losses(annotations)


def _task(annotations: Annotations, image: int, reference: str, as_predictions: bool) -> dict[str, Any]:
    rows = np.flatnonzero(annotations.rows == image).tolist()
    width, height = image_size(annotations.images[image].path)
    result = [item for row in rows for item in _items(annotations, row, (width, height), len(rows) > 1)]
    labels: dict[str, Any] = {"result": result}
    if as_predictions:
        labels["model_version"] = MODEL_VERSION
    return {
        "id": image + 1,
        "data": {"image": f"/data/local-files/?d={quote(reference.lstrip('/'))}"},
        "annotations": [] if as_predictions else [labels],
        "predictions": [labels] if as_predictions else [],
    }


def _items(
    annotations: Annotations, row: int, size: tuple[int, int], has_others: bool
) -> list[dict[str, Any]]:
    """Return the regions of a row: a rectangle that is the parent of its keypoints, or related keypoints."""
    items = []
    parent = None
    percent = 100 / np.array(size)
    if annotations.boxes is not None and not np.isnan(annotations.boxes[row]).any():
        parent = f"row{row}"
        (x, y), (width, height) = (
            (annotations.boxes[row, :2] * percent).tolist(),
            ((annotations.boxes[row, 2:] - annotations.boxes[row, :2]) * percent).tolist(),
        )
        value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
        label = {"rectanglelabels": [_box_label(annotations, row)]}
        items.append(_region(parent, "box", "rectanglelabels", value | label, size))
    first = None
    for k in np.flatnonzero(~np.isnan(annotations.points[row]).any(axis=1)).tolist():
        x, y = ((annotations.points[row, k] + HALF_PIXEL) * percent).tolist()
        key = f"row{row}_{k}"
        value = {"x": x, "y": y, "width": KEYPOINT_WIDTH}
        label = {"keypointlabels": [annotations.schema.names[k]]}
        region = _region(key, "landmarks", "keypointlabels", value | label, size)
        items.append(region | ({} if parent is None else {"parentID": parent}))
        if annotations.visibility is not None and annotations.visibility[row, k] == OCCLUDED:
            choice = {"choices": [OCCLUDED_CHOICE]}
            items.append(_region(key, "visibility", "choices", value | choice, size))
        if parent is None and has_others and first is not None:
            items.append({"type": "relation", "from_id": first, "to_id": key, "direction": "right"})
        first = key if first is None else first
    return items


def _region(key: str, name: str, kind: str, value: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": key,
        "from_name": name,
        "to_name": "image",
        "type": kind,
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": value,
    }


def _box_label(annotations: Annotations, row: int) -> str:
    label = annotations.columns["label"][row].strip() if "label" in annotations.columns else ""
    return label or BOX_LABEL


def _interface(annotations: Annotations, root: Path) -> str:
    """Return the labeling interface: XML that names all landmarks and labels of boxes."""
    view = ElementTree.Element("View")
    view.append(ElementTree.Comment(HELP.format(root=root).replace("--", "- -")))
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    boxes = ElementTree.SubElement(view, "RectangleLabels", name="box", toName="image")
    for label in dict.fromkeys(_box_label(annotations, row) for row in range(len(annotations))):
        ElementTree.SubElement(boxes, "Label", value=label)
    landmarks = ElementTree.SubElement(view, "KeyPointLabels", name="landmarks", toName="image")
    for name in annotations.schema.names:
        ElementTree.SubElement(landmarks, "Label", value=name)
    choices = ElementTree.SubElement(
        view, "Choices", name="visibility", toName="image", perRegion="true", whenTagName="landmarks"
    )
    ElementTree.SubElement(choices, "Choice", value=OCCLUDED_CHOICE)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _further_losses(annotations: Annotations) -> list[str]:
    """Return lines about visibility and labels of boxes that are not written."""
    losses = []
    if annotations.visibility is not None and not (annotations.visibility == OCCLUDED).any():
        losses.append("visibility is not written, because no landmark is occluded")
    if "label" in annotations.columns:
        boxes = np.full((len(annotations), 4), np.nan) if annotations.boxes is None else annotations.boxes
        labels = np.array([bool(label.strip()) for label in annotations.columns["label"]], bool)
        lost = int((labels & np.isnan(boxes).any(axis=1)).sum())
        if lost:
            losses.append(f"{format_count(lost, 'label')} of rows without a box: not written")
    return losses
