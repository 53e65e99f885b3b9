"""Reading and writing annotation files: which format a path has, and checks that all formats share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats import ANNOTATION_FORMATS, kaggle
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.files import report_write_errors
from landmarks_fastai.utils.text import format_count, suggest


def read_annotations(path: Path, name: str | None = None) -> Annotations:
    """Read labels in any of the `ANNOTATION_FORMATS`.

    Parameters
    ----------
    path
        A file or a folder.
    name
        Name of the format; None to recognize it by the content.

    Returns
    -------
    Annotations
        The first of its notes says which format was read.

    Raises
    ------
    UserError
        If no format or more than one recognizes the path, or the labels cannot be used.
    """
    annotation_format = find_format(path) if name is None else get_format(name)
    annotations = annotation_format.read(path)
    rows = format_count(len(annotations), "row")
    images = format_count(len(annotations.images), "image")
    note = f"{path}: {annotation_format.title}, {rows} on {images}"
    return replace(annotations, notes=(note, *annotations.notes))


def get_format(name: str) -> AnnotationFormat:
    """Return the format of a name.

    Raises
    ------
    UserError
        If there is no such format.
    """
    if name not in ANNOTATION_FORMATS:
        names = [*ANNOTATION_FORMATS, kaggle.NAME]
        raise UserError(f"--format {name[:40]}: no such format; {suggest(name, names)}")
    return ANNOTATION_FORMATS[name]


def get_writer(name: str, predicted: bool = False) -> Callable[[Annotations, Path], list[str]]:
    """Return the function that writes labels, or predicted landmarks, in a format.

    Raises
    ------
    UserError
        If there is no such format, or it cannot be written.
    """
    annotation_format = get_format(name)
    write = annotation_format.write
    if predicted and annotation_format.write_predictions is not None:
        write = annotation_format.write_predictions
    if write is None:
        known = ", ".join(each.name for each in ANNOTATION_FORMATS.values() if each.write is not None)
        raise UserError(f"--format {name}: can be read but not written; choose one of {known}")
    return write


def find_format(path: Path) -> AnnotationFormat:
    """Return the only format that recognizes a path.

    Raises
    ------
    UserError
        If there is none, or more than one.
    """
    found = [name for name, each in ANNOTATION_FORMATS.items() if each.recognizes(path)]
    if not found:
        raise _unknown_format(path)
    if kaggle.recognizes(path):
        found.append(kaggle.NAME)
    if len(found) > 1:
        raise UserError(
            f"{path}: contains data of several formats ({', '.join(found)}); name the file itself, or select"
            " one with --format"
        )
    return ANNOTATION_FORMATS[found[0]]


def write_annotations(
    annotations: Annotations, out: Path, name: str, *, predicted: bool = False
) -> list[str]:
    """Write labels to a new file or folder.

    Parameters
    ----------
    annotations
        The labels.
    out
        File or folder that does not exist yet. It is removed if it cannot be written completely.
    name
        Name of the format.
    predicted
        Whether the landmarks were predicted; some annotation tools distinguish predictions from labels.

    Returns
    -------
    list[str]
        One line for each thing that the format cannot hold.

    Raises
    ------
    UserError
        If there is no such format, it cannot be written, `out` exists or has the wrong suffix, or the labels
        cannot be expressed in this format.
    RunError
        If the files cannot be written.
    """
    annotation_format = get_format(name)
    write = get_writer(name, predicted)
    if out.exists():
        raise UserError(f"{out}: already exists; choose another name, or remove it")
    if out.suffix.lower() != annotation_format.suffix and annotation_format.suffix:
        raise UserError(f"{out}: {annotation_format.title} is written to a file *{annotation_format.suffix}")
    try:
        with report_write_errors(out):
            return write(annotations, out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        with suppress(OSError):
            out.unlink(missing_ok=True)
        raise


def _unknown_format(path: Path) -> UserError:
    """Return an error that explains why no format recognizes the path."""
    known = f"the formats are {', '.join([*ANNOTATION_FORMATS, kaggle.NAME])} (--format selects one)"
    if path.is_dir():
        return UserError(f"{path}: no data set of a known format in this folder; {known}")
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return UserError(f"{path}: not a data set of a known format; {known}")
    try:
        with path.open("rb") as stream:
            CsvReader(stream, str(path))
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{path}: cannot be read ({error.strerror or error})")
    return UserError(f"{path}: the header has neither Kaggle's columns nor 'image'; {known}")
