"""The result of `train`: metrics, the files of the run and the commands to run next."""

from __future__ import annotations

from pathlib import Path

import typer

from landmarks_fastai.cli.tables import print_report
from landmarks_fastai.training.cross_validation import CrossValidationResult, is_cross_validation
from landmarks_fastai.training.run import TrainResult
from landmarks_fastai.training.run_folder import last_checkpoint
from landmarks_fastai.utils.text import format_count

RUN_FILES = {
    "model.safetensors": "the model, for evaluate, predict, video, live, web and export",
    "model.onnx": "the same for ONNX Runtime",
    "model.pkl": "the fastai learner",
    "README.md": "model card",
    "metrics.json": "scores on the validation rows",
    "history.csv": "losses and metrics of each epoch",
    "curves.png": "the same as a plot",
    "samples.png": "predictions on validation rows",
    "config.yaml": "the config with all defaults",
    "data.json": "source, digest and split of the data",
}
"""Files of a run folder that are listed, with their content."""

FOLD_FILES = {
    "oof.csv": "out-of-fold predictions of all rows",
    "metrics.json": "their scores",
    "config.yaml": "the config with all defaults",
}
"""Files of a cross-validation that are listed, with their content."""

COMMAND = "landmarks-fastai"


def print_result(result: TrainResult | CrossValidationResult) -> None:
    """Print the result of a run or of a cross-validation."""
    typer.echo()
    if isinstance(result, TrainResult):
        _print_run(result)
    elif result.report is None:
        fold = f"fold {result.done + 1} of {result.folds}"
        epochs = format_count(result.epochs, "completed epoch")
        typer.echo(f"interrupted after {epochs} of {fold}")
        print_resume(result.folder, resumable=True)
    else:
        typer.echo("out-of-fold scores: every row is predicted by a model that was not trained on it")
        print_report(result.report)
        folds = {f"fold-1 … fold-{result.folds}": "the run folder of each fold"}
        _print_files(result.folder, folds | FOLD_FILES)
        _print_commands(
            f"predict photo.jpg --model {result.folder}",
            f"data --audit {result.folder}",
        )


def _print_run(result: TrainResult) -> None:
    print_report(result.report)
    _print_files(result.folder, RUN_FILES)
    if result.interrupted:
        epochs = format_count(result.epochs, "completed epoch")
        typer.echo(f"interrupted after {epochs}; the model so far is saved")
        print_resume(result.folder)
    _print_commands(f"evaluate {result.folder}", f"predict photo.jpg --model {result.folder}")


def print_resume(folder: Path, resumable: bool | None = None) -> None:
    """Print how to resume the run or cross-validation in a folder, or that this is not possible.

    Parameters
    ----------
    folder
        The run folder.
    resumable
        Whether it can be resumed; if None, the files of the folder tell.
    """
    if resumable is None:
        resumable = is_cross_validation(folder) or last_checkpoint(folder).is_file()
    if resumable:
        typer.echo(f"resume with: {COMMAND} train --resume {folder}")
    else:
        typer.echo("there is no checkpoint yet, so this run cannot be resumed; train again")


def _print_files(folder: Path, files: dict[str, str]) -> None:
    """Print those of the files that exist, aligned."""
    typer.echo(f"\n{folder}:")
    existing = {name: content for name, content in files.items() if (folder / name.split(" ")[0]).exists()}
    width = max(map(len, existing), default=0)
    for name, content in existing.items():
        typer.echo(f"  {name:{width}}  {content}")


def _print_commands(*commands: str) -> None:
    typer.echo("\nnext:")
    for command in commands:
        typer.echo(f"  {COMMAND} {command}")
