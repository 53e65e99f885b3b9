"""Label files of a YOLO pose data set, one for each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import NOT_LABELED, VISIBLE, Annotations, ImageSource
from landmarks_fastai.data.formats.labeled_objects import Notes
from landmarks_fastai.data.formats.yolo_config import YoloConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.images import image_size
from landmarks_fastai.utils.text import quote

MAX_TEXT_BYTES = 200_000_000
OUTSIDE = 0.5
"""How far a landmark may be outside the image, relative to its width and height."""

Floats = NDArray[np.float64]


def label_path(image: Path) -> Path:
    """Return the label file of an image: in ``labels`` instead of the last folder ``images``."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise UserError(f"{path}: larger than {MAX_TEXT_BYTES // 10**6} MB; this is not a list or labels")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8; copy it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


class LabelReader:
    """Collects the objects of the label files."""

    def __init__(self, config: YoloConfig) -> None:
        self.bad_rows: list[str] = []
        self._config = config
        self._order = [config.landmarks.index(name) for name in config.schema.names]
        self._notes = Notes()
        self._images: dict[Path, int] = {}
        self._rows: list[int] = []
        self._points: list[Floats] = []
        self._visibility: list[NDArray[np.uint8]] = []
        self._boxes: list[Floats] = []
        self._columns: dict[str, list[str]] = {"split": [], "class": []}
        self._locations: list[tuple[Path, int]] = []

    def add_image(self, image: Path, split: str) -> None:
        """Add the objects on an image; those that cannot be used become bad rows."""
        path = label_path(image)
        try:
            lines = read_lines(path) if path.is_file() else []
            objects = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
            if not objects:
                self._notes.add("image without objects", "images without objects", "left out")
                return
            size = np.array(image_size(image), np.float64)
        except UserError as error:
            self.bad_rows.append(str(error))
            return
        for number, fields in objects:
            location = f"{path}, line {number}"
            try:
                found = self._parse(fields, size, location)
            except UserError as error:
                self.bad_rows.append(str(error))
                continue
            if found is None:
                self._notes.add(
                    "object without labeled landmarks", "objects without labeled landmarks", "skipped"
                )
                continue
            self._rows.append(self._images.setdefault(image, len(self._images)))
            self._points.append(found.points)
            self._visibility.append(found.visibility)
            self._boxes.append(found.box)
            self._columns["split"].append(split)
            self._columns["class"].append(found.class_name)
            self._locations.append((path, number))

    def build(self) -> Annotations:
        """Return the objects as `Annotations`."""
        config, n, k = self._config, len(self._rows), len(self._config.landmarks)
        notes = (*config.notes, *self._notes.lines())
        if not n and not self.bad_rows:
            raise UserError(f"{config.path}: no object with labeled landmarks; {'; '.join(notes)[:300]}")
        visibility = np.array(self._visibility, np.uint8).reshape(n, k)[:, self._order]
        root = config.path.absolute().parent
        return Annotations(
            schema=config.schema,
            images=tuple(ImageSource(path) for path in self._images),
            rows=np.array(self._rows, np.int64),
            points=np.array(self._points).reshape(n, k, 2)[:, self._order],
            names=tuple(f"{_short(path, root)} line {number}" for path, number in self._locations),
            source=str(config.path),
            visibility=visibility if config.values == 3 else None,
            boxes=np.array(self._boxes).reshape(n, 4),
            columns={name: tuple(values) for name, values in self._columns.items()},
            notes=notes,
            bad_rows=tuple(self.bad_rows),
            locations=tuple(f"{path}, line {number}" for path, number in self._locations),
        )

    def _parse(self, fields: list[str], size: Floats, location: str) -> _Object | None:
        """Return the object of a line; None if no landmark is labeled. `size` is the width and height."""
        k, per_landmark = len(self._config.landmarks), self._config.values
        expected = 5 + k * per_landmark
        if len(fields) != expected:
            raise UserError(
                f"{location}: {len(fields):,} values, but {expected:,} are needed: the class, 4 of the box,"
                f" and {per_landmark} of each of the {k:,} landmarks; correct or remove the line"
            )
        try:
            values = np.array([float(field) for field in fields])
        except ValueError:
            text = next(field for field in fields if not _is_number(field))
            raise UserError(
                f"{location}: {quote(text)} is not a number; correct or remove the line"
            ) from None
        class_name = self._class_name(values[0], location)
        landmarks = values[5:].reshape(k, per_landmark)
        positions = landmarks[:, :2]
        visibility = self._visibility_of(landmarks, location)
        labeled = visibility != NOT_LABELED
        checked = np.concatenate([values[1:5], positions[labeled].ravel()])
        if not ((checked >= -OUTSIDE) & (checked <= 1 + OUTSIDE)).all():
            wrong = checked[~((checked >= -OUTSIDE) & (checked <= 1 + OUTSIDE))][0]
            raise UserError(
                f"{location}: the value {wrong:g} is not normalized; divide positions by the width or height"
                " of the image, so that they are from 0 to 1"
            )
        if not labeled.any():
            return None
        points = positions * size - 0.5
        points[~labeled] = np.nan
        center, extent = values[1:3], values[3:5]
        box = np.concatenate([(center - extent / 2) * size, (center + extent / 2) * size])
        if (extent <= 0).any():
            self._notes.add("empty box", "empty boxes", "left out")
            box = np.full(4, np.nan)
        return _Object(class_name, points, visibility, box)

    def _class_name(self, value: float, location: str) -> str:
        classes = self._config.classes
        if not math.isfinite(value) or value != int(value) or value < 0:
            raise UserError(f"{location}: the class is {value:g}; it must be an index from 0")
        if classes and int(value) not in classes:
            raise UserError(
                f"{location}: there is no class {int(value)}; {self._config.path.name} names {len(classes)}"
            )
        return classes.get(int(value), str(int(value)))

    def _visibility_of(self, landmarks: Floats, location: str) -> NDArray[np.uint8]:
        """Return the (K,) visibility of the (K, 2) or (K, 3) values of the landmarks."""
        positions = landmarks[:, :2]
        if self._config.values == 2:
            unlabeled = (
                (positions == 0).all(axis=1) | (positions < 0).any(axis=1) | np.isnan(positions).any(axis=1)
            )
            what = "at (0, 0) or below taken as unlabeled"
            self._notes.add("landmark", "landmarks", what, int(unlabeled.sum()))
            return np.where(unlabeled, NOT_LABELED, VISIBLE).astype(np.uint8)
        flags = landmarks[:, 2]
        for index in np.flatnonzero(~np.isin(flags, (0, 1, 2))).tolist():
            raise UserError(
                f"{location}: the visibility of {quote(self._config.landmarks[index])} is {flags[index]:g};"
                " it must be 0, 1 or 2"
            )
        hidden = (flags == NOT_LABELED) & (np.nan_to_num(positions) != 0).any(axis=1)
        self._notes.add(
            "landmark with visibility 0 and coordinates",
            "landmarks with visibility 0 and coordinates",
            "read as unlabeled",
            int(hidden.sum()),
        )
        return flags.astype(np.uint8)


@dataclass(frozen=True)
class _Object:
    """An object: its class, (K, 2) points, (K,) visibility, and the edges of its box."""

    class_name: str
    points: Floats
    visibility: NDArray[np.uint8]
    box: Floats


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _short(path: Path, root: Path) -> str:
    """Return a path relative to the folder of data.yaml, if it is below it."""
    absolute = path.absolute()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.as_posix()
