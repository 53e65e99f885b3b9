"""A folder of pictures as a video's frames, and a video's frames as a folder of pictures.

Knows names and the table of times beside them; reads as `videofile.VideoReader` does. Knows nothing about
codecs, faces or networks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai import files
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.images import find_images, read_image
from landmarks_fastai.videofile import UNTOLD_RATE, VideoFrame, frame_rate

TIMES = "times.csv"
HEADER = ("name", "seconds")
OWN_NAME = re.compile(r"frame_\d{6,}\.png")

TIME_BASE = Fraction(1, 360_000)
"""Holds whole milliseconds, 90 kHz, and every usual rate, 30000 / 1001 with its kin too."""


class FrameFolder:
    """Reads the pictures right in a folder, in natural order, as the frames of a video.

    Parameters
    ----------
    path
        The folder.
    fps
        Frames a second. None: the times are those of the folder's times.csv; without one, 25 a second.

    Attributes
    ----------
    size
        Width and height of every frame, px.
    rate
        Average number of frames a second.
    time_base
        Unit of times, s.
    duration
        Seconds until the end of the last frame.
    expected
        How many frames will come.
    damage
        None: a picture that can't be read is an error.

    Raises
    ------
    UserError
        If it is no folder, holds no pictures, or times.csv doesn't fit them. While frames come: if a
        picture can't be read, or hasn't the first one's size.
    """

    def __init__(self, path: str | Path, fps: float | Fraction | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{path}: not a folder of pictures")
        self._pictures = find_images([self.path])
        table = self.path / TIMES
        if fps is None and table.is_file():
            self._times = _read_times(table, self._pictures)
            self.time_base = TIME_BASE
            self.rate = _average_rate(self._times)
        else:
            self.rate = UNTOLD_RATE if fps is None else frame_rate(fps)
            self.time_base = 1 / self.rate
            self._times = [index / self.rate for index in range(len(self._pictures))]
        self.expected = len(self._pictures)
        self.duration = self._times[-1] + 1 / self.rate
        self.damage: str | None = None
        height, width = read_image(self._pictures[0]).shape[:2]
        self.size = width, height

    def __enter__(self) -> FrameFolder:
        """Return itself: there is nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is nothing to close."""

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames."""
        for index, (path, time) in enumerate(zip(self._pictures, self._times, strict=True)):
            image = read_image(path)
            height, width = image.shape[:2]
            if (width, height) != self.size:
                raise UserError(
                    f"{path}: {width} x {height} px, and {self._pictures[0].name} is {self.size[0]} x"
                    f" {self.size[1]}; a video's frames are of one size"
                )
            yield VideoFrame(index, time, image)


class FrameWriter:
    """Writes frames as frame_000001.png and so on, and their times to times.csv when all are there.

    Parameters
    ----------
    path
        The folder; it is made where needed.
    overwrite
        Take a folder that is not empty; an earlier run's frames and times in it are deleted.

    Raises
    ------
    UserError
        If it is a file, or not empty and not to be overwritten.
    RunError
        If it can't be written to.
    """

    def __init__(self, path: str | Path, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._rows: list[tuple[str, str]] = []
        self._last: Fraction | None = None

    def __enter__(self) -> FrameWriter:
        """Make the folder ready."""
        with files.write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            there = list(self.path.iterdir())
            if there and not self._overwrite:
                raise UserError(f"{self.path}: not empty; choose another folder, or use --overwrite")
            for file in there:
                if file.name == TIMES or OWN_NAME.fullmatch(file.name):
                    file.unlink()
        return self

    def write(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """Write a frame.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB.
        time
            Seconds from the beginning; later than the frame before.

        Raises
        ------
        ValueError
            If the time is not later.
        RunError
            If the picture can't be written: no room.
        """
        if self._last is not None and time <= self._last:
            raise ValueError(f"a frame at {float(time):.6f} s, which is not later than the one before")
        name = f"frame_{len(self._rows) + 1:06d}.png"
        with files.replacing(self.path / name) as part:
            # fast: zlib's higher levels take ten times as long for a tenth less
            Image.fromarray(image).save(part, "PNG", compress_level=1)
        self._rows.append((name, f"{float(time):.9f}"))
        self._last = time

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the times of the frames that are there, whatever ended the block."""
        if not self._rows:
            return
        try:
            files.write_csv(self.path / TIMES, [HEADER, *self._rows])
        except LandmarksError:
            if kind is None:  # else what ended the block says more
                raise


def _read_times(table: Path, pictures: list[Path]) -> list[Fraction]:
    """Read when each picture is shown, s from the first."""
    remedy = f"correct or delete {TIMES}, or give --fps"
    told: dict[str, Fraction] = {}
    try:
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != HEADER:
                raise UserError(f"{table}: the first line is not {','.join(HEADER)}; {remedy}")
            for row in reader:
                seconds = _seconds(row)
                if seconds is None:
                    raise UserError(f"{table}, line {reader.line_num}: not a name and seconds; {remedy}")
                told[row[0]] = seconds
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: can't be read ({error}); {remedy}") from error
    times: list[Fraction] = []
    for picture in pictures:
        if picture.name not in told:
            raise UserError(f"{table}: has no row for {picture.name}; {remedy}")
        time = told[picture.name]
        if times and time <= times[-1]:
            raise UserError(f"{table}: {picture.name} is not later than the picture before it; {remedy}")
        times.append(time)
    return [time - times[0] for time in times]


def _average_rate(times: list[Fraction]) -> Fraction:
    """Return frames a second, from times that begin at 0."""
    if len(times) == 1:
        return UNTOLD_RATE
    # short enough for libav's 32 bits, and long enough for 30000 / 1001
    return max(((len(times) - 1) / times[-1]).limit_denominator(5000), Fraction(1, 5000))


def _seconds(row: list[str]) -> Fraction | None:
    """Read a row's time, to the nearest `TIME_BASE`."""
    with suppress(ValueError):
        _, text = row
        if isfinite(float(text)):
            return round(Fraction(text) / TIME_BASE) * TIME_BASE
    return None
