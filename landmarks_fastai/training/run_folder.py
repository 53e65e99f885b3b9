"""The run folder: the names of its files, its lock, and preparing it for a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from landmarks_fastai.config.loading import dump_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.run_marker import CONFIG_NAME, write_run_marker
from landmarks_fastai.model_files.training_images import format_ids
from landmarks_fastai.utils.files import write_text

HISTORY_NAME = "history.csv"
CURVES_NAME = "curves.png"
SAMPLES_NAME = "samples.png"
METRICS_NAME = "metrics.json"
PICKLE_NAME = "model.pkl"
ONNX_NAME = "model.onnx"
CARD_NAME = "README.md"

LR_PLOT_NAME = "lr_find.png"
"""Written by the learning rate finder; a folder with only this file counts as empty."""


def describe_data(dataset: LandmarkDataset, split: Split) -> dict[str, Any]:
    """Return the content of data.json: the identity and the images of the data set, and the split."""
    images = format_ids(dataset.images.ids)
    return {**describe_dataset(dataset), "split": split.to_dict(), "images": images}


def describe_dataset(dataset: LandmarkDataset) -> dict[str, Any]:
    """Return what identifies a data set: source, digests and the number of rows that the config selects."""
    identity = {"source": dataset.source, "sha256": dataset.digest, "rows": len(dataset)}
    return identity if dataset.corrections is None else {**identity, "corrections": dataset.corrections}


def is_taken(folder: Path) -> bool:
    """Return True if the folder contains more than the plot of the learning rate finder, or is a file."""
    if not folder.is_dir():
        return folder.exists()
    return any(entry.name != LR_PLOT_NAME for entry in folder.iterdir())


def check_available(folder: Path, overwrite: bool) -> None:
    """Check that a new run may use the folder.

    Raises
    ------
    UserError
        If it is not empty, see `is_taken`, and `overwrite` is False.
    """
    if is_taken(folder) and not overwrite:
        raise UserError(f"{folder}: not empty; choose another --out, or use --overwrite or --resume")


def next_run_folder(runs: Path, name: str) -> Path:
    """Return runs/NAME, or the first of runs/NAME-2, runs/NAME-3 … that is not taken."""
    number = 1
    while is_taken(folder := runs / (name if number == 1 else f"{name}-{number}")):
        number += 1
    return folder


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create the folder and lock it, because two runs in one folder would mix their files.

    A folder that is still empty at the end is removed.

    Raises
    ------
    UserError
        If another run holds the lock, or the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: in use by another run; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created or written ({error.strerror}); choose another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def start_run_folder(folder: Path, config: TrainConfig) -> None:
    """Empty the folder of an earlier run, mark it as a run folder, and write the config."""
    if is_taken(folder):
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    # the marker first, because a folder with a config but no marker counts as written by version 0.1
    write_run_marker(folder)
    write_text(folder / CONFIG_NAME, dump_config(config))
