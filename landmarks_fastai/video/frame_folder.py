"""Folders of images as the frames of a video, with their times in times.csv."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.files import partial_path, remove_stale_partials, report_write_errors, write_csv
from landmarks_fastai.utils.gray_levels import depth_note
from landmarks_fastai.utils.images import find_images, read_image, read_image_and_depth
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.video.reader import VideoFrame
from landmarks_fastai.video.timing import DEFAULT_RATE, TIME_BASE, average_rate, parse_frame_rate

TIMES_FILE = "times.csv"
COLUMNS = ("name", "seconds")
REMEDY = f"correct or delete {TIMES_FILE}, or use --fps"

MAX_SECONDS = 1e9
"""Later times, 30 years, are refused; up to there, a float is exact to a tenth of `TIME_BASE`."""

FRAME_NAME = re.compile(r"frame_\d{6,}\.png")
"""Names of the files that `FrameFolderWriter` writes."""

MARKER = ("Software", "landmarks-fastai")
"""Text in each PNG, by which frames are recognized when they are replaced."""

PARTIAL_FOLDER = "frames"
"""Name for `partial_path`."""


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
    notes
        Which files were skipped, and which images were scaled, one line each; complete after the last frame.

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
        self._notes: list[str] = []
        self._images = find_images([self.path], self._notes.append, ignore=(TIMES_FILE,))
        self._depths: dict[int, Path] = {}
        """The first image of each number of bits in use, see `depth_note`."""
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

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped or scaled so far, one line each."""
        return (*self._notes, *(depth_note(path, depth) for depth, path in self._depths.items()))

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames."""
        for index, (path, time) in enumerate(zip(self._images, self._times, strict=True)):
            image, depth = read_image_and_depth(path)
            if depth is not None:
                self._depths.setdefault(depth, path)
            height, width = image.shape[:2]
            if (width, height) != self.size:
                raise UserError(
                    f"{path}: {width} x {height} px, but {self._images[0].name} is {self.size[0]} x"
                    f" {self.size[1]} px; all frames must have the same size"
                )
            yield VideoFrame(index, time, image)


class FrameFolderWriter:
    """Writes frames as frame_000001.png and so on, and their times as times.csv.

    The files are collected in a hidden subfolder, and are put into the folder at the end of the with block,
    whatever ends it. If an exception ends it, or no frame was written, the frames of an earlier run are kept
    instead.

    Parameters
    ----------
    path
        The folder; it is created if needed.
    overwrite
        Allow a folder that is not empty; frames and times of an earlier run in it are replaced.

    Raises
    ------
    UserError
        If it is a file, or not empty without `overwrite`, or if files of another origin have the names of
        frames.
    RunError
        If it cannot be written to.
    """

    notes: tuple[str, ...] = ()
    """What is changed or left out: nothing."""

    def __init__(self, path: str | Path, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._partial = partial_path(self.path / PARTIAL_FOLDER)
        self._earlier: list[str] = []
        self._rows: list[tuple[str, str]] = []
        self._last: Fraction | None = None

    def __enter__(self) -> FrameFolderWriter:
        """Create the folder, or find the frames of an earlier run."""
        with report_write_errors(self.path):
            self._new = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            remove_stale_partials(self.path, [PARTIAL_FOLDER])
            if not self._overwrite and any(self.path.iterdir()):
                raise UserError(f"{self.path}: not empty; choose another folder, or use --overwrite")
            self._earlier = _written_frames(self.path)
            self._partial.mkdir()
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
        info = PngInfo()
        info.add_text(*MARKER)
        with report_write_errors(self.path / name):
            # higher levels of zlib take ten times as long and save a tenth of the space
            Image.fromarray(image).save(self._partial / name, "PNG", compress_level=1, pnginfo=info)
        self._rows.append((name, format_time(time)))
        self._last = time

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Put the frames into their folder, with their times."""
        try:
            if self._rows and not (kind is not None and self._earlier):
                self._publish()
        except LandmarksError:
            if kind is None:  # otherwise the exception that ended the block is more informative
                raise
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
            if self._new:
                with suppress(OSError):  # it is not empty
                    self.path.rmdir()

    def _publish(self) -> None:
        """Replace the earlier frames by the new ones."""
        try:
            with report_write_errors(self.path / TIMES_FILE):
                write_csv(self._partial / TIMES_FILE, [COLUMNS, *self._rows])
        except LandmarksError:
            if not self._earlier:  # frames without times are better than nothing
                self._move([name for name, _ in self._rows])
            raise
        with report_write_errors(self.path):
            # frames without times tell that the replacement was interrupted
            (self.path / TIMES_FILE).unlink(missing_ok=True)
        names = [name for name, _ in self._rows]
        self._move(names)
        with report_write_errors(self.path):
            for name in set(self._earlier) - set(names):
                (self.path / name).unlink(missing_ok=True)
        self._move([TIMES_FILE])

    def _move(self, names: Sequence[str]) -> None:
        for name in names:
            with report_write_errors(self.path / name):
                os.replace(self._partial / name, self.path / name)


def _written_frames(folder: Path) -> list[str]:
    """Return the names of the frames that `FrameFolderWriter` has written to a folder.

    Raises
    ------
    UserError
        If files of another origin have the names of frames or times.
    """
    frames = [path.name for path in folder.iterdir() if FRAME_NAME.fullmatch(path.name.lower())]
    foreign = sorted(name for name in frames if not _is_marked(folder / name))
    if not frames and (folder / TIMES_FILE).exists():
        foreign = [TIMES_FILE]
    if foreign:
        more = f" and {format_count(len(foreign) - 1, 'other file')}" if len(foreign) > 1 else ""
        raise UserError(
            f"{folder}: {foreign[0]}{more} would be replaced, but was not written by this program; choose"
            " another folder"
        )
    return frames


def _is_marked(path: Path) -> bool:
    """Return whether a file is a frame that `FrameFolderWriter` wrote."""
    key, value = MARKER
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return bool(image.info.get(key) == value)
    except Exception:  # Pillow raises many types of exception
        return False


def format_time(time: Fraction) -> str:
    """Return a time in seconds as text; `parse_time` restores a multiple of `TIME_BASE` exactly."""
    return f"{float(time):.9f}"


def parse_time(text: str) -> Fraction | None:
    """Return a time in seconds, rounded to a multiple of `TIME_BASE`.

    None if it is not a number, or not within `MAX_SECONDS`.
    """
    with suppress(ValueError):
        # as a float, because a Fraction of 1e-9999999 has ten million digits
        seconds = float(text)
        if abs(seconds) <= MAX_SECONDS:
            return round(Fraction(seconds) / TIME_BASE) * TIME_BASE
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
                time = parse_time(text if reader.separator == "," else text.replace(",", "."))
                if time is None:
                    raise UserError(f"{reader.at(line)}: {text[:40]!r} is not a number of seconds; {REMEDY}")
                times[name] = time
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    return times
