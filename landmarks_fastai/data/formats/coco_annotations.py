"""The annotations of a COCO file: which are rows, and their landmarks, boxes, groups and attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import NOT_LABELED
from landmarks_fastai.data.formats.coco_categories import Category, Id, parse_id
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.labeled_objects import MAX_COORDINATE, Notes
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote

Entries = dict[str, object]
Floats = NDArray[np.float64]


class AnnotationReader:
    """Collects the rows of a COCO file.

    Parameters
    ----------
    path
        The file.
    categories
        The categories that are read.
    category_ids
        The ids of all categories.
    images
        The JSON object of each image by its id.
    files
        The image files.

    Attributes
    ----------
    rows, points, visibility, boxes, groups, columns, names, locations, bad_rows
        As in `Annotations`, with the landmarks in the order of `landmarks`; a box is NaN and a group ""
        if there is none.
    landmarks
        The K landmark names.
    notes
        What is left out.
    sizes
        The recorded width and height by the index of the image.
    """

    def __init__(
        self,
        path: Path,
        categories: Sequence[Category],
        category_ids: set[Id],
        images: Mapping[Id, Entries],
        files: ImageFiles,
    ) -> None:
        self.rows: list[int] = []
        self.points: list[Floats] = []
        self.visibility: list[NDArray[np.uint8]] = []
        self.boxes: list[Floats] = []
        self.groups: list[str] = []
        self.columns: list[dict[str, str]] = []
        self.names: list[str] = []
        self.locations: list[str] = []
        self.bad_rows: list[str] = []
        self.notes = Notes()
        self.sizes: dict[int, tuple[object, object]] = {}
        self._path = path
        self._categories = {category.id: category for category in categories}
        self._category_ids = category_ids
        self._images = images
        self._files = files
        self.landmarks = categories[0].keypoints
        self._ids: set[Id] = set()

    def add(self, index: int, entry: object) -> None:
        """Add annotations[index], unless it is no row: then it is counted, or becomes a bad row."""
        word, location = f"annotations[{index}]", f"{self._path}, annotations[{index}]"
        try:
            if not isinstance(entry, dict):
                raise UserError(f"{location}: must be a JSON object")
            identifier = parse_id(entry.get("id"), location)
            if identifier is not None and identifier not in self._ids:
                self._ids.add(identifier)
                word = f"annotation {str(identifier)[:40]}"
                location = f"{self._path}, {word}"
            self._add_entries(entry, f"{self._path.name} {word}", location)
        except UserError as error:
            self.bad_rows.append(str(error))

    def _add_entries(self, entries: Entries, name: str, location: str) -> None:
        category = self._select_category(entries, location)
        if category is None:
            return
        points, visibility = self._parse_keypoints(entries["keypoints"], location)
        if not visibility.any():
            self.notes.add(
                "annotation without labeled landmarks", "annotations without labeled landmarks", "skipped"
            )
            return
        box = self._parse_box(entries.get("bbox"), location)
        self.rows.append(self._add_image(entries, location))
        self.points.append(points)
        self.visibility.append(visibility)
        self.boxes.append(box)
        group = entries.get("group")
        self.groups.append("" if group is None else str(group)[:200].strip())
        self.columns.append(self._parse_columns(entries, category))
        self.names.append(name)
        self.locations.append(location)

    def _add_image(self, entries: Entries, location: str) -> int:
        identifier = parse_id(entries.get("image_id"), location)
        if identifier not in self._images:
            raise UserError(
                f"{location}: image_id {str(identifier)[:40]} is not among the images; correct it"
            )
        image = self._images[identifier]
        name = image.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{location}: image {str(identifier)[:40]} has no 'file_name'; enter it")
        index = self._files.add(name, location)
        self.sizes.setdefault(index, (image.get("width"), image.get("height")))
        return index

    def _select_category(self, entries: Entries, location: str) -> Category | None:
        """Return the category of an annotation that is a row, else None after counting it."""
        if entries.get("iscrowd"):
            self.notes.add("crowd annotation", "crowd annotations", "skipped")
            return None
        identifier = parse_id(entries.get("category_id"), location)
        category = self._categories.get(identifier)
        if identifier is None and category is None and len(self._categories) == 1:
            category = next(iter(self._categories.values()))
        if category is None:
            if identifier not in self._category_ids:
                raise UserError(
                    f"{location}: category_id {str(identifier)[:40]} is not among the categories; correct it"
                )
            self.notes.add("annotation of another category", "annotations of other categories", "skipped")
            return None
        if not entries.get("keypoints"):
            self.notes.add("annotation without keypoints", "annotations without keypoints", "skipped")
            return None
        return category

    def _parse_keypoints(self, keypoints: object, location: str) -> tuple[Floats, NDArray[np.uint8]]:
        """Return the (K, 2) points and the (K,) visibility."""
        k = len(self.landmarks)
        values = _to_numbers(keypoints)
        if values is None or len(values) != 3 * k:
            found = f"{len(keypoints):,} values" if isinstance(keypoints, list) else str(keypoints)[:40]
            raise UserError(
                f"{location}: 'keypoints' must be {3 * k:,} numbers, x, y and visibility of each landmark,"
                f" not {found}"
            )
        points, flags = values.reshape(k, 3)[:, :2].copy(), values.reshape(k, 3)[:, 2]
        for index in np.flatnonzero(~np.isin(flags, (0, 1, 2))).tolist():
            raise UserError(
                f"{location}: the visibility of {quote(self.landmarks[index])} is {flags[index]:g}; it must"
                " be 0, 1 or 2"
            )
        unlabeled = flags == NOT_LABELED
        for index in np.flatnonzero(~(np.abs(points) <= MAX_COORDINATE).all(axis=1) & ~unlabeled).tolist():
            raise UserError(
                f"{location}: {quote(self.landmarks[index])} is at"
                f" {points[index, 0]:g}, {points[index, 1]:g}; correct it, or set its visibility to 0"
            )
        self.notes.add(
            "landmark with visibility 0 and coordinates",
            "landmarks with visibility 0 and coordinates",
            "read as unlabeled",
            int((unlabeled & (np.nan_to_num(points) != 0).any(axis=1)).sum()),
        )
        points[unlabeled] = np.nan
        return points, flags.astype(np.uint8)

    def _parse_box(self, bbox: object, location: str) -> Floats:
        """Return the edges of a box given as x, y, width and height; NaN if there is none."""
        if bbox is None or bbox == []:
            return np.full(4, np.nan)
        values = _to_numbers(bbox)
        if values is None or len(values) != 4 or not (np.abs(values) <= MAX_COORDINATE).all():
            raise UserError(f"{location}: 'bbox' must be the numbers x, y, width and height, in pixels")
        if (values[2:] <= 0).any():
            self.notes.add("empty box", "empty boxes", "left out")
            return np.full(4, np.nan)
        return np.concatenate([values[:2], values[:2] + values[2:]])

    def _parse_columns(self, entries: Entries, category: Category) -> dict[str, str]:
        """Return the attributes, and the category if there are several."""
        columns = {"category": category.name} if len(self._categories) > 1 else {}
        attributes = entries.get("attributes")
        if not isinstance(attributes, dict):
            return columns
        for name, value in attributes.items():
            if isinstance(value, str | int | float | None):
                columns[str(name)[:80]] = "" if value is None else str(value)
            else:
                self.notes.add("attribute that is a list", "attributes that are lists", "ignored")
        return columns


def _to_numbers(values: object) -> Floats | None:
    """Return a JSON list of numbers as an array; None if it is anything else."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return None
