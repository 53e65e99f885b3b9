"""Rank the rows of a cross-validation by how probably their labels are wrong, as a table for corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.label_errors import FACE, LANDMARK, SHIFT, LabelError, rank_label_errors
from landmarks_fastai.evaluation.out_of_fold import (
    FOLDS_NAME,
    OOF_NAME,
    OutOfFoldPredictions,
    read_out_of_fold,
)
from landmarks_fastai.model_files.run_marker import CONFIG_NAME, check_run_folder
from landmarks_fastai.utils.files import write_csv
from landmarks_fastai.utils.json_reader import read_json_object
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.sheets import landmark_sheet

CSV_NAME, SHEET_NAME = "audit.csv", "audit.png"
COLUMNS = ("face", "landmark", "action", "x", "y", "score", "worst_landmark", "error_px", "reason")

SHOWN = 25
"""Number of rows in audit.png."""

SHORT_REASONS = {LANDMARK: "one landmark", SHIFT: "shifted", FACE: "most landmarks"}


@dataclass(frozen=True)
class AuditResult:
    """Result of an audit.

    Parameters
    ----------
    label_errors
        All labeled rows, the most probable label errors first.
    table, sheet
        Paths of audit.csv and audit.png.
    shown
        Number of rows in audit.png.
    """

    label_errors: list[LabelError]
    table: Path
    sheet: Path
    shown: int


def audit(
    run: str | Path, out: str | Path, *, cache: Path | None = None, progress: Progress | None = None
) -> AuditResult:
    """Load the data of a finished cross-validation and audit its labels; see `audit_run`.

    Parameters
    ----------
    run
        Folder of the cross-validation.
    out
        Folder for audit.csv and audit.png.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.
    """
    folder, out = Path(run), Path(out)
    check_folds(folder)
    config = load_config(str(folder / CONFIG_NAME))
    dataset = load_dataset(config.data, seed=config.seed, cache=cache, progress=progress)
    label_errors = audit_run(folder, dataset, out)
    return AuditResult(label_errors, out / CSV_NAME, out / SHEET_NAME, min(SHOWN, len(label_errors)))


def audit_run(run: Path, dataset: LandmarkDataset, out: Path) -> list[LabelError]:
    """Rank the labeled rows of a cross-validation and write OUT/audit.csv and OUT/audit.png.

    The CSV has one line of `COLUMNS` for each row, the most probable label error first; with its column
    action filled in, it is a file of corrections (`apply_corrections`). The image shows the labels and the
    predictions of the first `SHOWN` rows.

    Parameters
    ----------
    run
        Folder of the cross-validation.
    dataset
        Its data set.
    out
        Folder for the files.

    Raises
    ------
    UserError
        If the cross-validation is not finished or used other data, or `out` contains an audit.
    """
    state = check_folds(run)
    if (state.get("sha256"), state.get("corrections")) != (dataset.digest, dataset.corrections):
        raise UserError(
            f"{run}: {dataset.source} is not the data that the folds were trained on; run the"
            " cross-validation again"
        )
    if (out / CSV_NAME).exists():
        raise UserError(
            f"{out / CSV_NAME}: already exists and may contain your actions; choose another --out"
        )
    predictions = read_out_of_fold(run / OOF_NAME, dataset)
    label_errors = rank_label_errors(dataset, predictions)
    rows = (_csv_row(label_error, dataset, predictions) for label_error in label_errors)
    write_csv(out / CSV_NAME, [COLUMNS, *rows])
    save_png(out / SHEET_NAME, _audit_sheet(label_errors[:SHOWN], dataset, predictions))
    return label_errors


def check_folds(run: Path) -> dict[str, Any]:
    """Return the content of folds.json of a finished cross-validation.

    Raises
    ------
    UserError
        If there is no cross-validation in `run`, it is not finished, or it has another format version.
    """
    check_run_folder(run)
    if not (run / FOLDS_NAME).is_file():
        raise UserError(
            f"{run}: no cross-validation in this folder; run one with: landmarks-fastai train --folds 5 --out"
            f" {run}"
        )
    state = read_json_object(run / FOLDS_NAME)
    if not (run / OOF_NAME).is_file():
        raise UserError(
            f"{run}: {state.get('done')} of {state.get('folds')} folds are finished; resume with:"
            f" landmarks-fastai train --resume {run}"
        )
    return state


# --- the files -----------------------------------------------------------------------------------


def _csv_row(
    label_error: LabelError, dataset: LandmarkDataset, predictions: OutOfFoldPredictions
) -> Sequence[object]:
    """Return the cells of `COLUMNS`; if a single landmark is wrong, x and y are its prediction."""
    worst = dataset.schema.names[label_error.landmark]
    landmark, x, y = "", "", ""
    if label_error.kind == LANDMARK:
        landmark = worst
        predicted = predictions.landmarks.points[label_error.row, label_error.landmark]
        x, y = (f"{value:.2f}" for value in predicted.tolist())
    score, distance = f"{label_error.score:.2f}", f"{label_error.distance:.2f}"
    reason = _reason(label_error, worst)
    return dataset.names[label_error.row], landmark, "", x, y, score, worst, distance, reason


def _reason(label_error: LabelError, worst: str) -> str:
    """Return a sentence for the column reason."""
    if label_error.kind == LANDMARK:
        return f"{worst} is {label_error.distance:.1f} px from the prediction"
    if label_error.kind == SHIFT:
        x, y = label_error.shift
        return f"all landmarks are shifted by ({x:+.1f}, {y:+.1f}) px"
    return "most landmarks are far from the prediction; they may belong to another face"


def _audit_sheet(
    label_errors: Sequence[LabelError], dataset: LandmarkDataset, predictions: OutOfFoldPredictions
) -> NDArray[np.uint8]:
    """Draw labels and predictions of the given rows."""
    rows = np.array([label_error.row for label_error in label_errors], np.int64)
    shown = dataset.subset(rows)
    captions = [
        f"{rank}. {name}: {SHORT_REASONS[label_error.kind]}"
        for rank, (name, label_error) in enumerate(zip(shown.names, label_errors, strict=True), start=1)
    ]
    predicted = predictions.landmarks[rows]
    return landmark_sheet(shown.images[:], predicted, truth=shown.landmarks, captions=captions, columns=5)
