"""A training run, from the config to the finished run folder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import set_seed

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.label_checks import check_labels
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import Split, split_from_config, split_notes
from landmarks_fastai.errors import LandmarksError, UserError, WriteError
from landmarks_fastai.evaluation.report import Report
from landmarks_fastai.inference.backends import resolve_device
from landmarks_fastai.model_files.run_marker import CONFIG_NAME, DATA_NAME, check_run_folder
from landmarks_fastai.networks.resnet import get_resnet
from landmarks_fastai.training.callbacks import FailOnDivergence, StopOnInterrupt
from landmarks_fastai.training.checkpoint import (
    RestoreCheckpoint,
    SaveCheckpoint,
    fit_from_epoch,
    is_stopped,
    place_of,
    read_tensors,
)
from landmarks_fastai.training.dataloaders import protocol_notes, worker_notes
from landmarks_fastai.training.ema import ExponentialMovingAverage, evaluated_weights
from landmarks_fastai.training.learner import build_learner
from landmarks_fastai.training.loggers import check_loggers, check_no_live_logger, open_loggers
from landmarks_fastai.training.precision import Autocast
from landmarks_fastai.training.reporting import (
    EpochLog,
    Reporter,
    RunSummary,
    SilentReporter,
    WriteHistory,
)
from landmarks_fastai.training.results import write_results
from landmarks_fastai.training.resuming import changed_data_error, check_not_restored, with_available_device
from landmarks_fastai.training.run_folder import (
    HISTORY_NAME,
    best_checkpoint,
    check_available,
    describe_data,
    last_checkpoint,
    lock_folder,
)
from landmarks_fastai.training.run_replacement import has_earlier_run, new_run
from landmarks_fastai.training.schema_checks import describe_schema
from landmarks_fastai.training.weight_transfer import (
    check_initial_model,
    find_initial_model,
    initialize_learner,
    open_initial_model,
)
from landmarks_fastai.utils.files import write_json
from landmarks_fastai.utils.interrupt import Interrupt
from landmarks_fastai.utils.json_reader import read_json_object
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
        Whether Ctrl-C or SIGTERM ended the run.
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
        Allow `folder` to contain an earlier run. It is deleted when the new one has a checkpoint, and kept if
        the new one fails or is interrupted before.
    labels_checked
        Do not check the labels, because a cross-validation has already done it for all folds.
    progress
        Called with the bytes of a download, done and in total.

    Returns
    -------
    TrainResult
        The result, also if Ctrl-C or SIGTERM ended the run.

    Raises
    ------
    UserError
        If the folder is not empty or is in use, or the config or the data set is invalid.
    RunError
        If a file cannot be written or downloaded, or the loss becomes NaN or infinite.
    """
    if config.data.folds is not None and config.data.fold is None:
        raise UserError("data.folds: a single run trains one fold; set data.fold, or use cross_validate")
    reporter = reporter or SilentReporter()
    check_available(folder, overwrite)
    check_no_live_logger(folder)
    check_config(config)
    with lock_folder(folder):
        run = prepare_run(config, folder, cache=cache, report_labels=not labels_checked, progress=progress)
        warning = _initialize_weights(run)
        about_schema = [] if labels_checked else describe_schema(run.dataset.schema, config.augment)
        visibility = [VISIBILITY_NOTE] if run.learner.header["head"].get("visibility") else []
        protocols = protocol_notes(run.dataset, run.split, config.model.two_protocols)
        with new_run(folder, config, overwrite, reporter.note):
            write_json(folder / DATA_NAME, describe_data(run.dataset, run.split))
            reporter.start(summarize_run(run))
            warnings = [] if warning is None else [warning]
            for line in (*about_schema, *run.notes, *visibility, *protocols, *warnings):
                reporter.note(line)
            return _train(run, reporter)


def resume_run(
    folder: Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Continue an interrupted run from its last checkpoint; the result is that of an uninterrupted run.

    A run whose device does not exist on this machine continues on another one, see `with_available_device`.

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
    if not ((folder / CONFIG_NAME).is_file() or has_earlier_run(folder)):
        raise UserError(f"{folder}: no run to resume ({CONFIG_NAME} is missing)")
    with lock_folder(folder):
        check_not_restored(folder)
        check_run_folder(folder)
        config = with_available_device(load_config(str(folder / CONFIG_NAME)))
        checkpoint = read_tensors(last_checkpoint(folder))
        run = prepare_run(config, folder, cache=cache, progress=progress)
        if read_json_object(folder / DATA_NAME) != describe_data(run.dataset, run.split):
            raise changed_data_error(folder, config)
        reporter.start(summarize_run(run, checkpoint["epoch"]))
        for line in worker_notes(config.training.workers):
            reporter.note(line)
        before, now = checkpoint.get("place"), place_of(run.learner)
        if before not in (None, now):
            reporter.note(
                f"the run began on {before} and continues on {now}: its result differs slightly from that of"
                " an uninterrupted run"
            )
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
    workers = worker_notes(config.training.workers)
    notes = (*data_notes(dataset), *split_notes(dataset, config.data), *workers) if report_labels else ()
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
    device, precision = place_of(learn).split(", ")
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
        device=device,
        precision=precision,
        epochs=config.training.epochs,
        epochs_done=epochs_done,
        batch_size=learn.dls.train.bs,
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
    log, interrupt = EpochLog(reporter), Interrupt()
    try:
        with open_loggers(run.config, run.folder) as loggers:
            _fit(run, log, interrupt, loggers, checkpoint)
        if not log.rows and has_earlier_run(run.folder):
            raise KeyboardInterrupt
        _load_best_weights(run)
        report = write_results(run.learner, run.dataset, run.split, run.folder, log.rows)
    except WriteError as error:
        raise WriteError(error.path, error.reason, _advice(run.folder)) from error
    return TrainResult(run.folder, report, interrupt.requested, len(log.rows))


def _fit(
    run: TrainingRun,
    log: EpochLog,
    interrupt: Interrupt,
    loggers: list[Callback],
    checkpoint: dict[str, Any] | None,
) -> None:
    """Fit, from a checkpoint if there is one, until the last epoch, early stopping or an interrupt."""
    learn, options = run.learner, run.config.training
    callbacks = [
        log,
        FailOnDivergence(log),
        WriteHistory(log, run.folder / HISTORY_NAME),
        SaveCheckpoint(run.folder, options.checkpoint_every),
        StopOnInterrupt(interrupt),
        *loggers,
    ]
    remaining: AbstractContextManager[None] = nullcontext()
    if checkpoint is not None:
        callbacks.append(RestoreCheckpoint(checkpoint))
        start = options.epochs if is_stopped(checkpoint, options.patience) else checkpoint["epoch"]
        remaining = fit_from_epoch(learn, start)
    try:
        with remaining, learn.no_logging(), interrupt:
            learn.fit(options.epochs, cbs=callbacks)
    except WriteError:
        raise
    except LandmarksError as error:  # fastai has prepended the name of the callback to the message
        raise type(error)(str(error).rpartition(":\n\t")[2]) from error
    except RuntimeError:
        if not interrupt.requested:  # SIGTERM to all processes of a job also ends those that load data
            raise


def _advice(folder: Path) -> str:
    """Return what to do after a file of the run could not be written."""
    free = "free some space or make the folder writable"
    if last_checkpoint(folder).is_file() and not has_earlier_run(folder):
        return f"{free}, then go on with: train --resume {folder}"
    return f"{free}, then train again"


def _load_best_weights(run: TrainingRun) -> None:
    """Load the weights with the lowest validation loss; the current ones if no epoch was completed."""
    learn, best = run.learner, best_checkpoint(run.folder)
    learn.model.load_state_dict(read_tensors(best)["weights"] if best.is_file() else evaluated_weights(learn))
    # evaluate with these weights, not the EMA of the last epoch, and in float32 like inference
    learn.remove_cbs([ExponentialMovingAverage, Autocast])
