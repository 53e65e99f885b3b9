"""What a format of labels cannot hold: one line for each thing that is lost when labels are written."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from landmarks_fastai.data.annotations import OCCLUDED, Annotations
from landmarks_fastai.data.formats.labeled_objects import order_names
from landmarks_fastai.schemas import schema_from_names
from landmarks_fastai.utils.text import format_count, shorten

EMPTY_ROWS = "rows without labeled landmarks"
UNLABELED = "landmarks that no row labels"
OCCLUSION = "occlusion"
UNKNOWN_VISIBILITY = "unknown visibility"
BOXES = "boxes"
GROUPS = "groups"
FLIP_PAIRS, SKELETON, EYES = "flip pairs", "skeleton", "eyes"
NORMALIZER, MIDLINE = "normalizer", "midline"
SCHEMA_PARTS = (FLIP_PAIRS, SKELETON, EYES, NORMALIZER, MIDLINE)


def written_losses(
    annotations: Annotations, lost: Collection[str], columns: Collection[str] = ()
) -> list[str]:
    """Return a line for each thing of the annotations that a format cannot hold.

    Parameters
    ----------
    annotations
        What is written.
    lost
        What the format cannot hold: some of the constants of this module.
    columns
        Columns that the format holds.
    """
    lines = [line(annotations) for what, line in _LINES.items() if what in lost]
    lines.append(_schema_parts(annotations, lost))
    others = [name for name in annotations.columns if name not in columns]
    if others:
        lines.append(f"columns are not written: {shorten(', '.join(others), 80)}")
    return [line for line in lines if line is not None]


def _empty_rows(annotations: Annotations) -> str | None:
    empty = int(np.isnan(annotations.points).all(axis=(1, 2)).sum())
    return (
        f"{format_count(empty, 'row')} without labeled landmarks: skipped when read again" if empty else None
    )


def _unlabeled(annotations: Annotations) -> str | None:
    points = annotations.points
    names = [name for k, name in enumerate(annotations.schema.names) if np.isnan(points[:, k]).all()]
    return f"landmarks that no row labels are not written: {shorten(', '.join(names), 80)}" if names else None


def _occlusion(annotations: Annotations) -> str | None:
    occluded = 0 if annotations.visibility is None else int((annotations.visibility == OCCLUDED).sum())
    count = format_count(occluded, "landmark")
    return f"visibility is not written: {count} labeled as occluded" if occluded else None


def _unknown_visibility(annotations: Annotations) -> str | None:
    if annotations.visibility is not None:
        return None
    return "visibility is not recorded: all labeled landmarks are written as visible"


def _boxes(annotations: Annotations) -> str | None:
    return None if annotations.boxes is None else "boxes are not written"


def _groups(annotations: Annotations) -> str | None:
    return None if annotations.groups is None else "groups are not written"


def _schema_parts(annotations: Annotations, lost: Collection[str]) -> str | None:
    """Return a line about the parts of the schema that do not follow from the names of its landmarks."""
    schema = annotations.schema
    inferred = schema_from_names(schema.name, order_names(schema.names))
    differing = [
        part
        for part, own, others in (
            (FLIP_PAIRS, set(schema.flip_pairs), set(inferred.flip_pairs)),
            (SKELETON, schema.skeleton, inferred.skeleton),
            (EYES, schema.eyes, inferred.eyes),
            (NORMALIZER, schema.normalizer, inferred.normalizer),
            (MIDLINE, schema.midline, inferred.midline),
        )
        if part in lost and own != others
    ]
    if not differing:
        return None
    return f"{', '.join(differing)} of the schema: not written; what follows from the names is read again"


_LINES: dict[str, Callable[[Annotations], str | None]] = {
    EMPTY_ROWS: _empty_rows,
    UNLABELED: _unlabeled,
    OCCLUSION: _occlusion,
    UNKNOWN_VISIBILITY: _unknown_visibility,
    BOXES: _boxes,
    GROUPS: _groups,
}
