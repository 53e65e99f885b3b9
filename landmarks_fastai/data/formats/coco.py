"""COCO keypoints JSON.

Keypoints are indices of pixels counted from 0 (https://cocodataset.org/#format-data), as our coordinates are,
so that nothing is shifted. ``bbox`` is x, y, width and height with (0, 0) at the top-left corner.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.coco_annotations import AnnotationReader
from landmarks_fastai.data.formats.coco_categories import (
    Id,
    find_categories,
    parse_id,
    read_schema,
    select_categories,
)
from landmarks_fastai.data.formats.coco_writing import write
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.labeled_objects import note_changed_sizes
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.json_reader import read_json
from landmarks_fastai.utils.text import format_count

KEYS = (b'"images"', b'"annotations"', b'"categories"', b'"keypoints"')
MAX_FILES = 100
"""A folder with more JSON files is not a COCO data set."""

MAX_SIZES_CHECKED = 1000
"""Number of images whose size is compared with the recorded one."""


def recognizes(path: Path) -> bool:
    """Return True for a COCO file with keypoints, or a folder with one in it or in its annotations/."""
    try:
        return bool(_find_files(path)) if path.is_dir() else _is_coco(path)
    except OSError:
        return False


def read(path: Path) -> Annotations:
    """Read a COCO file, or the only one in a folder or its subfolder ``annotations``.

    Images are searched for in the folder of the file and its subfolder ``images``, and in the folder above it
    and its subfolders ``images`` and SPLIT, where SPLIT is the last part of the file name
    (``annotations/person_keypoints_val2017.json`` has its images in ``val2017``).

    Raises
    ------
    UserError
        If the file is not a COCO file with keypoints, its categories cannot be used, or all images are
        missing.
    """
    path = _find_file(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a COCO file; it must be a JSON object")
    images, annotations, category_entries = (
        _entries(content, key, path) for key in ("images", "annotations", "categories")
    )
    found, ids = find_categories(path, category_entries)
    categories = select_categories(path, found, _used_categories(annotations))
    schema, notes = read_schema(path, categories[0])
    if len(category_entries) > len(found):
        count = len(category_entries) - len(found)
        notes.append(f"{count:,} {'category' if count == 1 else 'categories'} without keypoints skipped")
    files = ImageFiles(_image_folders(path))
    reader = AnnotationReader(path, categories, ids, _images_by_id(images, path), files)
    for index, entry in enumerate(annotations):
        reader.add(index, entry)
    return _build(path, reader, files, schema, [*notes, *_unused_images(images, reader)])


FORMAT = AnnotationFormat("coco", "COCO keypoints JSON", recognizes, read, write, suffix=".json")


# --- finding files -------------------------------------------------------------------------------


def _is_coco(path: Path) -> bool:
    """Return True if a file is a JSON object with the keys of COCO, without parsing it."""
    with path.open("rb") as stream:
        if not stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(key) >= 0 for key in KEYS)


def _find_files(folder: Path) -> list[Path]:
    """Return the COCO files in a folder, or else in its subfolder annotations."""
    for each in (folder, folder / "annotations"):
        candidates = list(islice(each.glob("*.json"), MAX_FILES + 1)) if each.is_dir() else []
        found = [path for path in sorted(candidates) if path.is_file() and _is_coco(path)]
        if found and len(candidates) <= MAX_FILES:
            return found
    return []


def _find_file(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not path.is_dir():
        return path
    try:
        found = _find_files(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not found:
        raise UserError(f"{path}: no COCO file with keypoints in this folder; name the file itself")
    if len(found) > 1:
        names = ", ".join(str(each.relative_to(path)) for each in found)
        names = names if len(names) <= 80 else f"{names[:79]}…"
        raise UserError(f"{path}: several COCO files ({names}); name one of them")
    return found[0]


def _image_folders(path: Path) -> list[Path]:
    """Return where the images of a COCO file may be."""
    folder, above = path.parent, path.absolute().parent.parent
    split = re.split(r"[_.]", path.stem)[-1]
    names = dict.fromkeys((split, split.rstrip("0123456789"), path.stem))
    subfolders = [name for name in names if name]
    return [
        folder,
        folder / "images",
        *(folder / name for name in subfolders),
        above,
        above / "images",
        *(above / name for name in subfolders),
        *(above / "images" / name for name in subfolders),
    ]


# --- the content ---------------------------------------------------------------------------------


def _entries(content: dict[str, object], key: str, path: Path) -> list[object]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise UserError(f"{path}: not a COCO file; it must have the list {key!r}")
    return entries


def _images_by_id(entries: Sequence[object], path: Path) -> dict[Id, dict[str, object]]:
    """Return the images by their ids."""
    images: dict[Id, dict[str, object]] = {}
    for index, entry in enumerate(entries):
        location = f"{path}, images[{index}]"
        if not isinstance(entry, dict):
            raise UserError(f"{location}: must be a JSON object with id and file_name")
        identifier = parse_id(entry.get("id"), location)
        if identifier in images:
            raise UserError(f"{location}: the id {str(identifier)[:40]} occurs twice; give each its own")
        images[identifier] = entry
    return images


def _used_categories(annotations: Sequence[object]) -> set[Id]:
    """Return the ids of the categories that have annotations with labeled landmarks."""
    used: set[Id] = set()
    for entry in annotations:
        if isinstance(entry, dict) and not entry.get("iscrowd"):
            keypoints, identifier = entry.get("keypoints"), entry.get("category_id")
            if isinstance(keypoints, list) and any(keypoints) and isinstance(identifier, int | str | None):
                used.add(identifier)
    return used


def _unused_images(images: Sequence[object], reader: AnnotationReader) -> list[str]:
    count = len(images) - len(set(reader.rows))
    if count <= 0 or reader.bad_rows:
        return []
    return [f"{format_count(count, 'image')} without labeled landmarks left out"]


def _build(
    path: Path, reader: AnnotationReader, files: ImageFiles, schema: LandmarkSchema, notes: Sequence[str]
) -> Annotations:
    """Return the rows of the reader, with the landmarks in the order of the schema."""
    n, k = len(reader.rows), len(schema)
    if not n and not reader.bad_rows:
        what = "; ".join([*notes, *reader.notes.lines()]) or "it has no annotations"
        raise UserError(f"{path}: no annotation with labeled landmarks ({what[:300]})")
    order = [reader.landmarks.index(name) for name in schema.names]
    sizes = dict(islice(reader.sizes.items(), MAX_SIZES_CHECKED))
    note_changed_sizes(sizes, files.sources(), reader.notes)
    boxes = np.array(reader.boxes).reshape(n, 4)
    columns = dict.fromkeys(name for values in reader.columns for name in values)
    return files.drop_missing(
        Annotations(
            schema=schema,
            images=files.sources(),
            rows=np.array(reader.rows, np.int64),
            points=np.array(reader.points).reshape(n, k, 2)[:, order],
            names=tuple(reader.names),
            source=str(path),
            visibility=np.array(reader.visibility, np.uint8).reshape(n, k)[:, order],
            boxes=None if np.isnan(boxes).all() else boxes,
            groups=_groups(reader),
            columns={name: tuple(values.get(name, "") for values in reader.columns) for name in columns},
            notes=(*notes, *reader.notes.lines()),
            bad_rows=tuple(reader.bad_rows),
            locations=tuple(reader.locations),
        )
    )


def _groups(reader: AnnotationReader) -> tuple[str, ...] | None:
    """Return the groups; a row without one is a group of its own."""
    if not any(reader.groups):
        return None
    lacking = reader.groups.count("")
    reader.notes.add(
        "annotation without 'group'", "annotations without 'group'", "in groups of their own", lacking
    )
    return tuple(group or name for group, name in zip(reader.groups, reader.names, strict=True))
