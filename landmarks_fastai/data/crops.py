"""Annotations to a data set: images are decoded once, in parallel, and each row is cropped and resized."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotation_checks import check_crops
from landmarks_fastai.data.annotations import NOT_LABELED, Annotations
from landmarks_fastai.data.bad_rows import raise_bad_rows
from landmarks_fastai.data.cache import IMAGES_NAME, load_or_build
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray, image_id, open_images
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.geometry import Crop, center_crop, extract_crop, outside_square, square_crop
from landmarks_fastai.utils.csv_reader import check_point_range
from landmarks_fastai.utils.files import reserve_space
from landmarks_fastai.utils.images import read_image_and_depth
from landmarks_fastai.utils.processors import available_processors
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import format_count, suggest
from landmarks_fastai.video.io import read_video

Floats = NDArray[np.float64]

CROPS = ("landmarks", "box", "image")
DEFAULT_SIZE = 128
MARGIN = 1.6
"""Side of the crop around the landmarks, relative to the longer side of their bounding box."""

POINTS_NAME, IDS_NAME, GRAY_NAME, DONE_NAME = "points.npy", "ids.npy", "gray.npy", "done.npy"
SIDES_NAME, SIZES_NAME, DEPTHS_NAME = "sides.npy", "sizes.npy", "depths.npy"
"""Files of an unfinished cache entry, by which an interrupted build continues."""


@dataclass(frozen=True)
class CropOptions:
    """How rows are cropped and resized.

    Parameters
    ----------
    size
        Side of the resized crops, pixels.
    crop
        ``"landmarks"``: a crop around the labeled landmarks, 1.6 times as large as the longer side of their
        bounding box; the center crop if they coincide or are missing. ``"box"``: the box of the row, extended
        to a square; as ``"landmarks"`` if it has none. ``"image"``: the center crop of the image. Outside the
        image, edge pixels are repeated.
    """

    size: int = DEFAULT_SIZE
    crop: str = "landmarks"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.crop not in CROPS:
            raise UserError(f"data.crop: no such crop {self.crop!r}; {suggest(self.crop, CROPS)}")
        if self.size < 1:
            raise UserError(f"data.image_size: {self.size} must be at least 1 pixel")


def load_crops(
    annotations: Annotations,
    options: CropOptions,
    cache: Path,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> LandmarkDataset:
    """Return the cropped and resized rows of annotations, from the cache or by decoding their images.

    The cache key is derived from the labels and the paths, sizes and modification times of the images,
    because hashing gigabytes of images on every start would take too long.

    Parameters
    ----------
    annotations
        The labels. Points are in pixels of the upright image, after its EXIF orientation is applied.
    options
        Crop and size.
    cache
        Cache folder, see `load_or_build`.
    skip_bad
        Leave out rows that cannot be used, instead of raising an error.
    progress
        Called with the number of images decoded so far and their total.

    Returns
    -------
    LandmarkDataset
        Gray if all images are gray, whatever their file format, else RGB. Landmarks outside the crop are NaN.
        `digest` depends on the contents only, and is therefore the same for a copy of the files.

    Raises
    ------
    UserError
        If rows cannot be used and `skip_bad` is False (see `raise_bad_rows`), or no row is left.
    """
    key = (_fingerprint(annotations), str(options.size), options.crop, str(skip_bad))

    def build(folder: Path | None) -> LandmarkDataset:
        return _Decoder(annotations, options, folder, progress).run(cache, skip_bad)

    dataset = load_or_build(cache, "crops", key, build)
    # the same labels may have been read from another place
    return replace(dataset, source=annotations.source)


def _fingerprint(annotations: Annotations) -> str:
    """Return a hash that changes when a label, an image file or its path changes."""
    content = hashlib.sha256()
    for image in annotations.images:
        try:
            status = image.path.stat()
            content.update(
                f"{image.path.absolute()}\0{image.frame}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
            )
        except (
            OSError,
            ValueError,
        ):  # ValueError: a name that no file can have, such as one with a null byte
            content.update(f"{image.path.absolute()}\0missing\n".encode(errors="backslashreplace"))
    arrays = (annotations.rows, annotations.points, annotations.visibility, annotations.boxes)
    for array in arrays:
        content.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    text = (
        annotations.schema.to_dict(),
        annotations.names,
        annotations.groups,
        sorted(annotations.columns.items()),
        annotations.bad_rows,
        annotations.notes,
    )
    content.update(json.dumps(text).encode())
    return content.hexdigest()


class _Decoder:
    """Decodes the images of annotations and crops their rows.

    Parameters
    ----------
    annotations, options, progress
        See `load_crops`.
    folder
        Folder of an unfinished cache entry, whose results are kept; None to keep everything in memory.
    """

    def __init__(
        self, annotations: Annotations, options: CropOptions, folder: Path | None, progress: Progress | None
    ) -> None:
        self.annotations, self.options = annotations, options
        self.folder, self.progress = folder, progress
        n, m, k = len(annotations), len(annotations.images), len(annotations.schema)
        self.images = self._array(IMAGES_NAME, (n, options.size, options.size, 3), np.uint8)
        self.points = self._array(POINTS_NAME, (n, k, 2), np.float32)
        self.sides = self._array(SIDES_NAME, (n,), np.float32)
        self.ids = self._array(IDS_NAME, (m,), np.uint64)
        self.sizes = self._array(SIZES_NAME, (m, 2), np.int32)
        self.depths = self._array(DEPTHS_NAME, (m,), np.uint8)
        """Bits in use of images whose levels were scaled by them, else 0."""
        self.is_gray = self._array(GRAY_NAME, (m,), np.bool_)
        self.is_done = self._array(DONE_NAME, (m,), np.bool_)
        self.bad: dict[int, str] = {}
        self.video_notes: dict[str, None] = {}
        self.locations = annotations.locations or annotations.names
        order = np.argsort(annotations.rows, kind="stable")
        bounds = np.searchsorted(annotations.rows[order], np.arange(m + 1))
        self.rows_of = [order[a:b].tolist() for a, b in pairwise(bounds)]

    def _array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return an array of zeros in memory or, with a folder, in a file of it, whose content is kept."""
        if self.folder is None or 0 in shape:
            return np.zeros(shape, dtype)
        path = self.folder / name
        with suppress(OSError, ValueError):
            array = np.lib.format.open_memmap(path, mode="r+")
            if array.shape == shape and array.dtype == dtype:
                reserve_space(path)
                return array
        return _create_array(path, dtype, shape)

    def run(self, cache: Path, skip_bad: bool) -> LandmarkDataset:
        """Decode what is not done yet, and return the data set."""
        self._decode_all()
        messages = [*self.annotations.bad_rows, *(self.bad[row] for row in sorted(self.bad))]
        if messages and not skip_bad:
            raise_bad_rows(self.annotations, messages, cache)
        rows = np.setdiff1d(np.arange(len(self.annotations)), np.array(list(self.bad), np.int64))
        if not len(rows):
            source = self.annotations.source
            raise UserError(f"{source}: no row can be used; the first problem: {messages[0]}")
        notes = [*self.annotations.notes, *_describe_depths(self.depths), *self.video_notes]
        if messages:
            count = format_count(len(messages), "row")
            notes.append(f"{count} skipped (--skip-bad); the first: {messages[0]}")
        return self._dataset(rows, tuple(notes))

    def _decode_all(self) -> None:
        """Decode the images in threads; Pillow releases the interpreter lock while it decodes and resizes."""
        tasks = iter(self._tasks())
        total = len(self.rows_of)
        with ThreadPoolExecutor(available_processors()) as pool:
            running: set[Future[None]] = set()
            while True:
                # a bounded number of tasks is submitted at a time, so that Ctrl-C ends soon
                running |= {pool.submit(task) for task in islice(tasks, 64 - len(running))}
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                if self.progress is not None:
                    self.progress(int(self.is_done.sum()), total, "images")

    def _tasks(self) -> Iterator[Callable[[], None]]:
        """Yield a task for each image that is not decoded yet, and one for the frames of each video."""
        videos: dict[Path, dict[int, int]] = defaultdict(dict)
        for index, image in enumerate(self.annotations.images):
            if self.is_done[index] or not self.rows_of[index]:
                continue
            if image.frame is None:
                yield partial(self._read_file, index, image.path)
            else:
                videos[image.path][image.frame] = index
        for path, frames in videos.items():
            yield partial(self._read_frames, path, frames)

    def _read_file(self, index: int, path: Path) -> None:
        try:
            pixels, depth = read_image_and_depth(path)
        except UserError as error:
            self._reject(index, str(error))
        else:
            self.depths[index] = depth or 0
            self._crop_rows(index, pixels)

    def _read_frames(self, path: Path, frames: dict[int, int]) -> None:
        """Read the frames of a video; `frames` maps the index of a frame to that of the image."""
        missing = dict(frames)
        try:
            with read_video(path) as video:
                for number, frame in enumerate(video):
                    if number in missing:
                        self._crop_rows(missing.pop(number), frame.image)
                    if not missing:
                        break
                self.video_notes |= dict.fromkeys(f"{path}: {note}" for note in video.notes)
        except LandmarksError as error:
            for index in missing.values():
                self._reject(index, str(error))
        else:
            for number, index in missing.items():
                self._reject(index, f"{path}: has no frame {number}")

    def _reject(self, index: int, reason: str) -> None:
        for row in self.rows_of[index]:
            self.bad[row] = f"{self.locations[row]}: {reason}"

    def _crop_rows(self, index: int, pixels: NDArray[np.uint8]) -> None:
        """Crop the rows on one image."""
        height, width = pixels.shape[:2]
        for row in self.rows_of[index]:
            labels = self.annotations.points[row]
            try:
                for name, (x, y) in zip(self.annotations.schema.names, labels.tolist(), strict=True):
                    check_point_range(self.locations[row], name, (x, y), (width, height))
                crop = choose_crop(labels, self._box(row), width, height, self.options.crop)
            except UserError as error:
                self.bad[row] = str(error)
                continue
            self.images[row] = extract_crop(pixels, crop, self.options.size, 3)
            self.points[row] = map_to_crop(labels, crop, self.options.size)
            self.sides[row] = crop.side
        self.ids[index], self.sizes[index] = image_id(pixels), (width, height)
        self.is_gray[index] = bool((pixels == pixels[..., :1]).all())
        # a row with a label far outside is checked again, so that an interrupted build reports it
        self.is_done[index] = not any(row in self.bad for row in self.rows_of[index])

    def _box(self, row: int) -> Floats | None:
        boxes = self.annotations.boxes
        return None if boxes is None or np.isnan(boxes[row]).any() else boxes[row]

    def _dataset(self, rows: NDArray[np.int64], notes: tuple[str, ...]) -> LandmarkDataset:
        annotations = self.annotations
        kept = annotations.subset(rows)
        images_used = np.unique(kept.rows)
        pixels = self._gray() if self.is_gray[images_used].all() else self.images
        points = np.array(self.points)[rows]
        visibility = None
        if kept.visibility is not None:  # a landmark outside the crop is not labeled
            visibility = np.where(np.isnan(points).any(axis=2), NOT_LABELED, kept.visibility).astype(np.uint8)
        ids = np.asarray(self.ids)[annotations.rows]
        content = hashlib.sha256(ids[rows].tobytes())
        content.update(points.tobytes())
        content.update(b"" if visibility is None else visibility.tobytes())
        text = (annotations.schema.to_dict(), self.options.size, self.options.crop)
        content.update(json.dumps(text).encode())
        return LandmarkDataset(
            images=ImageArray(pixels, None if len(rows) == len(annotations) else rows, ids),
            points=points,
            schema=annotations.schema,
            names=kept.names,
            source=annotations.source,
            digest=content.hexdigest(),
            groups=None if kept.groups is None else number_groups(kept.groups),
            visibility=visibility,
            columns=kept.columns,
            sides=np.array(self.sides)[rows],
            notes=(*notes, *check_crops(kept, self.sizes, points)),
        )

    def _gray(self) -> NDArray[np.uint8]:
        """Return the images with one channel, by rewriting the file, if there is one."""
        if self.folder is None:
            return np.ascontiguousarray(self.images[..., :1])
        path = self.folder / "gray-images.npy"
        gray = _create_array(path, np.uint8, (*self.images.shape[:3], 1))
        for start in range(0, len(gray), 1024):
            gray[start : start + 1024] = self.images[start : start + 1024, ..., :1]
        gray.flush()
        os.replace(path, self.folder / IMAGES_NAME)
        return open_images(self.folder / IMAGES_NAME)


def _describe_depths(depths: NDArray[np.uint8]) -> Iterator[str]:
    """Yield a line for each number of bits in use by which images were scaled; it is 0 for the others."""
    for depth in np.unique(depths[depths > 0]).tolist():
        count = format_count(int((depths == depth).sum()), "image")
        yield f"{count} of 16 bits per level, of which {depth} are in use; {2**depth - 1} is shown as white"


def _create_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Return a memory-mapped array of zeros for which there is space on the disk."""
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    reserve_space(path)
    return array


def number_groups(groups: Sequence[str]) -> NDArray[np.int64]:
    """Return the group number of each row, numbered in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def choose_crop(points: Floats, box: Floats | None, width: int, height: int, crop: str) -> Crop:
    """Return the crop of one row; see `CropOptions`.

    Parameters
    ----------
    points
        (K, 2) pixels of the image; NaN where unlabeled.
    box
        (4,) edges x0, y0, x1, y1 of the row in pixels; None if it has none.
    width, height
        Size of the image in pixels.
    crop
        One of `CROPS`.
    """
    if crop == "box" and box is not None:
        return square_crop(*box.tolist())
    labeled = points[~np.isnan(points).any(axis=1)]
    if crop != "image" and len(labeled):
        low, high = labeled.min(axis=0), labeled.max(axis=0)
        longer_side = float((high - low).max())
        if longer_side >= 1:  # the size of the face is unknown if all landmarks coincide
            x, y = ((low + high) / 2 + 0.5).tolist()  # in edge coordinates
            side = MARGIN * longer_side
            return Crop(x - side / 2, y - side / 2, side)
    return center_crop(width, height)


def map_to_crop(points: Floats, crop: Crop, size: int) -> Floats:
    """Map (K, 2) points of the image to pixels of the `size` x `size` crop; those outside become NaN."""
    mapped = crop.to_crop(points, size)
    mapped[outside_square(mapped, size)] = np.nan
    return mapped
