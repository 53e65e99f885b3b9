"""Train one model, or cross-validate, and resume either."""

from __future__ import annotations

from pathlib import Path

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.training.cross_validation import (
    CrossValidationResult,
    cross_validate,
    is_cross_validation,
    resume_cross_validation,
)
from landmarks_fastai.training.reporting import Reporter
from landmarks_fastai.training.run import TrainResult, resume_run, train_run
from landmarks_fastai.training.run_folder import next_run_folder
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.stopwatch import Stopwatch


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> TrainResult | CrossValidationResult:
    """Train a model, or with `data.folds` (and no `data.fold`) one model for each fold.

    Parameters
    ----------
    config
        The config, as `load_config` returns it.
    out
        The run folder to write.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    reporter
        Receives the summary of the run, every iteration and every epoch. None: no output.
    overwrite
        Replace an existing run in `out`.
    progress
        Called with the bytes of a download, done and in total.
    stopwatch
        Runs since the beginning of the time that `training.minutes` limits; if None, that is now. In a
        cross-validation, every fold has its share of the time.

    Raises
    ------
    UserError
        If the folder exists or is in use, or the config or the data cannot be used.
    RunError
        If a download fails or the folder cannot be written.
    """
    all_folds = config.data.folds is not None and config.data.fold is None
    folder = Path(out)
    if all_folds:
        return cross_validate(
            config, folder, cache=cache, reporter=reporter, overwrite=overwrite, progress=progress
        )
    return train_run(
        config,
        folder,
        cache=cache,
        reporter=reporter,
        overwrite=overwrite,
        progress=progress,
        stopwatch=stopwatch,
    )


def resume(
    run: str | Path,
    *,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> TrainResult | CrossValidationResult:
    """Resume an interrupted run or cross-validation from its last checkpoint; see `train`.

    Parameters
    ----------
    run
        Run folder, or folder of the cross-validation.
    cache, reporter, progress, stopwatch
        See `train`.

    Raises
    ------
    UserError
        If there is no run, it is in use, it was written by another version, or its data has changed.
    """
    folder = Path(run)
    if is_cross_validation(folder):
        return resume_cross_validation(folder, cache=cache, reporter=reporter, progress=progress)
    return resume_run(folder, cache=cache, reporter=reporter, progress=progress, stopwatch=stopwatch)


def default_run_folder(runs: Path, name: str) -> Path:
    """Return the run folder used when none is named: RUNS/NAME, or RUNS/NAME-2, … if that exists."""
    return next_run_folder(runs, name)
