"""The run folder: the names of its files, its lock, and preparing it for a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from landmarks_fastai.config.loading import dump_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.out_of_fold import FOLDS_NAME, OOF_NAME
from landmarks_fastai.model_files.header import MODEL_NAME
from landmarks_fastai.model_files.run_marker import (
    CONFIG_NAME,
    DATA_NAME,
    RUN_FILE,
    fold_number,
    write_run_marker,
)
from landmarks_fastai.model_files.training_images import format_ids
from landmarks_fastai.utils.files import PARTIAL_NAME, remove_stale_partials, write_text
from landmarks_fastai.utils.locks import acquire_lock, release_lock
from landmarks_fastai.utils.text import shorten
from landmarks_fastai.utils.unique_names import numbered_paths

HISTORY_NAME = "history.csv"
CURVES_NAME = "curves.png"
SAMPLES_NAME = "samples.png"
METRICS_NAME = "metrics.json"
PICKLE_NAME = "model.pkl"
ONNX_NAME = "model.onnx"
CARD_NAME = "README.md"

LR_PLOT_NAME = "lr_find.png"
"""Written by the learning rate finder; a folder with only this file counts as empty, and a run keeps it."""

CHECKPOINTS = "checkpoints"
LAST_NAME = "last.pt"
BEST_NAME = "best.pt"
TENSORBOARD = "tensorboard"
WANDB = "wandb"

LOCK_NAME = ".lock"
ASIDE = ".replaced"
"""Subfolder with the earlier run of the folder, see `landmarks_fastai.training.run_replacement`."""

RUN_FILES = {
    RUN_FILE,
    CONFIG_NAME,
    DATA_NAME,
    HISTORY_NAME,
    CURVES_NAME,
    SAMPLES_NAME,
    METRICS_NAME,
    PICKLE_NAME,
    ONNX_NAME,
    MODEL_NAME,
    CARD_NAME,
    FOLDS_NAME,
    OOF_NAME,
}
CHECKPOINT_FILES = {LAST_NAME, BEST_NAME}
IGNORED = {LR_PLOT_NAME, LOCK_NAME, ".DS_Store", "Thumbs.db", "desktop.ini"}
"""Entries of a folder that counts as empty; the last three are written by file managers."""

SHOWN = 3
"""Largest number of files that an error names."""


def last_checkpoint(folder: Path) -> Path:
    """Return the path of the full state in a run folder, from which a run is resumed."""
    return folder / CHECKPOINTS / LAST_NAME


def best_checkpoint(folder: Path) -> Path:
    """Return the path of the weights with the lowest validation loss in a run folder."""
    return folder / CHECKPOINTS / BEST_NAME


def describe_data(dataset: LandmarkDataset, split: Split) -> dict[str, Any]:
    """Return the content of data.json: the identity and the images of the data set, and the split."""
    images = format_ids(dataset.images.ids)
    return {**describe_dataset(dataset), "split": split.to_dict(), "images": images}


def describe_dataset(dataset: LandmarkDataset) -> dict[str, Any]:
    """Return what identifies a data set: source, digests and the number of rows that the config selects."""
    identity = {"source": dataset.source, "sha256": dataset.digest, "rows": len(dataset)}
    return identity if dataset.corrections is None else {**identity, "corrections": dataset.corrections}


# --- what is in a folder -------------------------------------------------------------------------


def run_entries(folder: Path) -> list[Path]:
    """Return the files and subfolders of a folder, without those that do not count (`IGNORED`)."""
    return sorted(entry for entry in folder.iterdir() if entry.name not in IGNORED)


def is_taken(folder: Path) -> bool:
    """Return True if the folder contains anything that counts, see `run_entries`, or is a file."""
    if not folder.is_dir():
        return folder.exists()
    return bool(run_entries(folder))


def check_available(folder: Path, overwrite: bool) -> None:
    """Check that a new run may use the folder.

    Raises
    ------
    UserError
        If it is a file; or is not empty, see `is_taken`, and `overwrite` is False, or it contains anything
        that is not of a run.
    """
    if not is_taken(folder):
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose another --out")
    is_run = (folder / RUN_FILE).is_file() or (folder / ASIDE).is_dir()
    if not overwrite:
        advice = "choose another --out, or use --overwrite or --resume" if is_run else "choose another --out"
        raise UserError(f"{folder}: not empty; {advice}")
    if not is_run:
        raise UserError(
            f"{folder}: not a run folder ({RUN_FILE} is missing), so --overwrite does not replace it; choose"
            " another --out, or delete the folder yourself"
        )
    if foreign := [str(path.relative_to(folder)) for path in foreign_entries(folder)]:
        more = f" and {len(foreign) - SHOWN:,} more" if len(foreign) > SHOWN else ""
        raise UserError(
            f"{folder}: --overwrite deletes only files of a run, and the folder contains"
            f" {', '.join(shorten(name) for name in foreign[:SHOWN])}{more}; move that elsewhere, or choose"
            " another --out"
        )


def foreign_entries(folder: Path) -> Iterator[Path]:
    """Yield the files and subfolders in a run folder that a run does not write.

    Symbolic links are not followed: a link with the name of a file or subfolder of a run belongs to the run.
    """
    for entry in run_entries(folder):
        is_folder = entry.is_dir() and not entry.is_symlink()
        if is_folder and entry.name == CHECKPOINTS:
            yield from (path for path in run_entries(entry) if not _is_file_of(path, CHECKPOINT_FILES))
        elif is_folder and (entry.name == ASIDE or fold_number(entry) is not None):
            yield from foreign_entries(entry)
        elif not (_is_file_of(entry, RUN_FILES) or _is_folder_of_run(entry)):
            yield entry


def _is_file_of(path: Path, names: set[str]) -> bool:
    """Return True for one of the files with these names, or the temporary file of one."""
    match = PARTIAL_NAME.fullmatch(path.name)
    name = path.name if match is None else match["stem"] + match["suffix"]
    return name in names and (path.is_symlink() or not path.is_dir())


def _is_folder_of_run(path: Path) -> bool:
    """Return True for a folder of a logger, and for a link in place of a folder of the run."""
    if path.name in (TENSORBOARD, WANDB):
        return path.is_dir()
    return path.is_symlink() and (path.name == CHECKPOINTS or fold_number(path) is not None)


def next_run_folder(runs: Path, name: str) -> Path:
    """Return runs/NAME, or the first of runs/NAME-2, runs/NAME-3 … that is not taken."""
    return next(folder for folder in numbered_paths(runs / name) if not is_taken(folder))


# --- using a folder ------------------------------------------------------------------------------


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create the folder and lock it, because two runs in one folder would mix their files.

    Temporary files of killed runs are deleted. A folder that did not exist and is still empty at the end is
    removed.

    Raises
    ------
    UserError
        If another run holds the lock, or the folder cannot be created.
    """
    existed = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire_lock(folder / LOCK_NAME)
    except Timeout:
        raise UserError(f"{folder}: in use by another run; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created or written ({error.strerror}); choose another --out"
        ) from error
    try:
        remove_stale_partials(folder, RUN_FILES)
        remove_stale_partials(folder / CHECKPOINTS, CHECKPOINT_FILES)
        yield
    finally:
        release_lock(lock)
        if not existed:
            with suppress(OSError):  # not empty, or another run has locked it in the meantime
                folder.rmdir()


def begin_run(folder: Path, config: TrainConfig) -> None:
    """Mark an empty folder as a run folder, and write the config."""
    # the marker first, because a folder with a config but no marker counts as written by version 0.1
    write_run_marker(folder)
    write_text(folder / CONFIG_NAME, dump_config(config))
