"""Find the labels that are probably wrong: those that lie far from what a model says that never saw them.

A hard face is no mistake. So each distance is divided by how far off the model says that it may be, and by
what is usual for that point; and a face is compared with all others in two ways, as one wrong point and a row
that is shifted or belongs to another face leave different traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.calibration import scale_of_chance
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.drawing import save_png, sheet
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import point_distances
from landmarks_fastai.files import read_json, write_csv
from landmarks_fastai.training.oof import FOLDS_NAME, OOF_NAME, OutOfFold, read_oof

Floats = NDArray[np.float64]

CSV_NAME, SHEET_NAME = "audit.csv", "audit.png"
COLUMNS = ("face", "point", "action", "x", "y", "score", "worst_point", "error_px", "reason")
SHOWN = 25
LEAST_USUAL = 1e-3  # of what is usual: no distance is divided by nothing
ALIGNED = 0.8  # share of the mean distance that the mean direction explains where a whole face is shifted
POINT, SHIFT, FACE = "point", "shift", "face"
BRIEFLY = {POINT: "one point", SHIFT: "shifted", FACE: "most points"}


@dataclass(frozen=True)
class Doubt:
    """A face whose labels may be wrong.

    Parameters
    ----------
    row
        Its number in the table.
    score
        How far it stands out from the other faces, in robust standard deviations.
    kind
        "point" (one is wrong), "shift" (all lie to one side) or "face" (most are wrong).
    worst
        The number of the point that stands out most.
    error
        How far its label lies from the prediction, px.
    shift
        Mean of label minus prediction, x and y, px.
    """

    row: int
    score: float
    kind: str
    worst: int
    error: float
    shift: tuple[float, float]


def audit_run(run: Path, table: FaceTable, out: Path) -> list[Doubt]:
    """Rank the faces that folds were trained on, and write OUT/audit.csv and OUT/audit.png.

    The CSV has a row of `COLUMNS` for each face, the most doubtful first; with the column action filled in
    it is a file of fixes (`apply_fixes`). The picture shows the first `SHOWN`, label beside prediction.

    Parameters
    ----------
    run
        The folder of the folds.
    table
        The faces as their recipe loads them.
    out
        The folder that is written to.

    Raises
    ------
    UserError
        If the folds have not ended or saw other data, or `out` holds an audit already.
    """
    state = check_folds(run)
    if (state.get("sha256"), state.get("fixes")) != (table.digest, table.fixes):
        raise UserError(f"{run}: {table.source} is not the data that the folds were trained on; train anew")
    if (out / CSV_NAME).exists():
        raise UserError(f"{out / CSV_NAME} is there already, with your actions perhaps; choose another --out")
    found = read_oof(run / OOF_NAME, table)
    doubts = find_doubts(table, found)
    write_csv(out / CSV_NAME, [COLUMNS, *(_cells(doubt, table, found) for doubt in doubts)])
    save_png(out / SHEET_NAME, _sheet(doubts[:SHOWN], table, found))
    return doubts


def check_folds(run: Path) -> dict[str, Any]:
    """Return what folds.json says of folds that have all ended.

    Raises
    ------
    UserError
        If there are none, or they have not.
    """
    if not (run / FOLDS_NAME).is_file():
        raise UserError(f"{run}: holds no folds; train them: landmarks-fastai train --folds 5 --out {run}")
    state = read_json(run / FOLDS_NAME)
    if not (run / OOF_NAME).is_file():
        raise UserError(
            f"{run}: {state.get('done')} of {state.get('folds')} folds have ended; go on with:"
            f" landmarks-fastai train --resume {run}"
        )
    return state


def find_doubts(table: FaceTable, found: OutOfFold) -> list[Doubt]:
    """Rank the faces that have labels, the most doubtful first.

    A face's score is the greater of two, each in robust standard deviations (of the logarithm, by median and
    MAD) from all faces: the point that lies farthest from where the others would have it, and the mean of
    all points.

    Parameters
    ----------
    table
        N faces with their labels.
    found
        Their points as models say that did not see them.
    """
    rows = np.flatnonzero(table.labelled.any(axis=1))
    labels, predicted = table.points[rows].astype(np.float64), found.points[rows].astype(np.float64)
    away = labels - predicted
    distances = point_distances(predicted, labels)
    expected = _expected(found.confidence[rows], table.size)
    relative = _by_usual(distances / expected)
    # what all points have in common is the face's, not the point's
    apart = away - np.nanmedian(away, axis=1, keepdims=True)
    alone = _by_usual(np.hypot(*np.moveaxis(apart, -1, 0)) / expected)
    points, faces = (_deviations(trace) for trace in (np.nanmax(alone, axis=1), np.nanmean(relative, axis=1)))
    shifts = np.nanmean(away, axis=1)
    aligned = np.hypot(*shifts.T) > ALIGNED * np.nanmean(distances, axis=1)
    doubts = []
    for i, row in enumerate(rows.tolist()):
        kind = POINT if points[i] > faces[i] else SHIFT if aligned[i] else FACE
        worst = int(np.nanargmax((alone if kind == POINT else relative)[i]))
        x, y = shifts[i].tolist()
        score = max(float(points[i]), float(faces[i]))
        doubts.append(Doubt(row, score, kind, worst, float(distances[i, worst]), (x, y)))
    return sorted(doubts, key=lambda doubt: -doubt.score)


def _expected(confidence: NDArray[np.float32], size: int) -> Floats:
    """Turn confidences back into scales, px; 1 px where there is none."""
    certain = np.clip(confidence.astype(np.float64), 1e-4, 1 - 1e-4)
    return np.where(np.isnan(confidence), 1.0, scale_of_chance(certain, size))


def _by_usual(errors: Floats) -> Floats:
    """Divide each point's errors (n, K) by their median."""
    columns = [column[~np.isnan(column)] for column in errors.T]
    usual = [max(float(np.median(column)), LEAST_USUAL) if len(column) else 1.0 for column in columns]
    return np.asarray(errors / usual)


def _deviations(trace: Floats) -> Floats:
    """Say how far each value lies above the median, in robust standard deviations of the logarithm."""
    logs = np.log(np.maximum(trace, LEAST_USUAL))
    apart = logs - np.median(logs)
    return np.asarray(apart / max(1.4826 * float(np.median(abs(apart))), LEAST_USUAL))


# --- what is written -----------------------------------------------------------------------------


def _cells(doubt: Doubt, table: FaceTable, found: OutOfFold) -> Sequence[object]:
    """Return a row of `COLUMNS`; where one point is wrong, x and y are where the model puts it."""
    worst = table.schema.points[doubt.worst]
    point, x, y = "", "", ""
    if doubt.kind == POINT:
        point = worst
        x, y = (f"{value:.2f}" for value in found.points[doubt.row, doubt.worst].tolist())
    numbers = f"{doubt.score:.2f}", worst, f"{doubt.error:.2f}"
    return table.names[doubt.row], point, "", x, y, *numbers, _reason(doubt, worst)


def _reason(doubt: Doubt, worst: str) -> str:
    if doubt.kind == POINT:
        return f"{worst} lies {doubt.error:.1f} px off"
    if doubt.kind == SHIFT:
        x, y = doubt.shift
        return f"all points lie to one side, by ({x:+.1f}, {y:+.1f}) px"
    return "most points lie off: perhaps another face's"


def _sheet(doubts: Sequence[Doubt], table: FaceTable, found: OutOfFold) -> NDArray[np.uint8]:
    rows = np.array([doubt.row for doubt in doubts], np.int64)
    shown = table.rows(rows)
    titles = [
        f"{place}. {name}: {BRIEFLY[doubt.kind]}"
        for place, (name, doubt) in enumerate(zip(shown.names, doubts, strict=True), start=1)
    ]
    points = found.points[rows]
    return sheet(shown.images, points, table.schema, truth=shown.points, titles=titles, columns=5)
