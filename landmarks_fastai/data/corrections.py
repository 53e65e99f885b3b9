"""Corrections of the labels of a data set, read from a CSV.

The columns are ``face`` (the row name) and ``action``, and ``landmark``, ``x`` and ``y`` where the action
needs them. Other columns, and rows without an action, are ignored.

    drop      remove the face; landmark must be empty
    unlabel   remove the label of this landmark
    move      set the label to x, y in pixels of the face's image in the data set
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from landmarks_fastai.data.annotations import NOT_LABELED, VISIBLE
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader, check_point_range
from landmarks_fastai.utils.text import quote, suggest

DROP, UNLABEL, MOVE = "drop", "unlabel", "move"
ACTIONS = (DROP, UNLABEL, MOVE)

UNLABEL_INSTEAD = f", or use the action {UNLABEL} if the landmark is unlabeled"
"""What to do about a wrong position to which a landmark is moved, besides correcting it."""


@dataclass(frozen=True)
class Correction:
    """A correction of one label or one row.

    Parameters
    ----------
    row
        Index of the row.
    landmark
        Index of the landmark; None to drop the row.
    x, y
        New position in pixels of the data set's image; NaN to remove the label.
    """

    row: int
    landmark: int | None
    x: float = np.nan
    y: float = np.nan


def apply_corrections(dataset: LandmarkDataset, path: Path) -> LandmarkDataset:
    """Return the data set with the corrections of a CSV applied.

    Its field `corrections` is a digest of the corrections themselves: their order, other columns, and rows
    without an action do not affect it.

    Raises
    ------
    UserError
        If the file cannot be read, one of its rows cannot be applied, or no face would be left. The message
        names the file and, for a row, the line.
    """
    corrections = _read_corrections(dataset, path)
    points = dataset.points.copy()
    kept = np.ones(len(dataset), bool)
    for correction in corrections:
        if correction.landmark is None:
            kept[correction.row] = False
        else:
            points[correction.row, correction.landmark] = correction.x, correction.y
    if not kept.any():
        raise UserError(f"{path}: drops every face of {dataset.source}; keep at least one")
    visibility = dataset.visibility
    if visibility is not None:
        labeled = np.where(visibility == NOT_LABELED, VISIBLE, visibility)
        visibility = np.where(np.isnan(points).any(axis=2), NOT_LABELED, labeled).astype(np.uint8)
    corrected = replace(
        dataset, points=points, visibility=visibility, corrections=_digest(corrections, dataset)
    )
    return corrected.subset(kept)


def _digest(corrections: list[Correction], dataset: LandmarkDataset) -> str:
    """Return the SHA-256 of the corrections, independent of their order."""
    entries = sorted(
        (dataset.names[c.row], -1 if c.landmark is None else c.landmark, str(c.x), str(c.y))
        for c in corrections
    )
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _read_corrections(dataset: LandmarkDataset, path: Path) -> list[Correction]:
    """Read and validate a CSV of corrections."""
    try:
        with path.open("rb") as stream:
            reader = CsvReader(stream, str(path))
            for column in ("face", "action"):
                if column not in reader.columns:
                    raise UserError(
                        f"{path}: the column {column!r} is missing; `data --audit` writes a template"
                    )
            return list(_iter_corrections(reader, dataset))
    except OSError as error:
        raise UserError(f"data.corrections: {path}: cannot be read ({error.strerror or error})") from error


def _iter_corrections(reader: CsvReader, dataset: LandmarkDataset) -> Iterator[Correction]:
    """Yield the correction of each row with an action; two corrections of the same label are an error."""
    rows = {name: row for row, name in enumerate(dataset.names)}
    lines: dict[tuple[int, int | None], int] = {}
    for line, fields in reader.rows():
        cells = {column: field.strip() for column, field in zip(reader.columns, fields, strict=True)}
        if not cells["action"]:
            continue
        if cells["face"] not in rows:
            raise UserError(
                f"{reader.at(line)}: {dataset.source} has no face {quote(cells['face'])}; its first face is"
                f" {quote(dataset.names[0])}"
            )
        correction = _parse_correction(reader, line, cells, rows[cells["face"]], dataset)
        previous = lines.setdefault((correction.row, correction.landmark), line)
        if previous != line:
            what = "drops the same face" if correction.landmark is None else "corrects the same label"
            raise UserError(f"{reader.at(line)}: line {previous} {what}; remove one of them")
        yield correction


def _parse_correction(
    reader: CsvReader, line: int, cells: dict[str, str], row: int, dataset: LandmarkDataset
) -> Correction:
    """Parse and validate the `cells` of one line, by column name, which correct the data set's `row`."""
    location, action, name = reader.at(line), cells["action"], cells.get("landmark", "")
    if action not in ACTIONS:
        raise UserError(f"{location}: no such action {quote(action, 40)}; {suggest(action, ACTIONS)}")
    if action == DROP:
        if name:
            raise UserError(
                f"{location}: drop removes the whole face; leave 'landmark' empty, or use unlabel instead"
            )
        return Correction(row, None)
    if not name:
        raise UserError(f"{location}: 'landmark' is empty or missing; name the landmark to {action}")
    names = dataset.schema.names
    if name not in names:
        raise UserError(f"{location}: no such landmark {quote(name, 40)}; {suggest(name, names)}")
    landmark = names.index(name)
    if action == UNLABEL:
        return Correction(row, landmark)
    x, y = (reader.number(cells.get(axis, ""), line, axis, UNLABEL_INSTEAD) for axis in "xy")
    if np.isnan(x) or np.isnan(y):
        raise UserError(f"{location}: move needs the new position of {name}; fill in both x and y")
    check_point_range(location, name, (x, y), (dataset.size, dataset.size), UNLABEL_INSTEAD)
    return Correction(row, landmark, x, y)
