"""Formats of labels: one module per format.

To add a format, write a module with a constant `FORMAT` (see `base.AnnotationFormat`), and add it to
`ANNOTATION_FORMATS`. Kaggle's files contain the images themselves and are read by `kaggle`.
"""

from __future__ import annotations

from landmarks_fastai.data.formats import (
    coco,
    csv,
    cvat,
    deeplabcut,
    imglab,
    label_studio,
    labelme,
    lightning_pose,
    parquet,
    pts,
    sleap,
    wflw,
    yolo_pose,
)
from landmarks_fastai.data.formats.base import AnnotationFormat

ANNOTATION_FORMATS: dict[str, AnnotationFormat] = {
    each.name: each
    for each in (
        csv.FORMAT,
        parquet.FORMAT,
        coco.FORMAT,
        yolo_pose.FORMAT,
        pts.FORMAT,
        wflw.FORMAT,
        imglab.FORMAT,
        labelme.FORMAT,
        label_studio.FORMAT,
        cvat.FORMAT,
        deeplabcut.FORMAT,
        lightning_pose.FORMAT,
        sleap.FORMAT,
    )
}
"""Formats of labels with image files, by name."""
