"""What tells a run folder: run.json, which names its format version, and the name of a fold's folder."""

from __future__ import annotations

from pathlib import Path

from landmarks_fastai import __version__
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import FORMAT, check_format
from landmarks_fastai.utils.files import write_json
from landmarks_fastai.utils.json_reader import read_json_object

RUN_FILE = "run.json"
CONFIG_NAME = "config.yaml"
DATA_NAME = "data.json"

FOLD = "fold-"
"""Beginning of the names of the run folders of a cross-validation's folds."""


def fold_folder(folder: Path, number: int) -> Path:
    """Return the run folder of a fold, counted from 1, of the cross-validation in a folder."""
    return folder / f"{FOLD}{number}"


def fold_number(path: Path) -> int | None:
    """Return the number of the fold whose run folder has this name; None if the name is another one."""
    number = path.name.removeprefix(FOLD)
    return int(number) if path.name.startswith(FOLD) and number.isdecimal() else None


def write_run_marker(folder: Path) -> None:
    """Mark `folder` as a run folder of this version."""
    write_json(folder / RUN_FILE, {"format": FORMAT, "package_version": __version__})


def check_run_folder(folder: Path) -> None:
    """Check that a run folder has the format version that this package reads.

    A folder without config.yaml is not a run folder and passes.

    Raises
    ------
    UserError
        If the run was written by landmarks-fastai 0.1 or by a newer version, or its run.json is damaged.
    """
    if not (folder / CONFIG_NAME).is_file():
        return
    marker = folder / RUN_FILE
    version = read_json_object(marker).get("format") if marker.is_file() else 1
    check_format(version, folder if isinstance(version, int) else marker)


def why_unreadable(folder: Path) -> str | None:
    """Return why `check_run_folder` refuses a folder, in a few words; None if it accepts it."""
    try:
        check_run_folder(folder)
    except UserError:
        return "another version wrote it" if _has_version(folder) else f"its {RUN_FILE} is damaged"
    return None


def _has_version(folder: Path) -> bool:
    """Return True if a run folder says which format version it has."""
    marker = folder / RUN_FILE
    if not marker.is_file():
        return True  # version 0.1 wrote none
    try:
        version = read_json_object(marker).get("format")
    except UserError:
        return False
    return isinstance(version, int) and not isinstance(version, bool) and version > 0


def trained_on_synthetic(folder: Path) -> bool:
    """Return True if the run in `folder` was trained on synthetic data.

    Raises
    ------
    UserError
        If the run's data.json is not valid.
    """
    data = folder / DATA_NAME
    return data.is_file() and read_json_object(data).get("source") == "synthetic"
