"""Evaluate models on labeled data and write a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.evaluation_data import load_model_data, select_unseen
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.analysis import Analysis, analyze
from landmarks_fastai.evaluation.coco_ap import check_coco_available
from landmarks_fastai.evaluation.pck import PCK_THRESHOLDS, check_threshold
from landmarks_fastai.evaluation.report import Report, evaluate_dataset
from landmarks_fastai.evaluation.row_groups import RowGroups, find_row_groups
from landmarks_fastai.evaluation.sigmas import Sigmas, estimate_sigmas, read_sigmas, write_sigmas
from landmarks_fastai.evaluation.slices import Slice, make_slices
from landmarks_fastai.inference.ensemble import open_predictors
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.discovery import RELEASED_DIR, resolve_models
from landmarks_fastai.utils.files import write_csv, write_json
from landmarks_fastai.utils.progress import Progress, announce
from landmarks_fastai.visualization.plots import plot_calibration, plot_ced, plot_landmark_errors
from landmarks_fastai.visualization.reliability import plot_visibility
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.sheets import evaluation_sheet

WORST_SHOWN = 16
"""Number of rows in worst.png."""

REPORT_FOLDER = "evaluation"

AUTO_ROWS, ALL_ROWS = "auto", "all"


@dataclass(frozen=True)
class AnalysisOptions:
    """What is computed in addition to the scores of all rows.

    Parameters
    ----------
    sigmas
        CSV with the columns landmark and sigma for the OKS; None: estimated from the labels.
    slices
        Names of the slices (`make_slices`); None for the default ones.
    pck_thresholds
        Thresholds of the PCK, as fractions of the normalizer.
    coco
        Compute COCO's average precision; needs the extra ``coco``.
    """

    sigmas: Path | None = None
    slices: tuple[str, ...] | None = None
    pck_thresholds: tuple[float, ...] = PCK_THRESHOLDS
    coco: bool = False


@dataclass(frozen=True, eq=False)
class EvaluationRows:
    """The rows to be evaluated, and what is known about them before a model predicts their landmarks.

    Parameters
    ----------
    dataset
        N rows.
    groups
        Their groups, the units of the confidence intervals.
    sigmas
        Sigmas of the OKS; NaN where unknown.
    slices
        Slices of the rows.
    """

    dataset: LandmarkDataset
    groups: RowGroups
    sigmas: Sigmas
    slices: tuple[Slice, ...]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """Result of the evaluation of one model or of the average of several.

    Parameters
    ----------
    report
        The scores.
    analysis
        PCK, OKS, confidence intervals and the scores of slices.
    rows
        Number of rows that were evaluated.
    folder
        Folder of the report.
    files
        Names of the files in it.
    notes
        Lines about the data set and the rows that were evaluated.
    """

    report: Report
    analysis: Analysis
    rows: int
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def evaluate(
    models: str | Path | Sequence[str | Path],
    data: str | Path | DataConfig | None = None,
    *,
    out: str | Path | None = None,
    rows: str = AUTO_ROWS,
    flip: bool = False,
    options: AnalysisOptions | None = None,
    device: str = "auto",
    trust_pickle: bool = False,
    backend: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Evaluate a model, or the average of several models, and write the report.

    Parameters
    ----------
    models
        Runs, model files or names of released models.
    data
        "kaggle", "synthetic" or a path, or data options; the data set of the (first) model's config if None.
    out
        Folder for the report; the folder "evaluation" next to the model if None.
    rows
        "auto" omits the rows that a model was trained on, as recorded in its run folder; "all" evaluates
        every row.
    flip
        Average with the prediction on the mirrored image.
    options
        What is computed in addition to the scores of all rows; `AnalysisOptions` if None.
    device, trust_pickle, backend
        See `Predictor.open`.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.

    Raises
    ------
    UserError
        If a model, the data or an option cannot be used, the model does not predict all landmarks of the
        data, or no row is left.
    RunError
        If a download fails or the report cannot be written.
    """
    options = options or AnalysisOptions()
    check_options(rows, options)
    named = [models] if isinstance(models, (str, Path)) else list(models)
    paths = resolve_models(named)
    note = partial(announce, progress)
    predictor = open_predictors(paths, device, trust_pickle, backend, note)
    dataset = load_model_data(predictor.header, data, cache=cache, progress=progress)
    chosen, about_rows = np.arange(len(dataset)), list[str]()
    if rows == AUTO_ROWS:
        chosen, about_rows = select_unseen(dataset, paths, predictor.headers)
    notes = (*dataset.notes, *about_rows)
    prepared = prepare_rows(dataset, chosen, options)
    folder = _report_folder(named, paths) if out is None else Path(out)
    report, analysis, predicted = evaluate_rows(predictor, prepared, options, flip=flip)
    files = write_report(report, analysis, prepared.dataset, predicted, folder, predictor.name)
    return EvaluationResult(report, analysis, len(chosen), folder, files, notes)


def check_options(rows: str, options: AnalysisOptions) -> None:
    """Raise UserError if an option cannot be used, before a model and the data are loaded."""
    if rows not in (AUTO_ROWS, ALL_ROWS):
        raise UserError(f"--rows {rows}: choose {AUTO_ROWS} or {ALL_ROWS}")
    for threshold in options.pck_thresholds:
        check_threshold(threshold)
    if options.coco:
        check_coco_available()


def prepare_rows(
    dataset: LandmarkDataset, chosen: NDArray[np.int64], options: AnalysisOptions
) -> EvaluationRows:
    """Return the chosen rows of a data set with their groups, sigmas and slices.

    Groups and sigmas are determined from all rows: with more rows they are more reliable, and the same for
    every model that is evaluated on this data.

    Raises
    ------
    UserError
        If the file of sigmas cannot be used, or there is no such column.
    """
    if options.sigmas is None:
        sigmas = estimate_sigmas(dataset)
    else:
        sigmas = read_sigmas(options.sigmas, dataset.schema)
    rows = dataset.subset(chosen)
    slices = tuple(make_slices(rows, options.slices))
    return EvaluationRows(rows, find_row_groups(dataset).subset(chosen), sigmas, slices)


def evaluate_rows(
    predictor: Predictor, rows: EvaluationRows, options: AnalysisOptions, *, flip: bool = False
) -> tuple[Report, Analysis, Landmarks]:
    """Predict the landmarks of prepared rows, and return their scores, their analysis and the landmarks."""
    predicted = predict_dataset(predictor, rows.dataset, flip=flip)
    report = evaluate_dataset(predicted, rows.dataset)
    analysis = analyze(
        report,
        predicted,
        rows.dataset,
        rows.groups,
        sigmas=rows.sigmas,
        slices=rows.slices,
        pck_thresholds=options.pck_thresholds,
        coco=options.coco,
    )
    return report, analysis, predicted


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
    report: Report,
    analysis: Analysis,
    dataset: LandmarkDataset,
    predicted: Landmarks,
    folder: Path,
    name: str,
) -> tuple[str, ...]:
    """Write the metrics, the NME of each row and plots, and return the names of the files.

    Parameters
    ----------
    report, analysis
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
    metrics = {"source": dataset.source, "sha256": dataset.digest, **report.to_dict(), **analysis.to_dict()}
    write_json(folder / "metrics.json", metrics)
    if analysis.sigmas is not None:
        write_sigmas(folder / "sigmas.csv", analysis.sigmas, dataset.schema)
        files.append("sigmas.csv")
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
    if report.visibility is not None and report.visibility.prediction is not None:
        save_png(folder / "visibility.png", plot_visibility(report.visibility.prediction))
        files.append("visibility.png")
    return tuple(files)


def _report_folder(named: Sequence[str | Path], paths: Sequence[Path]) -> Path:
    """Return the folder "evaluation" next to a model, or in the folder of a cross-validation.

    For released models and for several models, it is in the working directory.
    """
    parent = paths[0].parent if len(paths) == 1 else Path(named[0]) if len(named) == 1 else Path()
    return (Path() if parent == RELEASED_DIR else parent) / REPORT_FOLDER
