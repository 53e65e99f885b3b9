"""Cross-validation: one run per fold, and out-of-fold predictions for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import Split, split_into_folds
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.out_of_fold import (
    FOLDS_NAME,
    OOF_NAME,
    OutOfFoldPredictions,
    write_out_of_fold,
)
from landmarks_fastai.evaluation.report import Report, evaluate_dataset
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.run_marker import CONFIG_NAME, check_run_folder, fold_folder
from landmarks_fastai.training.dataloaders import scored_rows, worker_notes
from landmarks_fastai.training.distributed import check_single_process
from landmarks_fastai.training.loggers import check_no_live_logger
from landmarks_fastai.training.preparation import check_config, data_notes
from landmarks_fastai.training.reporting import Reporter, SilentReporter
from landmarks_fastai.training.resuming import changed_data_error, check_not_restored, with_available_device
from landmarks_fastai.training.run import TrainResult, resume_run, train_run
from landmarks_fastai.training.run_folder import (
    METRICS_NAME,
    check_available,
    describe_dataset,
    last_checkpoint,
    lock_folder,
)
from landmarks_fastai.training.run_replacement import delete_run, new_run, settle_replacement
from landmarks_fastai.training.weight_transfer import check_initial_model, open_initial_model
from landmarks_fastai.utils.files import write_json
from landmarks_fastai.utils.json_reader import read_json_object
from landmarks_fastai.utils.progress import Progress

TASK = "a cross-validation"
ADVICE = ", or train fold after fold with --set data.fold=1, 2 …"


@dataclass(frozen=True)
class CrossValidationResult:
    """Result of a cross-validation.

    Parameters
    ----------
    folder
        The folder of the cross-validation, which contains the run folders of the folds.
    folds
        Number of folds.
    done
        Number of finished folds.
    epochs
        Number of epochs done in the fold that Ctrl-C interrupted; 0 if no fold was interrupted.
    report
        Scores of the out-of-fold predictions for all rows; None if Ctrl-C interrupted a fold.
    """

    folder: Path
    folds: int
    done: int
    epochs: int
    report: Report | None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM interrupted a fold."""
        return self.report is None


@dataclass(frozen=True)
class _CrossValidation:
    """A cross-validation that is ready to train: one split per fold, and the arguments of `train_run`."""

    config: TrainConfig
    folder: Path
    dataset: LandmarkDataset
    splits: list[Split]
    cache: Path | None
    reporter: Reporter
    progress: Progress | None

    @property
    def folds(self) -> int:
        """Number of folds."""
        return len(self.splits)

    def state(self, done: int) -> dict[str, Any]:
        """Return the content of folds.json: data set, rows by fold, and number of finished folds."""
        rows = [len(split.valid) for split in self.splits]
        return {**describe_dataset(self.dataset), "folds": self.folds, "rows_by_fold": rows, "done": done}

    def write_state(self, done: int) -> None:
        """Write folds.json."""
        write_json(self.folder / FOLDS_NAME, self.state(done))


def cross_validate(
    config: TrainConfig,
    folder: Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CrossValidationResult:
    """Train one model per fold into FOLDER/fold-1, FOLDER/fold-2 …, and evaluate the out-of-fold predictions.

    Also write run.json, config.yaml, folds.json (data set and number of finished folds), oof.csv (the
    predictions, see `write_out_of_fold`) and metrics.json (their scores).

    Parameters
    ----------
    config
        The config; `data.folds` must be set and `data.fold` is ignored.
    folder, cache, reporter, overwrite, progress
        See `train_run`.

    Raises
    ------
    UserError
        See `train_run`; also if there are fewer groups than folds.
    RunError
        See `train_run`.
    """
    check_single_process(TASK, ADVICE)
    check_available(folder, overwrite)
    check_no_live_logger(folder)
    check_config(config)
    with lock_folder(folder):
        plan = _prepare(config, folder, cache=cache, reporter=reporter, progress=progress)
        notes = (*data_notes(plan.dataset), *worker_notes(config.training.workers))
        _check_initial_model(plan)
        with new_run(folder, config, overwrite, plan.reporter.note):
            plan.write_state(0)
            for note in notes:
                plan.reporter.note(note)
            return _train_remaining(plan, 0)


def resume_cross_validation(
    folder: Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    progress: Progress | None = None,
) -> CrossValidationResult:
    """Continue with the first unfinished fold, from its last checkpoint if it has one.

    Parameters
    ----------
    folder
        The folder of the cross-validation.
    cache, reporter, progress
        See `train_run`.

    Raises
    ------
    UserError
        See `resume_run`.
    """
    check_single_process(TASK, ADVICE)
    with lock_folder(folder):
        check_not_restored(folder)
        check_run_folder(folder)
        config = with_available_device(load_config(str(folder / CONFIG_NAME)))
        plan = _prepare(config, folder, cache=cache, reporter=reporter, progress=progress)
        state = read_json_object(folder / FOLDS_NAME)
        done = int(state.get("done", 0))
        if state != plan.state(done):
            raise changed_data_error(folder, config)
        return _train_remaining(plan, done)


def is_cross_validation(folder: Path) -> bool:
    """Return True if the folder contains a cross-validation."""
    return (folder / FOLDS_NAME).is_file()


def _prepare(
    config: TrainConfig,
    folder: Path,
    *,
    cache: Path | None,
    reporter: Reporter | None,
    progress: Progress | None,
) -> _CrossValidation:
    """Load the data and split it into folds."""
    if config.data.folds is None:
        raise UserError("data.folds: unset; a cross-validation needs the number of folds")
    dataset = load_dataset(config.data, seed=config.seed, cache=cache, progress=progress)
    splits = split_into_folds(dataset, config.data.split, config.data.folds, config.seed)
    return _CrossValidation(config, folder, dataset, splits, cache, reporter or SilentReporter(), progress)


def _check_initial_model(plan: _CrossValidation) -> None:
    """Raise UserError if the initial model would be overwritten, or has seen validation rows of a fold."""
    model = open_initial_model(plan.config)
    if model is None:
        return
    if plan.folder.resolve() in model.path.resolve().parents:
        raise UserError(
            f"model.init_from {model.path}: it is in the folder to be overwritten; choose another --out"
        )
    for split in plan.splits:
        check_initial_model(model, plan.config, plan.dataset, split)


def _train_remaining(plan: _CrossValidation, done: int) -> CrossValidationResult:
    """Train the folds after the first `done`, then evaluate the out-of-fold predictions."""
    for number in range(done + 1, plan.folds + 1):
        result = _train_fold(plan, number)
        settle_replacement(plan.folder)
        if result.interrupted:
            return CrossValidationResult(plan.folder, plan.folds, number - 1, result.epochs, None)
        plan.write_state(number)
    return CrossValidationResult(plan.folder, plan.folds, plan.folds, 0, _evaluate_out_of_fold(plan))


def _train_fold(plan: _CrossValidation, number: int) -> TrainResult:
    """Train one fold, or resume it if an interrupted run has written a checkpoint."""
    folder = fold_folder(plan.folder, number)
    if last_checkpoint(folder).is_file():
        return resume_run(folder, cache=plan.cache, reporter=plan.reporter, progress=plan.progress)
    delete_run(folder)  # an interrupted run may have left files but no checkpoint
    return train_run(
        _fold_config(plan.config, plan.folds, number),
        folder,
        cache=plan.cache,
        reporter=plan.reporter,
        labels_checked=True,
        progress=plan.progress,
    )


def _fold_config(config: TrainConfig, folds: int, number: int) -> TrainConfig:
    """Return the config of a fold, which has its share of the time of all."""
    minutes = config.training.minutes
    training = {"minutes": None if minutes is None else minutes / folds}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"fold": number}),
            "training": config.training.model_copy(update=training),
        }
    )


def _evaluate_out_of_fold(plan: _CrossValidation) -> Report:
    """Predict each row with the model of its fold, write the predictions and evaluate them."""
    folds = np.empty(len(plan.dataset), np.int64)
    predicted = []
    for number, split in enumerate(plan.splits, start=1):
        predictor = Predictor.open(fold_folder(plan.folder, number), plan.config.training.device)
        predicted.append(predictor.predict_batch(plan.dataset.images.select(split.valid)))
        folds[split.valid] = number
    by_fold = np.concatenate([split.valid for split in plan.splits])
    landmarks = Landmarks.concatenate(predicted, plan.dataset.schema)[np.argsort(by_fold)]
    write_out_of_fold(plan.folder / OOF_NAME, plan.dataset, OutOfFoldPredictions(folds, landmarks))
    scored = [scored_rows(plan.dataset, split, plan.config.model.two_protocols) for split in plan.splits]
    rows = np.sort(np.concatenate(scored))
    report = evaluate_dataset(landmarks[rows], plan.dataset.subset(rows))
    write_json(plan.folder / METRICS_NAME, {"faces": "out of fold", **report.to_dict()})
    return report
