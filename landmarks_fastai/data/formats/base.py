"""The definition of an annotation format, and the CSV header by which formats are recognized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader


@dataclass(frozen=True)
class AnnotationFormat:
    """How an annotation format is recognized, read and written.

    Parameters
    ----------
    name
        Name of the format on the command line.
    title
        Name of the format in messages.
    recognizes
        Returns True if an existing file or folder has this format, judged by its content. Returns False,
        without an exception, for anything else.
    read
        Reads the file or folder.
    write
        Writes annotations to a file or folder, and returns one line for each thing that the format cannot
        hold. None if the format cannot be written.
    suffix
        Suffix of the file that is written; empty if a folder is written.
    write_predictions
        Like `write`, for landmarks that were predicted and not labeled; None if there is no difference.
    """

    name: str
    title: str
    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Annotations]
    write: Callable[[Annotations, Path], list[str]] | None = None
    suffix: str = ""
    write_predictions: Callable[[Annotations, Path], list[str]] | None = None


def csv_columns(path: Path) -> list[str]:
    """Return the column names of a CSV file; an empty list for a folder or any other file."""
    try:
        with path.open("rb") as stream:
            return CsvReader(stream, str(path)).columns
    except (OSError, UserError):
        return []
