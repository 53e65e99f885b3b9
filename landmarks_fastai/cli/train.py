"""The command `train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from landmarks_fastai.cli.options import (
    DEFAULT_CONFIG,
    RUNS,
    ConfigOption,
    CorrectionsOption,
    DataOption,
    FormatOption,
    OverwriteOption,
    SchemaOption,
    SeedOption,
    SetOption,
    SkipBadOption,
)
from landmarks_fastai.cli.processes import first_process_prints
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.stopwatch import Stopwatch

if TYPE_CHECKING:
    from landmarks_fastai.config.options import TrainConfig
    from landmarks_fastai.training.cross_validation import CrossValidationResult
    from landmarks_fastai.training.run import TrainResult

REDUCED_ROWS = 200
"""Number of rows that --reduce-data keeps."""


@first_process_prints()
def train(
    config_name: ConfigOption = DEFAULT_CONFIG,
    arch: Annotated[
        Optional[str], typer.Option("--arch", help="torchvision ResNet: resnet18, resnet34, resnet50 …")
    ] = None,
    epochs: Annotated[
        Optional[int], typer.Option("--epochs", help="Number of epochs; replaces a time limit.")
    ] = None,
    minutes: Annotated[
        Optional[float],
        typer.Option(
            "--minutes", help="Time for the whole run, to which schedule and number of epochs are fitted."
        ),
    ] = None,
    batch_size: Annotated[
        Optional[int], typer.Option("--batch-size", help="Number of rows per iteration.")
    ] = None,
    lr: Annotated[
        Optional[float], typer.Option("--lr", help="Maximum learning rate of the schedule.")
    ] = None,
    seed: SeedOption = None,
    init_from: Annotated[
        Optional[str],
        typer.Option(
            "--init-from",
            help="Initialize from the weights of another model: run folder, .safetensors file or released"
            " model (resnet18).",
            metavar="MODEL",
        ),
    ] = None,
    data: DataOption = None,
    label_format: FormatOption = None,
    skip_bad: SkipBadOption = False,
    schema: SchemaOption = None,
    corrections: CorrectionsOption = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", help="Run folder. Default: runs/CONFIG, with a number if it exists.", metavar="FOLDER"
        ),
    ] = None,
    device: Annotated[Optional[str], typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    workers: Annotated[
        Optional[int], typer.Option("--workers", help="Number of data loading processes.")
    ] = None,
    reduce_data: Annotated[
        bool, typer.Option("--reduce-data", help=f"Use only {REDUCED_ROWS} rows, for a quick test.")
    ] = False,
    folds: Annotated[
        Optional[int],
        typer.Option("--folds", help="Cross-validate with this number of folds, one model per fold."),
    ] = None,
    settings: SetOption = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[
        Optional[Path],
        typer.Option(
            "--resume",
            help="Resume an interrupted run from its last checkpoint. Cannot be combined with other options.",
            metavar="RUN",
        ),
    ] = None,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr", help="Instead of training, run the learning rate finder and save its plot."
        ),
    ] = False,
) -> None:
    """Train a model and write its run folder.

    For example:

      landmarks-fastai train

      landmarks-fastai train --config quick --data synthetic

      landmarks-fastai train --arch resnet34 --epochs 30 --lr 0.002

      landmarks-fastai train --minutes 20

      landmarks-fastai train --data my_landmarks.csv --init-from resnet18

      landmarks-fastai train --folds 5 --out runs/folds

      landmarks-fastai train --resume runs/default
    """
    stopwatch = Stopwatch()
    if minutes is not None and epochs is not None:
        raise UserError("--minutes and --epochs are mutually exclusive; remove one of them")
    options = {
        "model.arch": arch,
        "model.init_from": init_from,
        "training.epochs": epochs,
        "training.minutes": minutes,
        "training.batch_size": batch_size,
        "training.schedule.max_lr": lr,
        "seed": seed,
        "data.source": data,
        "data.landmark_schema": schema,
        "data.format": label_format,
        "data.skip_bad": skip_bad or None,
        "data.corrections": None if corrections is None else str(corrections),
        "data.limit": REDUCED_ROWS if reduce_data else None,
        "data.folds": folds,
        "training.device": device,
        "training.workers": workers,
    }
    overrides: dict[str, object] = {key: value for key, value in options.items() if value is not None}
    if epochs is not None:
        overrides["training.minutes"] = None  # of a config with a time limit
    if resume is not None:
        if any((overrides, settings, out, overwrite, find_lr, config_name != DEFAULT_CONFIG)):
            raise UserError("--resume uses the config of the run and takes no other option")
        _resume(resume, stopwatch)
        return
    from landmarks_fastai.config.loading import load_config

    config = load_config(config_name, overrides, settings or [])
    name = Path(config_name).stem
    if find_lr:
        _find_lr(config, out, name)
    else:
        _train(config, out, name, overwrite, stopwatch)


def _train(config: TrainConfig, out: Path | None, name: str, overwrite: bool, stopwatch: Stopwatch) -> None:
    """Train and print the result."""
    from landmarks_fastai.cli.progress import TrainingProgress, data_progress
    from landmarks_fastai.commands import train as command

    folder = out or command.default_run_folder(RUNS, name)
    with _resume_hint(folder, resumes=False), data_progress() as progress, TrainingProgress() as reporter:
        result = command.train(
            config, folder, reporter=reporter, overwrite=overwrite, progress=progress, stopwatch=stopwatch
        )
    _print_result(result)


def _resume(run: Path, stopwatch: Stopwatch) -> None:
    """Resume an interrupted run and print the result."""
    from landmarks_fastai.cli.progress import TrainingProgress, data_progress
    from landmarks_fastai.commands import train as command

    with _resume_hint(run, resumes=True), data_progress() as progress, TrainingProgress() as reporter:
        result = command.resume(run, reporter=reporter, progress=progress, stopwatch=stopwatch)
    _print_result(result)


def _print_result(result: TrainResult | CrossValidationResult) -> None:
    """Print the result; exit with code 1 if Ctrl-C or SIGTERM ended the run."""
    from landmarks_fastai.cli.results import print_result

    print_result(result)
    if result.interrupted:
        raise typer.Exit(1)


@contextmanager
def _resume_hint(folder: Path, resumes: bool) -> Iterator[None]:
    """Print how to resume if a KeyboardInterrupt ends the block, which an orderly end of training is not.

    If the block neither `resumes` a run nor has begun one, nothing is printed: a run in the folder is an
    earlier one.
    """
    from landmarks_fastai.cli.results import print_resume
    from landmarks_fastai.model_files.run_marker import RUN_FILE

    marker = folder / RUN_FILE
    before = marker.stat().st_mtime_ns if marker.is_file() else None
    try:
        yield
    except KeyboardInterrupt:
        if resumes or (marker.is_file() and marker.stat().st_mtime_ns != before):
            print_resume(folder)
        raise


def _find_lr(config: TrainConfig, out: Path | None, name: str) -> None:
    """Run the learning rate finder and print its suggestion."""
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.commands.train import default_run_folder
    from landmarks_fastai.training.lr_finder import find_lr

    folder = out or default_run_folder(RUNS, f"{name}-lr")
    with data_progress() as progress:
        suggestion, plot = find_lr(config, folder, progress=progress)
    typer.echo(f"suggested: --lr {suggestion:.2g}   plot: {plot}")
