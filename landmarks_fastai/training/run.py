"""A training run, from the config to the finished run folder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastai.learner import Learner
from fastai.torch_core import set_seed

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.label_checks import check_labels
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import Split, split_from_config, split_notes
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.evaluation.report import Report
from landmarks_fastai.inference.backends import resolve_device
from landmarks_fastai.model_files.run_marker import CONFIG_NAME, DATA_NAME, check_run_folder
from landmarks_fastai.networks.resnet import get_resnet
from landmarks_fastai.training.callbacks import StopOnInterrupt, find_callback
from landmarks_fastai.training.checkpoint import (
    RestoreCheckpoint,
    SaveCheckpoint,
    best_checkpoint,
    fit_from_epoch,
    last_checkpoint,
    read_tensors,
)
from landmarks_fastai.training.ema import ExponentialMovingAverage, evaluated_weights
from landmarks_fastai.training.learner import build_learner
from landmarks_fastai.training.loggers import check_loggers, logging_callbacks
from landmarks_fastai.training.precision import Autocast
from landmarks_fastai.training.reporting import (
    EpochLog,
    Reporter,
    RunSummary,
    SilentReporter,
    WriteHistory,
)
from landmarks_fastai.training.results import write_results
from landmarks_fastai.training.run_folder import (
    HISTORY_NAME,
    check_available,
    describe_data,
    lock_folder,
    start_run_folder,
)
from landmarks_fastai.training.schema_checks import describe_schema
from landmarks_fastai.training.weight_transfer import (
    check_initial_model,
    find_initial_model,
    initialize_learner,
    open_initial_model,
)
from landmarks_fastai.utils.files import read_json, write_json
from landmarks_fastai.utils.interrupt import Interrupt
from landmarks_fastai.utils.progress import Progress

VISIBILITY_NOTE = (
    "some labels are occluded, others visible: the network also predicts visibility (model.visibility=false"
    " switches it off)"
)


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run.

    Parameters
    ----------
    folder
        The run folder.
    report
        Scores of the saved weights on the validation rows.
    interrupted
        Whether Ctrl-C ended the run.
    epochs
        Number of epochs done.
    """

    folder: Path
    report: Report
    interrupted: bool
    epochs: int


@dataclass(frozen=True)
class TrainingRun:
    """A run that is ready to train.

    Parameters
    ----------
    config, folder
        The config, and the run folder.
    dataset, split
        The data set, and its training and validation rows.
    learner
        The learner, with initial weights.
    notes
        See `data_notes`.
    """

    config: TrainConfig
    folder: Path
    dataset: LandmarkDataset
    split: Split
    learner: Learner
    notes: tuple[str, ...] = ()


def train_run(
    config: TrainConfig,
    folder: Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    overwrite: bool = False,
    labels_checked: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a model and write it, its scores and its checkpoints to a new run folder.

    Parameters
    ----------
    config
        The config.
    folder
        The run folder; created if needed.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    reporter
        Receives the progress of training; if None, nothing is reported.
    overwrite
        Allow `folder` to contain an earlier run, which is deleted when the new one is ready to train.
    labels_checked
        Do not check the labels, because a cross-validation has already done it for all folds.
    progress
        Called with the bytes of a download, done and in total.

    Returns
    -------
    TrainResult
        The result, also if Ctrl-C ended the run.

    Raises
    ------
    UserError
        If the folder is not empty or is in use, or the config or the data set is invalid.
    RunError
        If a file cannot be written or downloaded.
    """
    if config.data.folds is not None and config.data.fold is None:
        raise UserError("data.folds: a single run trains one fold; set data.fold, or use cross_validate")
    reporter = reporter or SilentReporter()
    check_available(folder, overwrite)
    check_config(config)
    with lock_folder(folder):
        run = prepare_run(config, folder, cache=cache, report_labels=not labels_checked, progress=progress)
        warning = _initialize_weights(run)
        start_run_folder(folder, config)
        write_json(folder / DATA_NAME, describe_data(run.dataset, run.split))
        reporter.start(summarize_run(run))
        about_schema = [] if labels_checked else describe_schema(run.dataset.schema, config.augment)
        for line in (*about_schema, *run.notes):
            reporter.note(line)
        if run.learner.header["head"].get("visibility"):
            reporter.note(VISIBILITY_NOTE)
        if warning is not None:
            reporter.note(warning)
        return _train(run, reporter)


def resume_run(
    folder: Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Continue an interrupted run from its last checkpoint; the result is that of an uninterrupted run.

    Parameters
    ----------
    folder
        The run folder.
    cache, reporter, progress
        See `train_run`.

    Raises
    ------
    UserError
        If there is no run in `folder`, it was written by another version, it is in use, or its data set has
        changed.
    """
    reporter = reporter or SilentReporter()
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"{folder}: no run to resume ({CONFIG_NAME} is missing)")
    check_run_folder(folder)
    with lock_folder(folder):
        config = load_config(str(folder / CONFIG_NAME))
        checkpoint = read_tensors(last_checkpoint(folder))
        run = prepare_run(config, folder, cache=cache, progress=progress)
        if read_json(folder / DATA_NAME) != describe_data(run.dataset, run.split):
            raise changed_data_error(folder, config)
        reporter.start(summarize_run(run, checkpoint["epoch"]))
        return _train(run, reporter, checkpoint)


def check_config(config: TrainConfig) -> None:
    """Check the options that do not depend on data, before a download that may take minutes.

    Raises
    ------
    UserError
        If there is no such architecture, device or initial model, or a logger is not installed.
    """
    try:
        get_resnet(config.model.arch)
    except UserError as error:
        raise UserError(f"model.arch: {error}") from error
    resolve_device(config.training.device)
    check_loggers(config)
    if config.model.init_from is not None:
        find_initial_model(config.model.init_from)


def prepare_run(
    config: TrainConfig,
    folder: Path,
    *,
    cache: Path | None = None,
    report_labels: bool = False,
    progress: Progress | None = None,
) -> TrainingRun:
    """Seed all random number generators, then load and split the data set and build the learner.

    With `report_labels`, check the labels before the data set is split, which takes longer.
    """
    set_seed(config.seed, reproducible=True)
    dataset = load_dataset(config.data, seed=config.seed, cache=cache, progress=progress)
    notes = (*data_notes(dataset), *split_notes(dataset, config.data)) if report_labels else ()
    split = split_from_config(dataset, config.data, config.seed)
    learner = build_learner(config, dataset, split, folder)
    return TrainingRun(config, folder, dataset, split, learner, notes)


def data_notes(dataset: LandmarkDataset) -> tuple[str, ...]:
    """Check the labels of a data set.

    Returns
    -------
    tuple[str, ...]
        What was left out or assumed while reading, and one line for each kind of problem of the labels.

    Raises
    ------
    UserError
        If the coordinates are normalized; see `check_labels`.
    """
    checks = check_labels(dataset)
    notes = [*dataset.notes, *(note for note in checks.notes if note not in dataset.notes)]
    if checks.issues:
        notes.append(f"`data --data {dataset.source}` lists the suspicious labels, the most suspicious first")
    return tuple(notes)


def summarize_run(run: TrainingRun, epochs_done: int = 0) -> RunSummary:
    """Return the summary of a run for its reporter."""
    config, learn = run.config, run.learner
    autocast = find_callback(learn, Autocast)
    return RunSummary(
        folder=run.folder,
        source=run.dataset.source,
        rows=len(run.dataset),
        landmarks=len(run.dataset.schema),
        train_rows=len(run.split.train),
        valid_rows=len(run.split.valid),
        split=run.split.kind,
        groups=len(np.unique(run.split.groups)),
        fold=config.data.fold,
        folds=config.data.folds,
        arch=config.model.arch,
        head=config.model.head.name,
        input_size=config.model.input_size,
        channels=learn.header["channels"],
        parameters=sum(parameter.numel() for parameter in learn.model.parameters()),
        init_from=config.model.init_from,
        device=str(learn.dls.device),
        precision="float32" if autocast is None else str(autocast.dtype).removeprefix("torch."),
        epochs=config.training.epochs,
        epochs_done=epochs_done,
        batch_size=learn.dls.train.bs,
    )


def changed_data_error(folder: Path, config: TrainConfig) -> UserError:
    """Return the error for a run folder whose data set has changed since the run began."""
    return UserError(
        f"{folder}: {config.data.source} has changed since this run began; restore the data, or train again"
    )


def _initialize_weights(run: TrainingRun) -> str | None:
    """Apply `model.init_from`; return a warning if this may make the validation scores too optimistic."""
    model = open_initial_model(run.config)
    if model is None:
        return None
    warning = check_initial_model(model, run.config, run.dataset, run.split)
    initialize_learner(run.learner, model, run.dataset)
    return warning


def _train(run: TrainingRun, reporter: Reporter, checkpoint: dict[str, Any] | None = None) -> TrainResult:
    """Fit, from a checkpoint if there is one, then evaluate and save the best weights."""
    learn, log, interrupt = run.learner, EpochLog(reporter), Interrupt()
    callbacks = [
        log,
        WriteHistory(log, run.folder / HISTORY_NAME),
        SaveCheckpoint(run.folder, run.config.training.checkpoint_every),
        StopOnInterrupt(interrupt),
        *logging_callbacks(run.config, run.folder),
    ]
    remaining: AbstractContextManager[None] = nullcontext()
    if checkpoint is not None:
        callbacks.append(RestoreCheckpoint(checkpoint))
        remaining = fit_from_epoch(learn, checkpoint["epoch"])
    try:
        with remaining, learn.no_logging(), interrupt:
            learn.fit(run.config.training.epochs, cbs=callbacks)
    except LandmarksError as error:  # fastai has prepended the name of the callback to the message
        raise type(error)(str(error).rpartition(":\n\t")[2]) from error
    _load_best_weights(run)
    report = write_results(learn, run.dataset, run.split, run.folder, log.rows)
    return TrainResult(run.folder, report, interrupt.requested, len(log.rows))


def _load_best_weights(run: TrainingRun) -> None:
    """Load the weights with the lowest validation loss; the current ones if no epoch was completed."""
    learn, best = run.learner, best_checkpoint(run.folder)
    learn.model.load_state_dict(read_tensors(best)["weights"] if best.is_file() else evaluated_weights(learn))
    # evaluate with these weights, not the EMA of the last epoch, and in float32 like inference
    learn.remove_cbs([ExponentialMovingAverage, Autocast])
