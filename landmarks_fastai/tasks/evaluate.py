"""Judge a model on labelled faces, and write numbers and pictures that say how well it does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config import load_recipe
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.drawing import judged_sheet, save_png
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import Report, evaluate_points
from landmarks_fastai.figures import calibration_figure, ced_figure, point_error_figure
from landmarks_fastai.files import read_json, write_csv, write_json
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schema import Schema

WORST = 16


def unseen_rows(runs: Sequence[Path], table: FaceTable) -> NDArray[np.int64] | None:
    """Return the rows of `table` that no run has trained on.

    Parameters
    ----------
    runs
        The run folders of the models that are judged together.
    table
        The faces to judge them by.

    Returns
    -------
    NDArray or None
        Row numbers; None where all runs used other data, so that every row is new to them.

    Raises
    ------
    UserError
        If there is no such row, a run used these faces with other fixes or a part of them, or which they are
        can't be told.
    """
    valid = {run: rows for run in runs if (rows := _validated_on(run, table)) is not None}
    if not valid:
        return None
    if len(here := list(valid)) > 1:
        recipes = [load_recipe(str(run / "config.yaml")) for run in here]
        if len({recipe.seed for recipe in recipes if recipe.data.limit is not None}) > 1:
            raise UserError(
                f"{here[0]}, {here[1]}: data.limit drew other rows for each seed, so which are new to all"
                " can't be told; evaluate one at a time, on other --data, or with --rows all"
            )
    unseen = reduce(np.intersect1d, valid.values())
    if not len(unseen):
        raise UserError(
            f"{table.source}: every face was trained on by one of these {len(runs)} models, as by the folds"
            " of one run; use other --data, one model, or the out-of-fold metrics.json beside the folds"
        )
    return unseen


def _validated_on(run: Path, table: FaceTable) -> NDArray[np.int64] | None:
    """Return the rows that the run in a folder validated on; None where it used another table."""
    if not (run / "data.json").is_file():
        return None
    data = read_json(run / "data.json")
    if data.get("sha256") != table.digest:
        return None
    if data.get("fixes") != table.fixes:
        raise UserError(
            f"{run}/data.json: the model was trained on these faces with other fixes, so which rows are new"
            " to it can't be told by number; bring its fixes back, or evaluate with --rows all"
        )
    if data.get("rows") != len(table):
        raise UserError(
            f"{run}/data.json: the model was trained on {data['rows']} of these rows, so which are new to it"
            " can't be told by number; evaluate on other data, or with --rows all"
        )
    return np.array(data["split"]["valid"], dtype=np.int64)


def evaluate_model(predictor: Predictor, table: FaceTable, out: Path, flip: bool = False) -> Report:
    """Predict every face of `table`, and write the report into the folder `out`.

    Writes metrics.json, faces.csv (the error of each face), ced.png, points.png, worst.png and, where the
    model knows its confidence, calibration.png.

    Raises
    ------
    UserError
        If the model's points are not the table's.
    """
    shared = check_schema(predictor.schema, table.schema)
    found = predictor.predict_crops(table.images, flip=flip)
    points, scales = found.points[:, list(shared)], found.scales[:, list(shared)]
    report = evaluate_points(points, table.points, table.schema, table.complete, table.size, scales)
    write_json(out / "metrics.json", {"source": table.source, "sha256": table.digest, **report.to_dict()})
    errors = ["" if np.isnan(value) else f"{value:.6f}" for value in report.nme]
    write_csv(out / "faces.csv", [("face", "nme"), *zip(table.names, errors, strict=True)])
    if np.isfinite(report.nme).any():
        save_png(out / "ced.png", ced_figure({predictor.name: report.nme}))
        worst = np.array(report.worst(WORST), dtype=np.int64)
        save_png(out / "worst.png", judged_sheet(table, points, report.nme, worst))
    save_png(out / "points.png", point_error_figure(report.points))
    if report.calibration is not None:
        save_png(out / "calibration.png", calibration_figure(report.calibration))
    return report


def check_schema(predicted: Schema, wanted: Schema) -> tuple[int, ...]:
    """Return where each wanted point stands among the predicted ones.

    Raises
    ------
    UserError
        If the model does not know one of them.
    """
    missing = [name for name in wanted.points if name not in predicted.points]
    if missing:
        raise UserError(
            f"the model finds the points of {predicted.name}, and not {missing[0]!r}"
            f" ({len(missing)} of {len(wanted)} points of {wanted.name} are unknown to it); use other --data"
        )
    return predicted.indices(wanted.points)
