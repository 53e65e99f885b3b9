"""Judge a model on labelled faces, and write numbers and pictures that say how well it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.drawing import ced_figure, judged_sheet, point_error_figure, save_png
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import Report, evaluate_points
from landmarks_fastai.files import read_json, write_csv, write_json
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schema import Schema

WORST = 16


def unseen_rows(run: Path, table: FaceTable) -> NDArray[np.int64] | None:
    """Return the rows of `table` that the run in folder `run` validated on, if it trained on this table.

    Returns
    -------
    NDArray or None
        Row numbers; None where the run used other data, so that every row is new to it.

    Raises
    ------
    UserError
        If the run used these faces with other fixes or a part of them.
    """
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

    Writes metrics.json, faces.csv (the error of each face), ced.png, points.png and worst.png.

    Raises
    ------
    UserError
        If the model's points are not the table's.
    """
    shared = check_schema(predictor.schema, table.schema)
    points = predictor.predict_crops(table.images, flip=flip).points[:, list(shared)]
    report = evaluate_points(points, table.points, table.schema, table.complete, table.size)
    write_json(out / "metrics.json", {"source": table.source, "sha256": table.digest, **report.to_dict()})
    errors = ["" if np.isnan(value) else f"{value:.6f}" for value in report.nme]
    write_csv(out / "faces.csv", [("face", "nme"), *zip(table.names, errors, strict=True)])
    if np.isfinite(report.nme).any():
        save_png(out / "ced.png", ced_figure({predictor.header.arch: report.nme}))
        worst = np.array(report.worst(WORST), dtype=np.int64)
        save_png(out / "worst.png", judged_sheet(table, points, report.nme, worst))
    save_png(out / "points.png", point_error_figure(report.points))
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
