"""A training run, from the config to the finished run folder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastai.callback.core import Callback

from landmarks_fastai.config.loading import dump_config, load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import LandmarksError, UserError, WriteError
from landmarks_fastai.evaluation.report import Report
from landmarks_fastai.model_files.run_marker import CONFIG_NAME, DATA_NAME, check_run_folder
from landmarks_fastai.training.callbacks import FailOnDivergence, StopOnInterrupt
from landmarks_fastai.training.checkpoint import (
    RestoreCheckpoint,
    SaveCheckpoint,
    fit_from_epoch,
    is_stopped,
    place_of,
    read_tensors,
)
from landmarks_fastai.training.compilation import new_compilation
from landmarks_fastai.training.dataloaders import protocol_notes, worker_notes
from landmarks_fastai.training.distributed import (
    Processes,
    is_lost_connection,
    join_processes,
    lost_process,
)
from landmarks_fastai.training.ema import ExponentialMovingAverage, evaluated_weights
from landmarks_fastai.training.loggers import check_no_live_logger, open_loggers
from landmarks_fastai.training.parallel import TrainInParallel, prepare_parallel
from landmarks_fastai.training.precision import Autocast
from landmarks_fastai.training.preparation import TrainingRun, check_config, initialize_weights, prepare_run
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
from landmarks_fastai.training.threads import ChooseThreads, keep_threads
from landmarks_fastai.training.time_budget import new_time_budget
from landmarks_fastai.utils.files import write_json, write_text
from landmarks_fastai.utils.interrupt import Interrupt
from landmarks_fastai.utils.json_reader import read_json_object
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.stopwatch import Stopwatch

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


def train_run(
    config: TrainConfig,
    folder: Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    overwrite: bool = False,
    labels_checked: bool = False,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> TrainResult:
    """Train a model and write it, its scores and its checkpoints to a new run folder.

    Several processes that torchrun has started train it together, and the first of them writes and reports.

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
    stopwatch
        Runs since the beginning of the time that `training.minutes` limits; if None, that is now.

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
    stopwatch = stopwatch or Stopwatch()
    if config.data.folds is not None and config.data.fold is None:
        raise UserError("data.folds: a single run trains one fold; set data.fold, or use cross_validate")
    with join_processes() as processes:
        if not processes.is_main:
            return _train_beside_main(config, folder, processes, cache)
        reporter = reporter or SilentReporter()
        check_available(folder, overwrite)
        check_no_live_logger(folder)
        check_config(config)
        with lock_folder(folder):
            run = prepare_run(
                config,
                folder,
                cache=cache,
                report_labels=not labels_checked,
                progress=progress,
                processes=processes,
            )
            warning = initialize_weights(run)
            about_schema = [] if labels_checked else describe_schema(run.dataset.schema, config.augment)
            visibility = [VISIBILITY_NOTE] if run.learner.header["head"].get("visibility") else []
            protocols = protocol_notes(run.dataset, run.split, config.model.two_protocols)
            with new_run(folder, config, overwrite, reporter.note):
                write_json(folder / DATA_NAME, describe_data(run.dataset, run.split))
                reporter.start(summarize_run(run))
                warnings = [] if warning is None else [warning]
                for line in (*about_schema, *run.notes, *visibility, *protocols, *warnings):
                    reporter.note(line)
                return _train(run, reporter, stopwatch)


def _train_beside_main(
    config: TrainConfig, folder: Path, processes: Processes, cache: Path | None
) -> TrainResult:
    """Train in a process that neither writes nor reports."""
    run = prepare_run(config, folder, cache=cache, processes=processes)
    initialize_weights(run)
    return _train(run, SilentReporter(), Stopwatch())


def resume_run(
    folder: Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> TrainResult:
    """Continue an interrupted run from its last checkpoint; the result is that of an uninterrupted run.

    A run whose device does not exist on this machine continues on another one, see `with_available_device`.

    Parameters
    ----------
    folder
        The run folder.
    cache, reporter, progress, stopwatch
        See `train_run`. A time budget continues with what the interrupted run had spent at the checkpoint.

    Raises
    ------
    UserError
        If there is no run in `folder`, it was written by another version, it is in use, or its data set has
        changed.
    """
    stopwatch = stopwatch or Stopwatch()
    with join_processes() as processes:
        if not processes.is_main:
            config, checkpoint = processes.from_main(lambda: _read_run(folder))
            run = prepare_run(with_available_device(config), folder, cache=cache, processes=processes)
            return _train(run, SilentReporter(), stopwatch, checkpoint)
        reporter = reporter or SilentReporter()
        if not ((folder / CONFIG_NAME).is_file() or has_earlier_run(folder)):
            raise UserError(f"{folder}: no run to resume ({CONFIG_NAME} is missing)")
        with lock_folder(folder):
            config, checkpoint = processes.from_main(lambda: _read_run(folder))
            config = with_available_device(config)
            run = prepare_run(config, folder, cache=cache, progress=progress, processes=processes)
            if read_json_object(folder / DATA_NAME) != describe_data(run.dataset, run.split):
                raise changed_data_error(folder, config)
            reporter.start(summarize_run(run, checkpoint["epoch"]))
            for line in (*worker_notes(config.training.workers), *_place_notes(run, checkpoint)):
                reporter.note(line)
            return _train(run, reporter, stopwatch, checkpoint)


def _read_run(folder: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the config and the last checkpoint of an interrupted run."""
    check_not_restored(folder)
    check_run_folder(folder)
    return load_config(str(folder / CONFIG_NAME)), read_tensors(last_checkpoint(folder))


def _place_notes(run: TrainingRun, checkpoint: dict[str, Any]) -> tuple[str, ...]:
    """Return in one line that a run continues at another place than it began, which changes its result."""
    before, now = checkpoint.get("place"), place_of(run.learner, run.processes)
    if before in (None, now):
        return ()
    return (
        f"the run began on {before} and continues on {now}: its result differs slightly from that of an"
        " uninterrupted run",
    )


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
        minutes=config.training.minutes,
        batch_size=learn.dls.train.bs,
        processes=run.processes.count,
    )


def _train(
    run: TrainingRun, reporter: Reporter, stopwatch: Stopwatch, checkpoint: dict[str, Any] | None = None
) -> TrainResult:
    """Fit, from a checkpoint if there is one, then evaluate and save the best weights."""
    log, callbacks = EpochLog(reporter), _optional_callbacks(run, reporter, stopwatch, checkpoint is not None)
    loggers: AbstractContextManager[list[Callback]] = nullcontext([])
    if run.processes.is_main:
        loggers = open_loggers(run.config, run.folder)
    try:
        with loggers as opened:
            interrupted = _fit(run, log, [*callbacks, *opened], checkpoint)
        folder, report = run.processes.from_main(lambda: _finish(run, log))
    except WriteError as error:
        raise WriteError(error.path, error.reason, _advice(run.folder)) from error
    except RuntimeError as error:
        if run.processes.are_several and is_lost_connection(error):
            raise lost_process(_advice_to_go_on(run.folder)) from error
        raise
    return TrainResult(folder, report, interrupted, len(log.rows))


def _optional_callbacks(
    run: TrainingRun, reporter: Reporter, stopwatch: Stopwatch, resumed: bool
) -> list[Callback]:
    """Return the callbacks for a limited time and for compilation, if the config asks for them."""
    options = run.config.training
    callbacks: list[Callback] = []
    if options.minutes is not None:
        callbacks.append(new_time_budget(options.minutes, run.learner, stopwatch, reporter.note, resumed))
    if options.compile:
        callbacks.append(new_compilation(reporter.note))
    return callbacks


def _finish(run: TrainingRun, log: EpochLog) -> tuple[Path, Report]:
    """Evaluate and save the best weights; return the run folder and the scores."""
    if not log.rows and has_earlier_run(run.folder):
        raise KeyboardInterrupt
    if run.config.training.minutes is not None and log.rows:
        _record_epochs(run, len(log.rows))
    _load_best_weights(run)
    return run.folder, write_results(run.learner, run.dataset, run.split, run.folder, log.rows)


def _record_epochs(run: TrainingRun, epochs: int) -> None:
    """Write to the config of a run with a time budget how many epochs it has had."""
    training = run.config.training.model_copy(update={"epochs": epochs})
    config = run.config.model_copy(update={"training": training})
    write_text(run.folder / CONFIG_NAME, dump_config(config))
    run.learner.header = {**run.learner.header, "config": config.model_dump()}


def _fit(
    run: TrainingRun,
    log: EpochLog,
    more_callbacks: list[Callback],
    checkpoint: dict[str, Any] | None,
) -> bool:
    """Fit, from a checkpoint if there is one, until the last epoch, early stopping or an interrupt.

    Returns
    -------
    bool
        Whether an interrupt ended the fit.
    """
    learn, options, processes = run.learner, run.config.training, run.processes
    interrupt = stop = Interrupt()
    callbacks = [
        log,
        FailOnDivergence(log),
        SaveCheckpoint(run.folder, options.checkpoint_every, processes),
        *more_callbacks,
    ]
    if processes.is_main:
        callbacks.append(WriteHistory(log, run.folder / HISTORY_NAME))
    if processes.are_several:
        prepare_parallel(learn, processes, run.config.seed)
        parallel = TrainInParallel(processes, interrupt)
        callbacks.append(parallel)
        stop = parallel.agreed
    callbacks.append(StopOnInterrupt(stop))
    if learn.dls.device.type == "cpu":
        # torch recompiles the network for each number of threads, so other numbers are not tried
        callbacks.append(ChooseThreads(options.threads, log.reporter.note, chooses=not options.compile))
    start = 0 if checkpoint is None else checkpoint["epoch"]
    epochs = options.epochs if options.minutes is None else start + 1  # the time budget finds out how many
    if checkpoint is not None:
        callbacks.append(RestoreCheckpoint(checkpoint, processes.rank))
        if is_stopped(checkpoint, options.patience):
            start = epochs
    try:
        with fit_from_epoch(learn, start), learn.no_logging(), keep_threads(), interrupt:
            learn.fit(epochs, cbs=callbacks)
    except WriteError:
        raise
    except LandmarksError as error:  # fastai has prepended the name of the callback to the message
        raise type(error)(str(error).rpartition(":\n\t")[2]) from error
    except RuntimeError:
        # SIGTERM to all processes of a job also ends those that load data
        if processes.are_several or not interrupt.requested:
            raise
    return stop.requested


def _advice(folder: Path) -> str:
    """Return what to do after a file of the run could not be written."""
    free = "free some space or make the folder writable"
    return f"{free}, then {_advice_to_go_on(folder)}"


def _advice_to_go_on(folder: Path) -> str:
    """Return how to go on with a run that has failed."""
    if last_checkpoint(folder).is_file() and not has_earlier_run(folder):
        return f"go on with: train --resume {folder}"
    return "train again"


def _load_best_weights(run: TrainingRun) -> None:
    """Load the weights with the lowest validation loss; the current ones if no epoch was completed."""
    learn, best = run.learner, best_checkpoint(run.folder)
    learn.model.load_state_dict(read_tensors(best)["weights"] if best.is_file() else evaluated_weights(learn))
    # evaluate with these weights, not the EMA of the last epoch, and in float32 like inference
    learn.remove_cbs([ExponentialMovingAverage, Autocast])
