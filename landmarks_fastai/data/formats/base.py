"""What every data set format consists of, and the CSV header that formats are recognized by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader


@dataclass(frozen=True)
class Format:
    """How a data set format is recognized and read.

    Parameters
    ----------
    recognizes
        Returns True if an existing file or folder has this format. Returns False, without an exception, for
        anything else.
    read
        Reads the file or folder; called with its path, the config and the cache folder.
    options
        The optional fields of `DataConfig` that have an effect on this format.
    """

    recognizes: Callable[[Path], bool]
    read: Callable[[Path, DataConfig, Path], LandmarkDataset]
    options: frozenset[str] = frozenset()


def csv_columns(path: Path) -> list[str]:
    """Return the column names of a CSV file; an empty list for any other file or folder."""
    try:
        with path.open("rb") as stream:
            return CsvReader(stream, str(path)).columns
    except (OSError, UserError):
        return []
