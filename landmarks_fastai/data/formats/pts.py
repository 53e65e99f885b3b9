"""Folders of .pts files, as the iBUG group distributes 300-W: one face per file, beside its image.

The files come from MATLAB, which counts pixels from 1: the center of the top-left pixel is (1, 1).
Coordinates are shifted by 1 when they are read and written, as menpo does. The format has no standard for
unlabeled landmarks: ``nan nan``, ``-1 -1`` and ``0 0`` are read as unlabeled, and ``-1 -1`` is written.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.folders import copy_image, find_files, first_files
from landmarks_fastai.data.formats.image_files import ImageFiles, without_frames
from landmarks_fastai.data.formats.labeled_objects import (
    MAX_LANDMARKS,
    LabeledObject,
    Notes,
    build_annotations,
    check_objects,
    make_schema,
    parse_number,
)
from landmarks_fastai.data.formats.unwritten import BOXES, EMPTY_ROWS, GROUPS, OCCLUSION, written_losses
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.files import write_text
from landmarks_fastai.utils.image_formats import SUFFIXES
from landmarks_fastai.utils.text import format_count, quote
from landmarks_fastai.utils.unique_names import UniqueNames

SUFFIX = ".pts"
LOST = (EMPTY_ROWS, OCCLUSION, BOXES, GROUPS)
MAX_BYTES = 1 << 20

FIRST_PIXEL = 1.0
"""Coordinate of the center of the first pixel in the files."""

UNLABELED = {(-1.0, -1.0), (0.0, 0.0)}
"""Coordinates in the files that stand for an unlabeled landmark."""


# --- reading -------------------------------------------------------------------------------------


def recognizes(path: Path) -> bool:
    """Return True for a .pts file, and for a folder with one in it or below it."""
    files = first_files(path, SUFFIX, 1) if path.is_dir() else [path]
    return any(file.suffix.lower() == SUFFIX and _starts_as_pts(file) for file in files)


def read(path: Path) -> Annotations:
    """Read a .pts file, or all .pts files in a folder and below it.

    The landmarks are named "0", "1" and so on. A file with another number of landmarks than most files have
    is a bad row.

    Raises
    ------
    UserError
        If there is no .pts file, or none of them can be used.
    """
    paths = find_files(path, SUFFIX) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"{path}: no .pts files in this folder")
    folder = path if path.is_dir() else path.parent
    notes = Notes()
    images = _Images(folder)
    objects: list[LabeledObject] = []
    counts: list[int] = []
    bad_rows: list[str] = []
    for file in paths:
        try:
            coordinates = _parse(file)
            image = images.add(file)
            each = LabeledObject(image, file.relative_to(folder).as_posix())
            _add_points(each, coordinates, notes)
            objects.append(each)
            counts.append(len(coordinates))
        except UserError as error:
            bad_rows.append(str(error))
    check_objects(objects, path, notes.lines(), bad_rows)
    expected = Counter(counts).most_common(1)[0][0]
    schema = make_schema(folder.resolve().name, [str(k) for k in range(expected)], path)
    kept = []
    for each, count in zip(objects, counts, strict=True):
        if count != expected:
            bad_rows.append(
                f"{folder / each.name}: {format_count(count, 'landmark')}, but most files have {expected};"
                " correct the file or move it to another folder"
            )
        elif each.points:
            kept.append(each)
        else:
            notes.add("file without labeled landmarks", "files without labeled landmarks", "skipped")
    annotations = build_annotations(
        kept, images.files.sources(), path, schema, notes.lines(), bad_rows=bad_rows
    )
    return images.files.drop_missing(annotations)


class _Images:
    """The image beside each .pts file: the file of the same name with an image suffix."""

    def __init__(self, folder: Path) -> None:
        self.files = ImageFiles([folder])
        self._listings: dict[Path, dict[str, str]] = {}

    def add(self, file: Path) -> int:
        """Return the index of the image of a .pts file; raise UserError if there is none."""
        listing = self._listings.get(file.parent)
        if listing is None:
            names = sorted(each.name for each in file.parent.iterdir() if each.suffix.lower() in SUFFIXES)
            listing = {Path(name).stem: name for name in reversed(names)}
            self._listings[file.parent] = listing
        if file.stem not in listing:
            raise UserError(
                f"{file}: no image {file.stem[:80]} with a suffix such as .jpg or .png beside it; put it into"
                f" {file.parent}"
            )
        return self.files.add(str(file.with_name(listing[file.stem]).absolute()), str(file))


def _starts_as_pts(path: Path) -> bool:
    """Return True if a text file starts with "version" or "n_points"."""
    try:
        with path.open("rb") as stream:
            start = stream.read(100).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (OSError, ValueError):
        return False
    return start.startswith((b"version", b"n_points", b"{"))


def _parse(path: Path) -> list[tuple[str, list[str]]]:
    """Return the location and the fields of each line of coordinates."""
    lines = [line.strip() for line in _read_text(path).splitlines()]
    if "{" not in lines or "}" not in lines[lines.index("{") :]:
        raise UserError(f"{path}: no lines of coordinates between {{ and }}; copy the file again")
    start = lines.index("{")
    end = lines.index("}", start)
    rows = [(f"{path}, line {i + 1}", lines[i].split()) for i in range(start + 1, end) if lines[i]]
    declared = next(
        (match for line in lines[:start] if (match := re.match(r"n_points\s*:\s*(\S+)", line))), None
    )
    if declared and declared[1] != str(len(rows)):
        raise UserError(
            f"{path}: n_points is {quote(declared[1])}, but the number of lines of coordinates is"
            f" {len(rows):,}; copy the file again"
        )
    if not 0 < len(rows) <= MAX_LANDMARKS:
        raise UserError(
            f"{path}: {format_count(len(rows), 'landmark')}; there must be 1 to {MAX_LANDMARKS:,}"
        )
    return rows


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than 1 MiB, which is too large for a .pts file; remove it")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; copy it again, or remove it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _add_points(each: LabeledObject, coordinates: list[tuple[str, list[str]]], notes: Notes) -> None:
    for k, (location, fields) in enumerate(coordinates):
        if len(fields) != 2:
            raise UserError(
                f"{location}: {format_count(len(fields), 'field')}; a line must be x and y of a landmark"
            )
        if [field.lower() for field in fields] == ["nan", "nan"]:
            continue
        x, y = parse_number(fields[0], location, "x"), parse_number(fields[1], location, "y")
        if (x, y) in UNLABELED:
            notes.add("landmark at -1 -1 or 0 0", "landmarks at -1 -1 or 0 0", "taken as unlabeled")
        else:
            each.add_point(str(k), (x - FIRST_PIXEL, y - FIRST_PIXEL))


# --- writing -------------------------------------------------------------------------------------


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write a folder with a .pts file and a copy of the image for each row.

    The second row of an image NAME is NAME_2, with a copy of its own, because a .pts file belongs to the
    image of the same name.

    Returns
    -------
    list of str
        One line for each thing that the format cannot hold.
    """
    annotations, losses = without_frames(annotations)
    unique_name = UniqueNames("_")
    for row, image in enumerate(annotations.rows.tolist()):
        source = annotations.images[image].path
        stem = unique_name(source.stem)
        copy_image(source, out / f"{stem}{source.suffix}")
        lines = [_format_point(point) for point in annotations.points[row] + FIRST_PIXEL]
        text = "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""])
        write_text(out / f"{stem}{SUFFIX}", text)
    return losses + _losses(annotations)


def _format_point(point: NDArray[np.float64]) -> str:
    """Return the line of a landmark; a labeled one never has the coordinates of an unlabeled one."""
    if np.isnan(point).any():
        return "-1 -1"
    x, y = point.round(4).tolist()
    return f"{x + 0.0001 if (x, y) in UNLABELED else x:.4f} {y:.4f}"


def _losses(annotations: Annotations) -> list[str]:
    """Return a line for each thing that the format cannot hold."""
    names = annotations.schema.names
    losses = []
    copies = len(annotations) - len(set(annotations.rows.tolist()))
    if copies:
        losses.append(
            f"{format_count(copies, 'further row')} of an image: each has a copy of the image, NAME_2"
        )
    if list(names) != [str(k) for k in range(len(names))]:
        losses.append(f'the names of the landmarks are not written; they become "0" to "{len(names) - 1}"')
    return losses + written_losses(annotations, LOST)


FORMAT = AnnotationFormat("pts", ".pts files beside the images", recognizes, read, write)
