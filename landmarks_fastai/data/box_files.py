"""Reading boxes around objects in images: a CSV, or COCO detections or annotations."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.json_reader import read_json
from landmarks_fastai.utils.text import format_count, quote

Edges = tuple[float, float, float, float]
"""Edges x0, y0, x1, y1 in pixels; 0 is the outer edge of the first pixel."""

COLUMNS = ("image", "x0", "y0", "x1", "y1")
LABEL_COLUMNS = ("image", "box_x0", "box_y0", "box_x1", "box_y1")
"""Columns of a CSV, and the same in a CSV of labels; others are ignored."""

BAD_ROWS_SHOWN = 20


@dataclass(frozen=True)
class ImageBox:
    """A box around an object in an image.

    Parameters
    ----------
    image
        Name of the image file as the box file has it, possibly with folders; without a suffix, if the box
        file only has COCO's image ID.
    edges
        Edges of the box.
    location
        Location of the box for messages: "boxes.csv, line 2".
    """

    image: str
    edges: Edges
    location: str


@dataclass(frozen=True)
class BoxFile:
    """The boxes of a file.

    Parameters
    ----------
    path
        The file.
    boxes
        Its boxes, in the order of the file.
    notes
        What was left out, one line each.
    """

    path: Path
    boxes: tuple[ImageBox, ...]
    notes: tuple[str, ...] = ()


def read_boxes(path: Path) -> BoxFile:
    """Read the boxes of a file.

    A CSV has the columns `COLUMNS` or `LABEL_COLUMNS`, in pixels; in the latter, a row may have no box. JSON
    is COCO's: an object with ``images`` and ``annotations``, or a list of detections, whose image IDs are the
    names of the image files without suffix. ``bbox`` is [left, top, width, height]; groups (``iscrowd``) are
    left out.

    Raises
    ------
    UserError
        If the file cannot be read, has no boxes, or rows cannot be used; the message has a line for each.
    """
    found = _read_coco(path) if path.suffix.lower() == ".json" else _read_csv(path)
    boxes, bad, groups = [], [], 0
    try:
        for one in found:
            if isinstance(one, UserError):
                bad.append(str(one))
            elif one is None:
                groups += 1
            else:
                boxes.append(one)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    _raise_bad_rows(path, bad, len(bad) + len(boxes))
    if not boxes:
        raise UserError(f"{path}: contains no boxes; add one, or remove --boxes")
    notes = (f"{path}: {format_count(groups, 'group')} of objects left out (iscrowd)",) if groups else ()
    return BoxFile(path, tuple(boxes), notes)


def assign_boxes(file: BoxFile, images: Sequence[Path]) -> tuple[dict[Path, list[ImageBox]], list[str]]:
    """Return the boxes of each image, and notes about images and boxes without a counterpart.

    A box belongs to the image that its name leads to from the folder of the box file, else to the image
    whose path ends with its name.

    Raises
    ------
    UserError
        If a name fits several images.
    """
    index = _ImageIndex(file.path.parent, images)
    assigned: dict[Path, list[ImageBox]] = {image: [] for image in images}
    bad, others = [], set()
    for box in file.boxes:
        found = index.find(box.image)
        if len(found) > 1:
            bad.append(f"{box.location}: {len(found)} images are named {box.image}; add their folder")
        elif found:
            assigned[found[0]].append(box)
        else:
            others.add(box.image)
    _raise_bad_rows(file.path, bad, len(file.boxes))
    without = [image for image in images if not assigned[image]]
    notes = []
    if without:
        count = format_count(len(without), "image")
        notes.append(f"{file.path}: no boxes for {count}, searched without: {_first(map(str, without))}")
    if others:
        count = format_count(len(others), "other image")
        notes.append(f"{file.path}: has boxes of {count} that are not predicted: {_first(sorted(others))}")
    return assigned, notes


class _ImageIndex:
    """Finds the images that a name in a box file can mean."""

    def __init__(self, folder: Path, images: Sequence[Path]) -> None:
        self._folder = folder
        self._paths = {image.resolve(): image for image in images}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for resolved in self._paths:
            name = _normalize(resolved.name)
            # a COCO detection names an image by a number only, often without its leading zeros
            stem = resolved.stem.lstrip("0") if resolved.stem.isdecimal() else _normalize(resolved.stem)
            for key in {name, stem or "0"}:
                self._by_name[key].append(resolved)

    def find(self, name: str) -> list[Path]:
        """Return the images that a name can mean."""
        portable = PurePosixPath(_normalize(name).replace("\\", "/"))
        try:
            exact = (self._folder / portable).resolve()
        except (OSError, ValueError):  # a name that is too long, or contains a null character
            return []
        if exact in self._paths:
            return [self._paths[exact]]
        parts = portable.parts
        if not parts:
            return []
        candidates = self._by_name[parts[-1]]
        return [
            self._paths[path]
            for path in candidates
            if tuple(map(_normalize, path.parts[-len(parts) : -1])) == parts[:-1]
        ]


def _normalize(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _first(names: Iterator[str] | Sequence[str]) -> str:
    """Return up to three names."""
    shown = list(names)
    return ", ".join(shown[:3]) + (" …" if len(shown) > 3 else "")


def _raise_bad_rows(path: Path, messages: Sequence[str], total: int) -> None:
    """Raise a UserError if there are messages about bad rows."""
    if len(messages) == 1:
        raise UserError(messages[0])
    if messages:
        details = list(messages[:BAD_ROWS_SHOWN])
        if len(messages) > BAD_ROWS_SHOWN:
            details.append(f"and {len(messages) - BAD_ROWS_SHOWN:,} more")
        raise UserError(
            f"{path}: {len(messages):,} of {total:,} boxes cannot be used; correct or remove them", details
        )


# --- CSV -----------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Iterator[ImageBox | UserError | None]:
    """Yield each box of a CSV, or the error of its row."""
    with path.open("rb") as stream:
        reader = CsvReader(stream, str(path))
        columns = [column.strip() for column in reader.columns]
        are_labels = set(LABEL_COLUMNS) <= set(columns)
        wanted = LABEL_COLUMNS if are_labels else COLUMNS
        missing = [column for column in wanted if column not in columns]
        if missing:
            raise UserError(
                f"{path}: the column {missing[0]!r} is missing; a CSV of boxes has the columns"
                f" {', '.join(COLUMNS)}, in pixels"
            )
        indices = [columns.index(column) for column in wanted]
        for line, fields in reader.rows():
            name, *edges = (fields[index].strip() for index in indices)
            if any(edges) or not are_labels:
                yield _make_box(name, edges, reader.at(line))


def _make_box(image: str, edges: Sequence[object], location: str) -> ImageBox | UserError:
    """Return the box, or the error if it is invalid."""
    if not image:
        return UserError(f"{location}: 'image' is empty; enter the file name of the image")
    numbers = []
    for name, value in zip(COLUMNS[1:], edges, strict=True):
        number = _parse_number(value)
        if not math.isfinite(number):
            return UserError(f"{location}: {name} is {quote(str(value))}; enter a number of pixels")
        numbers.append(number)
    x0, y0, x1, y1 = numbers
    if x1 <= x0 or y1 <= y0:
        shown = ", ".join(f"{number:g}" for number in numbers)
        return UserError(
            f"{location}: the box ({shown}) is empty; x0 must be less than x1, and y0 less than y1"
        )
    return ImageBox(image, (x0, y0, x1, y1), location)


def _parse_number(value: object) -> float:
    """Return a number, NaN if the value is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


# --- COCO ----------------------------------------------------------------------------------------


def _read_coco(path: Path) -> Iterator[ImageBox | UserError | None]:
    """Yield each box of COCO annotations or detections, its error, or None for a group of objects."""
    content = read_json(path)
    if isinstance(content, Mapping):
        names = _coco_names(content, path)
        entries, what = content.get("annotations"), "annotation"
    else:
        names, entries, what = None, content, "detection"
    if not isinstance(entries, list):
        raise UserError(f"{path}: not COCO: needs 'images' and 'annotations', or a list of detections")
    for number, entry in enumerate(entries, 1):
        location = f"{path}, {what} {number:,}"
        if not isinstance(entry, Mapping):
            yield UserError(f"{location}: is not an object with image_id and bbox")
        elif entry.get("iscrowd") == 1:
            yield None
        else:
            yield _read_entry(entry, names, location)


def _coco_names(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Return the file name of each image ID."""
    images = content.get("images")
    if not isinstance(images, list):
        raise UserError(f"{path}: not COCO: needs 'images' and 'annotations', or a list of detections")
    names = {}
    for number, image in enumerate(images, 1):
        if not isinstance(image, Mapping) or not isinstance(image.get("file_name"), str):
            raise UserError(f"{path}, image {number:,}: has no file_name; add it")
        names[str(image.get("id"))] = image["file_name"]
    return names


def _read_entry(
    entry: Mapping[str, Any], names: Mapping[str, str] | None, location: str
) -> ImageBox | UserError:
    """Return the box of a COCO annotation or detection, or its error."""
    image_id = str(entry.get("image_id", ""))
    if names is not None and image_id not in names:
        return UserError(f"{location}: image_id is {quote(image_id)}, which is not in 'images'")
    name = image_id if names is None else names[image_id]
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        return UserError(f"{location}: bbox must be [left, top, width, height] in pixels")
    left, top, width, height = map(_parse_number, bbox)
    return _make_box(name, (left, top, left + width, top + height), location)
