"""Evaluate models on labeled data and write a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config.loading import load_config, validate_config
from landmarks_fastai.config.options import DataConfig, TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.report import Report, evaluate_dataset
from landmarks_fastai.inference.ensemble import open_predictors
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.discovery import RELEASED_DIR, resolve_models
from landmarks_fastai.model_files.run_marker import CONFIG_NAME, DATA_NAME
from landmarks_fastai.utils.files import read_json, write_csv, write_json
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.visualization.plots import plot_calibration, plot_ced, plot_landmark_errors
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.sheets import evaluation_sheet

WORST_SHOWN = 16
"""Number of rows in worst.png."""

REPORT_FOLDER = "evaluation"

AUTO_ROWS, ALL_ROWS = "auto", "all"


@dataclass(frozen=True)
class EvaluationResult:
    """Result of the evaluation of one model or of the average of several.

    Parameters
    ----------
    report
        The scores.
    rows
        Number of rows that were evaluated.
    folder
        Folder of the report.
    files
        Names of the files in it.
    notes
        Sentences that explain which rows were evaluated.
    """

    report: Report
    rows: int
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def evaluate(
    models: str | Path | Sequence[str | Path],
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    rows: str = AUTO_ROWS,
    flip: bool = False,
    device: str = "auto",
    trust_pickle: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Evaluate a model, or the average of several models, and write the report.

    Parameters
    ----------
    models
        Runs, model files or names of released models.
    data
        "kaggle", "synthetic" or a path; the data set of the (first) model's config if None.
    out
        Folder for the report; the folder "evaluation" next to the model if None.
    rows
        "auto" omits the rows that a model was trained on, as recorded in its run folder; "all" evaluates
        every row.
    flip
        Average with the prediction on the mirrored image.
    device, trust_pickle
        See `Predictor.open`.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.

    Raises
    ------
    UserError
        If a model or the data cannot be used, the model does not predict all landmarks of the data, or no row
        is left.
    RunError
        If a download fails or the report cannot be written.
    """
    if rows not in (AUTO_ROWS, ALL_ROWS):
        raise UserError(f"--rows {rows}: choose {AUTO_ROWS} or {ALL_ROWS}")
    named = [models] if isinstance(models, (str, Path)) else list(models)
    paths = resolve_models(named)
    predictor = open_predictors(paths, device, trust_pickle)
    dataset = load_model_data(predictor.header.config, data, cache=cache, progress=progress)
    notes: list[str] = []
    if rows == AUTO_ROWS:
        dataset, notes = _select_unseen(dataset, paths, predictor.header.config)
    folder = _report_folder(named, paths) if out is None else Path(out)
    predicted = predict_dataset(predictor, dataset, flip=flip)
    report = evaluate_dataset(predicted, dataset)
    files = write_report(report, dataset, predicted, folder, predictor.name)
    return EvaluationResult(report, len(dataset), folder, files, tuple(notes))


def load_model_data(
    config: dict[str, Any],
    source: str | Path | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> LandmarkDataset:
    """Load the data set that a model was trained on, or all rows of another source.

    Parameters
    ----------
    config
        The config in the model's header; may be empty.
    source
        "kaggle", "synthetic" or a path; None for that of the config.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.
    """
    trained = validate_config(config, "the config in the model file") if config else TrainConfig()
    same = source is None or str(source) == trained.data.source
    data = trained.data if same else DataConfig(source=str(source))
    return load_dataset(data, seed=trained.seed, cache=cache, progress=progress)


# --- which rows ----------------------------------------------------------------------------------


def unseen_rows(runs: Sequence[Path], dataset: LandmarkDataset) -> NDArray[np.int64] | None:
    """Return the rows that none of the runs was trained on.

    Parameters
    ----------
    runs
        Run folders of the models that are evaluated together.
    dataset
        The data set they are evaluated on.

    Returns
    -------
    NDArray or None
        Indices of the rows; None if no run is known to be trained on this data set.

    Raises
    ------
    UserError
        If there is no such row, or the rows cannot be identified because a run used other corrections or
        another part of the data set.
    """
    validation = {run: rows for run in runs if (rows := _validation_rows(run, dataset)) is not None}
    if not validation:
        return None
    if len(validation) > 1:
        configs = [load_config(str(run / CONFIG_NAME)) for run in validation]
        if len({config.seed for config in configs if config.data.limit is not None}) > 1:
            first, second, *_ = validation
            raise UserError(
                f"{first}, {second}: data.limit selected different rows, because the seeds differ, so the"
                " rows that are new to all models cannot be identified; evaluate one at a time, on other"
                " --data, or with --rows all"
            )
    unseen = reduce(np.intersect1d, validation.values())
    if not len(unseen):
        raise UserError(
            f"{dataset.source}: every row was used for training by one of these {len(runs)} models (such as"
            " the folds of a cross-validation); use other --data, one model, or the out-of-fold metrics.json"
            " of the cross-validation"
        )
    return unseen


def _validation_rows(run: Path, dataset: LandmarkDataset) -> NDArray[np.int64] | None:
    """Return the validation rows of a run; None if it was trained on other data, or is not a run folder."""
    path = run / DATA_NAME
    if not path.is_file():
        return None
    data = read_json(path)
    if data.get("sha256") != dataset.digest:
        return None
    if data.get("corrections") != dataset.corrections:
        raise UserError(
            f"{path}: the model was trained on this data with other corrections, so the rows that are new to"
            " it cannot be identified; restore its corrections, or evaluate with --rows all"
        )
    if data.get("rows") != len(dataset):
        raise UserError(
            f"{path}: the model was trained on {data['rows']} of these rows, so the rows that are new to it"
            " cannot be identified; evaluate on other data, or with --rows all"
        )
    return np.array(data["split"]["valid"], dtype=np.int64)


def _select_unseen(
    dataset: LandmarkDataset, paths: Sequence[Path], config: dict[str, Any]
) -> tuple[LandmarkDataset, list[str]]:
    """Return the rows that the models were not trained on, with sentences that explain the choice."""
    unseen = unseen_rows([path.parent for path in paths], dataset)
    notes = []
    if unseen is not None:
        dataset = dataset.subset(unseen)
        who = "the model was not trained" if len(paths) == 1 else "none of the models was trained"
        notes.append(f"evaluating the {len(dataset):,} rows that {who} on (--rows all evaluates every row)")
        if initial := config.get("model", {}).get("init_from"):
            notes.append(f"the initial weights, {initial}, may have been trained on some of these rows")
    if not all((path.parent / DATA_NAME).is_file() for path in paths):
        unknown = "a model file without its run folder does not say which rows it was trained on"
        notes.append(unknown if unseen is not None else f"evaluating all {len(dataset):,} rows: {unknown}")
    return dataset, notes


# --- the report ----------------------------------------------------------------------------------


def predict_dataset(predictor: Predictor, dataset: LandmarkDataset, *, flip: bool = False) -> Landmarks:
    """Predict the landmarks of a data set, in its schema.

    Raises
    ------
    UserError
        If the model does not predict all landmarks of the data set.
    """
    Landmarks.empty(predictor.schema).select(dataset.schema)  # checked first, because predicting takes time
    return predictor.predict_batch(dataset.images, flip=flip).select(dataset.schema)


def write_report(
    report: Report, dataset: LandmarkDataset, predicted: Landmarks, folder: Path, name: str
) -> tuple[str, ...]:
    """Write the metrics, the NME of each row and plots, and return the names of the files.

    Parameters
    ----------
    report
        The evaluation of `predicted`.
    dataset
        The data set that was evaluated.
    predicted
        Landmarks of its rows.
    folder
        Folder for the files.
    name
        Label of the model in the CED plot.
    """
    files = ["metrics.json", "faces.csv", "landmark_errors.png"]
    metrics = {"source": dataset.source, "sha256": dataset.digest, **report.to_dict()}
    write_json(folder / "metrics.json", metrics)
    errors = ["" if np.isnan(value) else f"{value:.6f}" for value in report.nme]
    write_csv(folder / "faces.csv", [("face", "nme"), *zip(dataset.names, errors, strict=True)])
    save_png(folder / "landmark_errors.png", plot_landmark_errors(report.landmarks))
    if np.isfinite(report.nme).any():
        ced = plot_ced({name: report.nme}, normalizer=report.normalizer_name)
        save_png(folder / "ced.png", ced)
        worst = np.array(report.worst(WORST_SHOWN), dtype=np.int64)
        save_png(folder / "worst.png", evaluation_sheet(dataset, predicted, report.nme, worst))
        files += ["ced.png", "worst.png"]
    if report.calibration is not None:
        save_png(folder / "calibration.png", plot_calibration(report.calibration))
        files.append("calibration.png")
    return tuple(files)


def _report_folder(named: Sequence[str | Path], paths: Sequence[Path]) -> Path:
    """Return the folder "evaluation" next to a model, or in the folder of a cross-validation.

    For released models and for several models, it is in the working directory.
    """
    parent = paths[0].parent if len(paths) == 1 else Path(named[0]) if len(named) == 1 else Path()
    return (Path() if parent == RELEASED_DIR else parent) / REPORT_FOLDER
