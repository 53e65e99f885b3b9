"""Image files that a label file refers to: finding them, and writing references to them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import format_count, quote

MAX_PATH = 4096
"""Most characters of a path; no file system has longer ones, and to look for one would take minutes."""


class ImageFiles:
    """The images that the rows of a label file refer to, each once, in the order of their first use.

    A name is a path relative to one of the folders, or an absolute path. Backslashes are accepted as slashes,
    and both Unicode normal forms (NFC, as most programs write names, and NFD, as macOS stores them). A
    path that does not exist, because the labels come from another folder or computer, is looked for without
    its first folders: ``/home/ann/images/a.png``, then ``images/a.png``, then ``a.png``. Two such paths never
    stand for the same file.

    Parameters
    ----------
    folders
        Where to look, in this order.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()] or list(folders[:1])
        self._indices: dict[str, int] = {}
        self._by_name: dict[str, int] = {}
        self._paths: list[Path] = []
        self._missing: dict[int, tuple[str, str]] = {}
        self._moved: dict[Path, str] = {}
        self._listings: dict[Path, dict[str, str]] = {}

    def add(self, name: str, location: str) -> int:
        """Return the index of an image, also if it is missing; `location` names the row that refers to it."""
        index = self._by_name.get(name)
        if index is None:
            path = self.find(name)
            key = f"missing\0{name}" if path is None else os.path.normpath(path)
            index = self._indices.setdefault(key, len(self._paths))
            if index == len(self._paths):
                self._paths.append(Path(name) if path is None else path)
            if path is None:
                self._missing.setdefault(index, (name, location))
            self._by_name[name] = index
        return index

    def missing(self, index: int) -> str | None:
        """Return the message of the first row on a missing image; None if the image exists."""
        if index not in self._missing:
            return None
        return f"{self._missing[index][1]}: {self._reason(index)}"

    def sources(self) -> tuple[ImageSource, ...]:
        """Return the images, including the missing ones; `drop_missing` removes those."""
        return tuple(ImageSource(path) for path in self._paths)

    def drop_missing(self, annotations: Annotations) -> Annotations:
        """Return the annotations without missing images; their rows become bad rows, and `notes` are added.

        The images of the annotations must be `sources`.

        Raises
        ------
        UserError
            If all images of the rows are missing.
        """
        kept = drop_images(annotations, {index: self._reason(index) for index in self._missing})
        return replace(kept, notes=(*kept.notes, *self.notes()))

    def _reason(self, index: int) -> str:
        """Return what is wrong with a missing image, and what to do."""
        folders = " or ".join(str(folder) for folder in self._folders[:2])
        return f"no such image {quote(self._missing[index][0])}; put it into {folders}"

    def notes(self) -> list[str]:
        """Return lines for the user about assumptions."""
        if not self._moved:
            return []
        if len(self._moved) == 1:
            return ["1 path of an image does not exist; a file of the same name beside the labels is used"]
        count = format_count(len(self._moved), "path")
        return [f"{count} of images do not exist; files of the same names beside the labels are used"]

    def find(self, name: str) -> Path | None:
        """Return the path of an image, or None if there is no such file."""
        if len(name) > MAX_PATH:
            return None
        portable = name.strip().replace("\\", "/")
        for spelling in dict.fromkeys((name, name.strip(), portable)):
            if spelling.strip() and (path := self._find_spelling(spelling)):
                return path
        if path := self._find_normalized(portable):
            return path
        return self._find_moved(portable)

    def _find_spelling(self, name: str) -> Path | None:
        for folder in self._folders:
            if os.path.isfile(folder / name):  # Path.is_file raises for names that are too long
                return folder / name
        return None

    def _find_moved(self, name: str) -> Path | None:
        """Return the file whose path has fewer folders, unless it stands for another path already."""
        parts = name.split("/")
        for first in range(1, len(parts)):
            shorter = "/".join(parts[first:])
            path = self._find_spelling(shorter) if shorter else None
            path = path or self._find_normalized(shorter)
            if path is not None:
                return path if self._moved.setdefault(path, name) == name else None
        return None

    def _find_normalized(self, name: str) -> Path | None:
        """Return the file whose name differs only in its Unicode normal form."""
        if name.isascii():
            return None
        found = (self._normalized_in(folder, name) for folder in self._folders)
        return next((path for path in found if path is not None), None)

    def _normalized_in(self, folder: Path, name: str) -> Path | None:
        for part in name.split("/"):
            if not os.path.lexists(folder / part):
                actual = self._listing(folder).get(unicodedata.normalize("NFC", part))
                if actual is None:
                    return None
                part = actual
            folder = folder / part
        return folder if os.path.isfile(folder) else None

    def _listing(self, folder: Path) -> dict[str, str]:
        """Return the names in a folder by their NFC form."""
        if folder not in self._listings:
            names = os.listdir(folder) if folder.is_dir() else []
            self._listings[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listings[folder]


def drop_images(annotations: Annotations, reasons: Mapping[int, str]) -> Annotations:
    """Return the annotations without some images, whose rows become bad rows.

    Parameters
    ----------
    annotations
        The annotations.
    reasons
        What is wrong with each missing image, and what to do, by its index.

    Raises
    ------
    UserError
        If all images of the rows are missing.
    """
    locations = annotations.locations or annotations.names
    bad = [
        f"{location}: {reasons[index]}"
        for location, index in zip(locations, annotations.rows.tolist(), strict=True)
        if index in reasons
    ]
    if bad and len(bad) == len(annotations):
        others = f" (all {len(reasons):,} images are missing)" if len(reasons) > 1 else ""
        raise UserError(f"{bad[0]}{others}")
    exists = np.ones(len(annotations.images), bool)
    exists[list(reasons)] = False
    kept = _keep_images(annotations, exists)
    return replace(kept, bad_rows=(*kept.bad_rows, *bad))


def image_reference(path: Path, folder: Path) -> str:
    """Return the path of an image relative to the folder of the label file, with slashes."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # on another drive
        return path.absolute().as_posix()


def without_frames(annotations: Annotations) -> tuple[Annotations, list[str]]:
    """Return the rows on image files, and a line about the rows on frames of videos that are left out."""
    is_frame = np.array([image.frame is not None for image in annotations.images], bool)
    if not is_frame.any():
        return annotations, []
    kept = np.flatnonzero(~is_frame[annotations.rows])
    if not len(kept) and len(annotations):
        raise UserError(
            f"{annotations.source}: all rows are on frames of videos; this format holds image files only, so"
            " extract the frames first"
        )
    count = len(annotations) - len(kept)
    verb = "is" if count == 1 else "are"
    return _keep_images(annotations, ~is_frame), [
        f"{format_count(count, 'row')} on frames of videos {verb} left out: the format holds image files only"
    ]


def _keep_images(annotations: Annotations, kept: NDArray[np.bool_]) -> Annotations:
    """Return the rows on the images that the (M,) mask selects, with these images only."""
    subset = annotations.subset(np.flatnonzero(kept[annotations.rows]))
    images = tuple(image for image, is_kept in zip(annotations.images, kept.tolist(), strict=True) if is_kept)
    return replace(subset, images=images, rows=(np.cumsum(kept) - 1)[subset.rows].astype(np.int64))


def label_extent(annotations: Annotations) -> tuple[NDArray[np.float64], int]:
    """Return a box for each row, for formats that need one.

    Returns
    -------
    tuple
        (N, 4) edges: the box of the row, or else the bounding box of the pixels of its labeled landmarks, NaN
        if it has neither; and the number of rows whose box comes from their landmarks.
    """
    n = len(annotations)
    boxes = np.full((n, 4), np.nan) if annotations.boxes is None else annotations.boxes.copy()
    lacking = np.isnan(boxes).any(axis=1) & ~np.isnan(annotations.points).all(axis=(1, 2))
    if lacking.any():
        points = annotations.points[lacking]
        boxes[lacking, :2] = np.nanmin(points, axis=1)
        boxes[lacking, 2:] = np.nanmax(points, axis=1) + 1
    return boxes, int(lacking.sum())
