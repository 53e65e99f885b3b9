"""Compare two models on the same labeled rows and write a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.evaluate import (
    ALL_ROWS,
    AUTO_ROWS,
    AnalysisOptions,
    EvaluationRows,
    check_options,
    evaluate_rows,
    prepare_rows,
)
from landmarks_fastai.commands.evaluation_data import load_model_data, select_unseen
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.analysis import Analysis
from landmarks_fastai.evaluation.comparison import Comparison, compare_metrics
from landmarks_fastai.evaluation.report import Report
from landmarks_fastai.evaluation.sigmas import write_sigmas
from landmarks_fastai.inference.ensemble import open_predictors
from landmarks_fastai.model_files.discovery import resolve_models
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.training_images import read_training_images, unseen_rows
from landmarks_fastai.utils.files import write_csv, write_json
from landmarks_fastai.utils.progress import Progress, announce
from landmarks_fastai.visualization.plots import plot_ced
from landmarks_fastai.visualization.saving import save_png

COMPARISON_FOLDER = "comparison"

UNKNOWN_ROWS = (
    "if that model was trained on some of these rows, the comparison favors it, and its p-values do not hold"
)
"""Note about a model whose training rows are not known."""


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """Result of the comparison of two models.

    Parameters
    ----------
    comparison
        Differences, intervals and p-values.
    reports, analyses
        The evaluation of each model.
    rows
        Number of rows that were evaluated.
    folder
        Folder of the report.
    files
        Names of the files in it.
    notes
        Lines about the data set and the rows that were evaluated.
    """

    comparison: Comparison
    reports: tuple[Report, Report]
    analyses: tuple[Analysis, Analysis]
    rows: int
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def compare(
    models: Sequence[str | Path],
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
) -> ComparisonResult:
    """Evaluate two models on the rows that neither was trained on, test the difference, and write the report.

    Parameters
    ----------
    models
        Two runs, model files, folders of a cross-validation (whose models are averaged) or released models.
    data
        "kaggle", "synthetic" or a path, or data options; the data set of the first model's config if None.
    out
        Folder for the report; "comparison" if None.
    rows
        "auto" omits the rows that one of the models was trained on; "all" evaluates every row, and is refused
        if there are such rows.
    flip, options, device, trust_pickle, backend, cache, progress
        See `landmarks_fastai.commands.evaluate.evaluate`.

    Raises
    ------
    UserError
        If there are not two models, one of them, the data or an option cannot be used, or no row is left.
    RunError
        If a download fails or the report cannot be written.
    """
    options = options or AnalysisOptions()
    check_options(rows, options)
    if len(models) != 2:
        raise UserError(f"--compare needs two models, not {len(models)}; name two runs or model files")
    paths = [resolve_models([model]) for model in models]
    resolve_models(models)  # refuses a model that is named twice
    note = partial(announce, progress)
    predictors = [open_predictors(files, device, trust_pickle, backend, note) for files in paths]
    dataset = load_model_data(predictors[0].header, data, cache=cache, progress=progress)
    headers = [header for predictor in predictors for header in predictor.headers]
    chosen, about_rows = _select_rows(dataset, [path for files in paths for path in files], rows, headers)
    notes = (*dataset.notes, *about_rows)
    prepared = prepare_rows(dataset, chosen, options)
    evaluated = [evaluate_rows(predictor, prepared, options, flip=flip) for predictor in predictors]
    first, second = evaluated
    names = (str(models[0]), str(models[1]))
    comparison = compare_metrics(first[1].row_metrics, second[1].row_metrics, prepared.groups.numbers, names)
    reports, analyses = (first[0], second[0]), (first[1], second[1])
    folder = Path(COMPARISON_FOLDER) if out is None else Path(out)
    files = write_comparison(comparison, reports, analyses, prepared, folder)
    return ComparisonResult(comparison, reports, analyses, len(chosen), folder, files, notes)


def _select_rows(
    dataset: LandmarkDataset, paths: Sequence[Path], rows: str, headers: Sequence[ModelHeader]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows to compare the models on; a row that one of them was trained on favors this model."""
    if rows == AUTO_ROWS:
        chosen, notes = select_unseen(dataset, paths, headers)
        if any(read_training_images(path.parent) is None for path in paths):
            notes.append(UNKNOWN_ROWS)
        return chosen, notes
    unseen = unseen_rows([path.parent for path in paths], dataset)
    if unseen is not None and len(unseen) < len(dataset):
        raise UserError(
            f"--compare --rows {ALL_ROWS}: {len(dataset) - len(unseen):,} of {len(dataset):,} rows were used"
            f" for training by one of the models, which would be favored; leave out --rows {ALL_ROWS}"
        )
    return np.arange(len(dataset)), []


def write_comparison(
    comparison: Comparison,
    reports: tuple[Report, Report],
    analyses: tuple[Analysis, Analysis],
    rows: EvaluationRows,
    folder: Path,
) -> tuple[str, ...]:
    """Write the comparison, the metrics of both models, the NME of each row and a CED plot of both.

    Returns
    -------
    tuple of str
        Names of the files.
    """
    dataset = rows.dataset
    source = {"source": dataset.source, "sha256": dataset.digest}
    metrics = [
        {"model": name, **report.to_dict(), **analysis.to_dict()}
        for name, report, analysis in zip(comparison.models, reports, analyses, strict=True)
    ]
    write_json(folder / "compare.json", {**source, **comparison.to_dict()})
    write_json(folder / "metrics.json", {**source, "models": metrics})
    errors = [["" if np.isnan(value) else f"{value:.6f}" for value in report.nme] for report in reports]
    table = zip(dataset.names, *errors, strict=True)
    write_csv(folder / "faces.csv", [("face", "nme_first", "nme_second"), *table])
    files = ["compare.json", "metrics.json", "faces.csv"]
    sigmas = analyses[0].sigmas
    if sigmas is not None:
        write_sigmas(folder / "sigmas.csv", sigmas, dataset.schema)
        files.append("sigmas.csv")
    if np.isfinite(reports[0].nme).any():
        curves = {name: report.nme for name, report in zip(comparison.models, reports, strict=True)}
        save_png(folder / "ced.png", plot_ced(curves, normalizer=reports[0].normalizer_name))
        files.append("ced.png")
    return tuple(files)
