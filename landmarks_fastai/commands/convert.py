"""Convert labels from one annotation format to another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from landmarks_fastai.data.annotation_files import get_format, read_annotations, write_annotations
from landmarks_fastai.data.bad_rows import raise_bad_rows
from landmarks_fastai.data.formats import kaggle
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.cache_folder import default_cache_dir


@dataclass(frozen=True)
class ConversionResult:
    """Result of a conversion.

    Parameters
    ----------
    out
        The file or folder that was written.
    title
        Name of its format.
    rows, images
        Numbers of rows and of images that were written.
    notes
        What was left out or assumed while reading, and what the format cannot hold, one line each.
    """

    out: Path
    title: str
    rows: int
    images: int
    notes: tuple[str, ...]


def convert(
    source: str | Path,
    out: str | Path,
    to: str,
    *,
    source_format: str | None = None,
    skip_bad: bool = False,
) -> ConversionResult:
    """Read labels and write them in another format.

    Parameters
    ----------
    source
        A file or folder of labels in one of the `ANNOTATION_FORMATS`.
    out
        File or folder to write; must not exist.
    to
        Name of the format to write.
    source_format
        Name of the format to read; recognized by the content if None.
    skip_bad
        Leave out rows that cannot be used, instead of raising an error.

    Raises
    ------
    UserError
        If the labels cannot be read, or written in this format, or `out` exists.
    RunError
        If the files cannot be written.
    """
    path, target = Path(source).expanduser(), Path(out).expanduser()
    title = get_format(to).title
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if source_format == kaggle.NAME or (source_format is None and kaggle.recognizes(path)):
        raise UserError(f"{path}: Kaggle's files contain the images themselves and cannot be converted")
    annotations = read_annotations(path, source_format)
    if annotations.bad_rows and not skip_bad:
        raise_bad_rows(annotations, annotations.bad_rows, default_cache_dir())
    skipped = [f"skipped (--skip-bad): {message}" for message in annotations.bad_rows]
    losses = write_annotations(replace(annotations, bad_rows=()), target, to)
    return ConversionResult(
        out=target,
        title=title,
        rows=len(annotations),
        images=len(annotations.images),
        notes=(*annotations.notes, *skipped, *losses),
    )
