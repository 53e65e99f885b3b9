"""Lists of WFLW (Wu et al. 2018): one face per line, with 98 landmarks.

A line has 207 fields: 196 coordinates, the box (x_min, y_min, x_max, y_max), six attributes and the image; or
197 fields: the coordinates and the image. Coordinates are pixels counted from 0, as here, so they are not
shifted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.labeled_objects import (
    LabeledObject,
    build_annotations,
    make_schema,
    parse_number,
)
from landmarks_fastai.errors import UserError

LANDMARKS = tuple(str(k) for k in range(98))
COORDINATES = 2 * len(LANDMARKS)
ATTRIBUTES = ("pose", "expression", "illumination", "make_up", "occlusion", "blur")
FIELDS = COORDINATES + 4 + len(ATTRIBUTES) + 1
FIELDS_WITHOUT_ATTRIBUTES = COORDINATES + 1

IMAGES = "WFLW_images"
"""Folder of the images, beside the folder of the lists."""

LEVELS = 3
"""Number of folders above the list in which the images are looked for."""

MAX_LINE = 20_000
"""Bytes of the longest line that is accepted."""


def recognizes(path: Path) -> bool:
    """Return True for a text file whose first line has 207 or 197 fields: numbers, and a file name."""
    try:
        with path.open("rb") as stream:
            fields = stream.readline(MAX_LINE).decode("utf-8-sig").split()
        if len(fields) not in (FIELDS, FIELDS_WITHOUT_ATTRIBUTES):
            return False
        return all(re.fullmatch(r"[-+.\deE]+", field) for field in fields[:-1]) and "." in fields[-1]
    except (OSError, ValueError):
        return False


def read(path: Path) -> Annotations:
    """Read a list.

    Raises
    ------
    UserError
        If the file cannot be read, or no line can be used.
    """
    # absolute, because the folders above "." are needed
    folders = [path.absolute().parent, *list(path.absolute().parents)[1 : LEVELS + 1]]
    images = ImageFiles([*(folder / IMAGES for folder in folders), folders[0]])
    objects: list[LabeledObject] = []
    bad_rows: list[str] = []
    for number, line in _lines(path):
        location = f"{path.name}, line {number}"
        try:
            objects.append(_parse(line, location, images))
        except UserError as error:
            bad_rows.append(str(error))
    schema = make_schema("wflw98", LANDMARKS, path)
    return images.drop_missing(build_annotations(objects, images.sources(), path, schema, bad_rows=bad_rows))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            number = 0
            while line := stream.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise UserError(f"{path}, line {number}: too long for a list of WFLW; correct the file")
                if line.strip():
                    yield number, line
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse(line: str, location: str, images: ImageFiles) -> LabeledObject:
    fields = line.split()
    if len(fields) not in (FIELDS, FIELDS_WITHOUT_ATTRIBUTES):
        raise UserError(
            f"{location}: {len(fields):,} fields instead of {FIELDS} (or {FIELDS_WITHOUT_ATTRIBUTES} without"
            " box and attributes); correct or remove the line"
        )
    box_fields = fields[COORDINATES : COORDINATES + 4] if len(fields) == FIELDS else []
    numbers = [
        parse_number(field, location, f"field {i + 1}")
        for i, field in enumerate((*fields[:COORDINATES], *box_fields))
    ]
    each = LabeledObject(images.add(fields[-1], location), location)
    for k, landmark in enumerate(LANDMARKS):
        each.add_point(landmark, (numbers[2 * k], numbers[2 * k + 1]))
    if box_fields:
        x0, y0, x1, y1 = numbers[COORDINATES:]
        each.box = (x0, y0, x1, y1)
        each.columns = dict(zip(ATTRIBUTES, fields[COORDINATES + 4 : -1], strict=True))
    return each


FORMAT = AnnotationFormat("wflw", "WFLW list", recognizes, read)
