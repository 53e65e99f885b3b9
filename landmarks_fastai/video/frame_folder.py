"""Folders of images as the frames of a video, with their times in times.csv."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.files import atomic_write, report_write_errors, write_csv
from landmarks_fastai.utils.images import find_images, read_image
from landmarks_fastai.video.reader import VideoFrame
from landmarks_fastai.video.timing import DEFAULT_RATE, TIME_BASE, average_rate, parse_frame_rate

TIMES_FILE = "times.csv"
COLUMNS = ("name", "seconds")
REMEDY = f"correct or delete {TIMES_FILE}, or use --fps"

FRAME_NAME = re.compile(r"frame_\d{6,}\.png")
"""Names of the files that `FrameFolderWriter` writes."""


class FrameFolderReader:
    """Reads the images of a folder, in natural order, as the frames of a video.

    Parameters
    ----------
    path
        The folder; its subfolders are not read.
    fps
        Frames per second. None: the times in the folder's times.csv, or 25 per second without one.

    Attributes
    ----------
    size
        Width and height of every frame, pixels.
    rate
        Average number of frames per second.
    time_base
        Unit of times, seconds.
    start, end
        The span in seconds: 0 and None.
    duration
        End of the last frame, seconds.
    expected
        Number of frames.
    damage
        Always None: an image that cannot be read is an error.

    Raises
    ------
    UserError
        If it is not a folder, contains no images, or times.csv does not match them. While frames are read:
        if an image cannot be read or has another size than the first one.
    """

    def __init__(self, path: str | Path, fps: float | Fraction | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{path}: not a folder of images")
        self._images = find_images([self.path])
        times_file = self.path / TIMES_FILE
        if fps is None and times_file.is_file():
            self._times = _read_times(times_file, self._images)
            self.time_base = TIME_BASE
            self.rate = average_rate(self._times)
        else:
            self.rate = DEFAULT_RATE if fps is None else parse_frame_rate(fps)
            self.time_base = 1 / self.rate
            self._times = [index / self.rate for index in range(len(self._images))]
        self.start, self.end = Fraction(0), None
        self.expected = len(self._images)
        self.duration = self._times[-1] + 1 / self.rate
        self.damage: str | None = None
        height, width = read_image(self._images[0]).shape[:2]
        self.size = width, height

    def __enter__(self) -> FrameFolderReader:
        """Return the reader; there is nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing; there is nothing to close."""

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames."""
        for index, (path, time) in enumerate(zip(self._images, self._times, strict=True)):
            image = read_image(path)
            height, width = image.shape[:2]
            if (width, height) != self.size:
                raise UserError(
                    f"{path}: {width} x {height} px, but {self._images[0].name} is {self.size[0]} x"
                    f" {self.size[1]} px; all frames must have the same size"
                )
            yield VideoFrame(index, time, image)


class FrameFolderWriter:
    """Writes frames as frame_000001.png and so on, and at the end their times as times.csv.

    Parameters
    ----------
    path
        The folder; it is created if needed.
    overwrite
        Allow a folder that is not empty; frames and times of an earlier run in it are deleted.

    Raises
    ------
    UserError
        If it is a file, or not empty without `overwrite`.
    RunError
        If it cannot be written to.
    """

    def __init__(self, path: str | Path, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._rows: list[tuple[str, str]] = []
        self._last: Fraction | None = None

    def __enter__(self) -> FrameFolderWriter:
        """Create the folder or delete an earlier run's frames."""
        with report_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            existing = list(self.path.iterdir())
            if existing and not self._overwrite:
                raise UserError(f"{self.path}: not empty; choose another folder, or use --overwrite")
            for file in existing:
                if file.name == TIMES_FILE or FRAME_NAME.fullmatch(file.name):
                    file.unlink()
        return self

    def write(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """Write a frame.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB.
        time
            Seconds from the beginning of the video; later than that of the previous frame.

        Raises
        ------
        ValueError
            If the time is not later.
        RunError
            If the image cannot be written, for example because the disk is full.
        """
        if self._last is not None and time <= self._last:
            raise ValueError(f"the frame at {float(time):.6f} s is not later than the previous one")
        name = f"frame_{len(self._rows) + 1:06d}.png"
        with atomic_write(self.path / name) as partial:
            # higher levels of zlib take ten times as long and save a tenth of the space
            Image.fromarray(image).save(partial, "PNG", compress_level=1)
        self._rows.append((name, format_time(time)))
        self._last = time

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the times of the frames that exist, whatever ended the block."""
        if not self._rows:
            return
        try:
            write_csv(self.path / TIMES_FILE, [COLUMNS, *self._rows])
        except LandmarksError:
            if kind is None:  # otherwise the exception that ended the block is more informative
                raise


def format_time(time: Fraction) -> str:
    """Return a time in seconds as text; `parse_time` restores a multiple of `TIME_BASE` exactly."""
    return f"{float(time):.9f}"


def parse_time(text: str) -> Fraction | None:
    """Return a time in seconds, rounded to a multiple of `TIME_BASE`; None if it is not a finite number."""
    with suppress(ValueError):
        if isfinite(float(text)):
            return round(Fraction(text) / TIME_BASE) * TIME_BASE
    return None


def _read_times(path: Path, images: Sequence[Path]) -> list[Fraction]:
    """Return the time of each image, in seconds from the first one."""
    known = _read_rows(path)
    times: list[Fraction] = []
    for image in images:
        if image.name not in known:
            raise UserError(f"{path}: has no row for {image.name}; {REMEDY}")
        time = known[image.name]
        if times and time <= times[-1]:
            raise UserError(
                f"{path}: the time of {image.name} is not later than that of the previous frame; {REMEDY}"
            )
        times.append(time)
    return [time - times[0] for time in times]


def _read_rows(path: Path) -> dict[str, Fraction]:
    """Return the times in seconds in a times.csv, by file name."""
    times = {}
    try:
        with path.open("rb") as file:
            reader = CsvReader(file, str(path))
            if tuple(reader.columns) != COLUMNS:
                raise UserError(f"{path}: the first line must be {','.join(COLUMNS)}; {REMEDY}")
            for line, (name, text) in reader.rows():
                time = parse_time(text)
                if time is None:
                    raise UserError(f"{reader.at(line)}: {text!r} is not a number of seconds; {REMEDY}")
                times[name] = time
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    return times
