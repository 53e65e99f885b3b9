"""LabelMe: a JSON file per image with shapes, of which points and rectangles are read.

LabelMe's coordinates are continuous, with (0, 0) at the top-left corner of the image: a click in the middle
of the first pixel is recorded as (0.5, 0.5). Therefore 0.5 is subtracted from points when they are read, and
added when they are written. Rectangles are edges, as boxes are here. LabelMe applies the EXIF orientation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.folders import find_files, first_files
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.json_start import json_start
from landmarks_fastai.data.formats.labeled_objects import (
    Box,
    LabeledObject,
    Notes,
    build_annotations,
    check_objects,
    make_schema,
    note_changed_sizes,
    parse_number,
)
from landmarks_fastai.data.formats.labelme_writing import BOX_LABEL, HALF_PIXEL, OCCLUDED_FLAG, write
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.json_reader import read_json
from landmarks_fastai.utils.text import quote

SUFFIX = ".json"
EXAMINED_FILES = 20

Shape = Mapping[str, object]


def recognizes(path: Path) -> bool:
    """Return True for a JSON file with shapes, and for a folder with one in it or below it."""
    files = first_files(path, SUFFIX, EXAMINED_FILES) if path.is_dir() else [path]
    return any(_starts_as_labelme(json_start(file)) for file in files)


def _starts_as_labelme(text: str) -> bool:
    if not text.startswith("{"):
        return False
    others = ('"points"', '"imagePath"', '"imageData"')
    return '"imageData"' in text or ('"shapes"' in text and any(other in text for other in others))


def read(path: Path) -> Annotations:
    """Read a JSON file, or all of them in a folder and below it.

    Points with the same ``group_id`` are an object, and a rectangle with this ``group_id`` is its box, whose
    label becomes the column ``label``. A point with the flag or the description "occluded" is occluded.

    Raises
    ------
    UserError
        If there is no JSON file of LabelMe, or none can be used.
    """
    files = find_files(path, SUFFIX) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .json files in this folder")
    reader = _Reader(path)
    for file in files:
        try:
            reader.add_file(file)
        except UserError as error:
            reader.bad_rows.append(str(error))
    return reader.annotations()


FORMAT = AnnotationFormat("labelme", "LabelMe JSON", recognizes, read, write)


class _Reader:
    """Collects the objects of all files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path if path.is_dir() else path.parent
        self._images = ImageFiles([self._folder])
        self._finders: dict[Path, ImageFiles] = {}
        self._sizes: dict[int, tuple[object, object]] = {}
        self._objects: list[LabeledObject] = []
        self._notes = Notes()
        self._has_visibility = False
        self.bad_rows: list[str] = []

    def add_file(self, file: Path) -> None:
        """Add the objects of a file; UserError if the file cannot be used."""
        content = read_json(file)
        shapes = content.get("shapes") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(shapes, list):
            if file == self._path:
                raise UserError(f"{file}: no list 'shapes'; name a JSON file of LabelMe")
            self._notes.add("JSON file without shapes", "JSON files without shapes", "skipped")
            return
        if not shapes:
            self._notes.add("image without shapes", "images without shapes", "skipped")
            return
        name = file.relative_to(self._folder).as_posix()
        groups = _group_shapes(shapes, str(file))
        image: int | None = None
        for key, members in groups.items():
            location = name if len(groups) == 1 else f"{name}, group {key[:40] or 'null'}"
            try:
                each = self._read_object(members, location)
                if each is not None:
                    image = self._add_image(file, content) if image is None else image
                    each.image = image
                    self._objects.append(each)
            except UserError as error:
                self.bad_rows.append(str(error))
        if image is not None:
            self._sizes[image] = (content.get("imageWidth"), content.get("imageHeight"))

    def annotations(self) -> Annotations:
        """Return what was read."""
        images = self._images.sources()
        existing = {i: size for i, size in self._sizes.items() if self._images.missing(i) is None}
        note_changed_sizes(existing, images, self._notes)
        notes = [*self._notes.lines(), *(line for each in self._finders.values() for line in each.notes())]
        check_objects(self._objects, self._path, notes, self.bad_rows)
        names = list(dict.fromkeys(name for each in self._objects for name in each.points))
        schema = make_schema(self._folder.resolve().name, names, self._path)
        return self._images.drop_missing(
            build_annotations(
                self._objects,
                images,
                self._path,
                schema,
                notes,
                has_visibility=self._has_visibility,
                bad_rows=self.bad_rows,
            )
        )

    def _add_image(self, file: Path, content: Mapping[str, object]) -> int:
        """Return the index of the image of a file."""
        name = content.get("imagePath")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{file}: 'imagePath' is missing; add the path of the image")
        if file.parent not in self._finders:
            folders = (file.parent, self._folder, self._folder / "images")
            self._finders[file.parent] = ImageFiles(folders)
        path = self._finders[file.parent].find(name)
        if path is None and content.get("imageData"):
            raise UserError(
                f"{file}: no such image {quote(name)}, only its copy in 'imageData'; put the image into"
                f" {file.parent}, or export it with labelme_export_json"
            )
        return self._images.add(name if path is None else str(path.absolute()), str(file))

    def _read_object(self, shapes: list[Shape], location: str) -> LabeledObject | None:
        """Return the object of a group of shapes; None if it has no points."""
        each = LabeledObject(0, location)
        boxes = []
        for shape in shapes:
            points = shape["points"]
            kind = shape.get("shape_type") or ("point" if len(_as_list(points)) == 1 else "polygon")
            if kind == "point":
                self._add_point(each, shape)
            elif kind == "rectangle":
                boxes.append((_read_box(_as_list(points), location), str(shape["label"])))
            else:
                shown = str(kind)[:20]
                self._notes.add(f"shape of type {shown!r}", f"shapes of type {shown!r}", "skipped")
        if not each.points:
            self._notes.add("rectangle without points", "rectangles without points", "skipped", len(boxes))
            return None
        if len(boxes) == 1:
            each.box, label = boxes[0]
            if label != BOX_LABEL:
                each.columns["label"] = label
        elif boxes:
            what = "not used as boxes, because each box needs a group_id of its own"
            self._notes.add("rectangle", "rectangles", what, len(boxes))
        return each

    def _add_point(self, each: LabeledObject, shape: Shape) -> None:
        label = str(shape["label"])
        x, y = _read_pair(_as_list(shape["points"])[:1], each.name, label)
        flags = shape.get("flags")
        flag = flags.get(OCCLUDED_FLAG) if isinstance(flags, dict) else None
        described = str(shape.get("description") or "").strip().lower() == OCCLUDED_FLAG
        self._has_visibility |= flag is not None or described
        each.add_point(label, (x - HALF_PIXEL, y - HALF_PIXEL), occluded=bool(flag) or described)


def _group_shapes(shapes: list[object], location: str) -> dict[str, list[Shape]]:
    """Return the shapes by their group_id; the key is empty for those without one."""
    groups: dict[str, list[Shape]] = {}
    for number, shape in enumerate(shapes, 1):
        if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
            raise UserError(f"{location}: shape {number} has no list 'points'; correct or remove it")
        if not isinstance(shape.get("label"), str) or not shape["label"].strip():
            raise UserError(f"{location}: shape {number} has no label; add the name of the landmark")
        group = shape.get("group_id")
        if not isinstance(group, int | str | None):
            raise UserError(f"{location}: the group_id of shape {number} is not a number; correct it")
        groups.setdefault("" if group is None else str(group), []).append(shape)
    return groups


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _read_pair(points: list[object], location: str, label: str) -> tuple[float, float]:
    """Return x and y of a list with one pair."""
    pair = _as_list(points[0]) if points else []
    if len(pair) != 2:
        raise UserError(f"{location}: {quote(label)} is not at an x and a y; correct it to [[x, y]]")
    x, y = (
        parse_number(value, location, f"{axis} of {quote(label)}")
        for axis, value in zip("xy", pair, strict=True)
    )
    return x, y


def _read_box(points: list[object], location: str) -> Box:
    """Return the edges of a rectangle: two opposite corners, or four of an upright rectangle."""
    corners = [_read_pair([point], location, "rectangle") for point in points]
    if len(corners) not in (2, 4):
        raise UserError(f"{location}: a rectangle has {len(corners)} points; it must have 2 opposite corners")
    x, y = zip(*corners, strict=True)
    if math.isclose(min(x), max(x)) or math.isclose(min(y), max(y)):
        raise UserError(f"{location}: a rectangle has no area; draw it again, or remove it")
    return min(x), min(y), max(x), max(y)
