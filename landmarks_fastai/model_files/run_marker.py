"""run.json: the file that marks a folder as a run folder and names its format version."""

from __future__ import annotations

from pathlib import Path

from landmarks_fastai import __version__
from landmarks_fastai.model_files.header import FORMAT, check_format
from landmarks_fastai.utils.files import read_json, write_json

RUN_FILE = "run.json"
CONFIG_NAME = "config.yaml"
DATA_NAME = "data.json"


def write_run_marker(folder: Path) -> None:
    """Mark `folder` as a run folder of this version."""
    write_json(folder / RUN_FILE, {"format": FORMAT, "package_version": __version__})


def check_run_folder(folder: Path) -> None:
    """Check that a run folder has the format version that this package reads.

    A folder without config.yaml is not a run folder and passes.

    Raises
    ------
    UserError
        If the run was written by landmarks-fastai 0.1 or by a newer version.
    """
    if not (folder / CONFIG_NAME).is_file():
        return
    marker = folder / RUN_FILE
    check_format(read_json(marker).get("format") if marker.is_file() else 1, folder)


def trained_on_synthetic(folder: Path) -> bool:
    """Return True if the run in `folder` was trained on synthetic data.

    Raises
    ------
    UserError
        If the run's data.json is not valid.
    """
    data = folder / DATA_NAME
    return data.is_file() and read_json(data).get("source") == "synthetic"
