"""A person's corrections of a source's labels, read from a CSV and laid over its table.

Knows what can be done to a label. Knows nothing about how the wrong ones were found.

The columns are ``face`` (the row's name) and ``action``, and ``point``, ``x`` and ``y`` where the action
needs them; other columns, and rows without an action, are passed over:

    drop      the face is left out; point is empty
    unlabel   the point has no label
    move      the point lies at x, y: px of the face's image as the table holds it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from landmarks_fastai.data.csvfile import CsvFile, check_near
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError, nearest

DROP, UNLABEL, MOVE = "drop", "unlabel", "move"
ACTIONS = (DROP, UNLABEL, MOVE)


@dataclass(frozen=True)
class Fix:
    """One correction: which face and point by number, and where the point goes (NaN: no label).

    A `point` of None drops the face.
    """

    face: int
    point: int | None
    x: float
    y: float


def apply_fixes(table: FaceTable, path: Path) -> FaceTable:
    """Return the table with the labels that a file of fixes mends.

    Its `fixes` is the SHA-256 of what was done, whatever else the file says.

    Raises
    ------
    UserError
        If the file can't be read, or a row of it can't be followed; names the file and the line.
    """
    fixes = _read(table, path)
    points = table.points.copy()
    kept = np.ones(len(table), bool)
    for fix in fixes:
        if fix.point is None:
            kept[fix.face] = False
        else:
            points[fix.face, fix.point] = fix.x, fix.y
    if not kept.any():
        raise UserError(f"{path}: drops every face of {table.source}; keep some")
    done = sorted((table.names[fix.face], -1 if fix.point is None else fix.point, str(fix)) for fix in fixes)
    digest = hashlib.sha256(json.dumps(done).encode()).hexdigest()
    return replace(table, points=points, fixes=digest).rows(kept)


def _read(table: FaceTable, path: Path) -> list[Fix]:
    try:
        with path.open("rb") as stream:
            file = CsvFile(stream, str(path))
            for column in ("face", "action"):
                if column not in file.columns:
                    raise UserError(
                        f"{path}: the column {column!r} is missing; data --audit writes such a file"
                    )
            return list(_fixes(file, table))
    except OSError as error:
        raise UserError(f"data.fixes: {path}: can't be read ({error.strerror or error})") from error


def _fixes(file: CsvFile, table: FaceTable) -> Iterator[Fix]:
    rows = {name: row for row, name in enumerate(table.names)}
    seen: dict[tuple[int, int | None], int] = {}
    for line, fields in file.rows():
        cells = {column: field.strip() for column, field in zip(file.columns, fields, strict=True)}
        if not cells["action"]:
            continue
        if cells["face"] not in rows:
            raise UserError(
                f"{file.at(line)}: {table.source} has no face {cells['face'][:80]!r}; its first is called"
                f" {table.names[0]!r}"
            )
        fix = _fix(file, line, cells, rows[cells["face"]], table)
        before = seen.setdefault((fix.face, fix.point), line)
        if before != line:
            raise UserError(f"{file.at(line)}: line {before} is about the same label; remove one of them")
        yield fix


def _fix(file: CsvFile, line: int, cells: dict[str, str], face: int, table: FaceTable) -> Fix:
    where, action, point = file.at(line), cells["action"], cells.get("point", "")
    if action not in ACTIONS:
        raise UserError(f"{where}: no such action {action[:40]!r}; {nearest(action, ACTIONS)}")
    if action == DROP:
        if point:
            raise UserError(
                f"{where}: drop leaves the whole face out; empty the point, or write unlabel in its place"
            )
        return Fix(face, None, np.nan, np.nan)
    if point not in table.schema.points:
        told = f"no such point {point[:40]!r}; {nearest(point, table.schema.points)}"
        raise UserError(f"{where}: {told if point else f'point is empty; name the one to {action}'}")
    number = table.schema.points.index(point)
    if action == UNLABEL:
        return Fix(face, number, np.nan, np.nan)
    x, y = (file.number(cells.get(axis, ""), line, axis) for axis in "xy")
    if np.isnan(x) or np.isnan(y):
        raise UserError(f"{where}: x and y say where to move {point}; fill in both")
    check_near(where, point, x, y, table.size, table.size)
    return Fix(face, number, x, y)
