"""Scorer tables to `Annotations`, and back to the cells of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.labeled_objects import LabeledObject, build_annotations, make_schema
from landmarks_fastai.data.formats.scorer_table import ScorerTable, landmark_columns, points_of
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import format_count

UNIQUE = "single"
"""The individual of the landmarks that occur once in an image, in DeepLabCut."""


def to_annotations(
    tables: Sequence[ScorerTable],
    source: Path,
    folders: Callable[[ScorerTable], Sequence[Path]],
    *,
    scorer: str | None = None,
    edges: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> Annotations:
    """Return the rows of tables: one per image and individual with a label.

    Parameters
    ----------
    tables
        The tables.
    source
        The file or folder they were read from.
    folders
        Returns the folders in which the images of a table are looked for.
    scorer
        Whose labels are read, if a table has several scorers.
    edges
        Edges of the skeleton.
    notes
        Lines for the user.

    Raises
    ------
    UserError
        If there is no label, or all images are missing.
    """
    objects: list[LabeledObject] = []
    groups: list[str] = []
    locations: list[str] = []
    names: dict[str, None] = {}
    bad = [message for table in tables for message in table.bad_rows]
    found = [ImageFiles(folders(table)) for table in tables]
    files = ImageFiles([folder for table in tables for folder in folders(table)])
    unlabeled = 0
    for table, own in zip(tables, found, strict=True):
        columns = landmark_columns(table, scorer)
        names |= dict.fromkeys(landmark for _, landmark in columns)
        for individual in dict.fromkeys(individual for individual, _ in columns):
            landmarks = [name for who, name in columns if who == individual]
            points = points_of(table, [columns[individual, name] for name in landmarks])
            is_labeled = np.asarray(~np.isnan(points).any(axis=2))
            unlabeled += int((~is_labeled.any(axis=1)).sum()) if not individual else 0
            for row in np.flatnonzero(is_labeled.any(axis=1)).tolist():
                path = own.find(table.images[row])
                name = table.images[row] if path is None else str(path.absolute())
                row_name = " ".join(filter(None, (table.images[row], individual)))
                each = LabeledObject(files.add(name, table.locations[row]), row_name)
                locations.append(table.locations[row])
                for k in np.flatnonzero(is_labeled[row]).tolist():
                    each.add_point(landmarks[k], (points[row, k, 0], points[row, k, 1]))
                if individual:
                    each.columns["individual"] = individual
                objects.append(each)
                groups.append(_video(table.images[row], source))
    lines = [*notes]
    if unlabeled:
        lines.append(f"{format_count(unlabeled, 'row')} without labels skipped")
    if any(each.columns.get("individual") == UNIQUE for each in objects):
        lines.append(f"landmarks that occur once in an image are rows of the individual {UNIQUE!r}")
    schema = make_schema(source.stem, list(names), source, edges)
    annotations = build_annotations(objects, files.sources(), source, schema, lines, bad_rows=bad)
    several = len(set(groups)) > 1
    annotations = replace(annotations, locations=tuple(locations), groups=tuple(groups) if several else None)
    return files.drop_missing(annotations)


def _video(image: str, source: Path) -> str:
    """Return the name of the folder of an image: its video."""
    parts = image.split("/")
    return parts[-2] if len(parts) > 1 else source.name


def number_rows(annotations: Annotations) -> NDArray[np.int64]:
    """Return which individual of its image each row is, from 0."""
    numbers = np.zeros(len(annotations), np.int64)
    counts: dict[int, int] = {}
    for row, image in enumerate(annotations.rows.tolist()):
        numbers[row] = counts.get(image, 0)
        counts[image] = numbers[row] + 1
    return numbers


def check_no_frames(annotations: Annotations) -> None:
    """Raise UserError if rows are on frames of videos."""
    if any(image.frame is not None for image in annotations.images):
        raise UserError(
            f"{annotations.source}: some rows are on frames of videos; save the frames as images first"
        )
