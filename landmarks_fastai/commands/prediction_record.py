"""The record of `predict`: what made the results of a folder, and a line for each image that is done.

It is written line by line, so that nothing is lost whatever ends the process, and a line is written before
the file that it describes: a drawing that is not in the record is not one of ours.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.landmark_files import ImageResult
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import report_write_errors

RECORD_NAME = "predictions.jsonl"
FORMAT = "landmarks-fastai predictions"
VERSION = 1

RESUME_HINT = "free some space, and go on with --resume"

Made = Mapping[str, Any]
"""Options that determine the results, as JSON values."""

OPTIONS = {
    "models": "--model",
    "detector": "--detector",
    "refine": "--refine",
    "min_confidence": "--min-confidence",
    "max_faces": "--max-faces",
    "names": "--names",
    "draw": "--no-draw",
    "boxes": "--box or --boxes",
    "outputs": "--json, --csv or --format",
}
"""Options by their key in the record."""

FileState = tuple[int, int]
"""Size of a file in bytes, and its time of modification in nanoseconds."""


@dataclass(frozen=True)
class RecordedImage:
    """What the record says about an image.

    Parameters
    ----------
    offset
        Position of its line in the record, bytes.
    drawing
        File name of its drawing; None if it was not drawn.
    drawing_bytes
        Size of the drawing.
    source_state
        State of the image file before it was read.
    """

    offset: int
    drawing: str | None
    drawing_bytes: int
    source_state: FileState


class PredictionRecord:
    """A record that can be appended to.

    Attributes
    ----------
    path
        The file.
    made
        Options that determine the results.
    images
        The images that are done, by their absolute path; if one was done again, its last line counts.
    outputs
        Digest of each file or folder of landmarks, by name. An empty digest: writing it has begun, but may
        not be complete.
    """

    def __init__(self, path: Path, made: Made) -> None:
        self.path, self.made = path, made
        self.images: dict[str, RecordedImage] = {}
        self.outputs: dict[str, str] = {}
        self._end = 0
        """Position after the last complete line; a process that is killed may leave a part of another."""

    @property
    def drawings(self) -> dict[str, int]:
        """The size of each drawing in bytes, by its file name."""
        each = self.images.values()
        return {image.drawing: image.drawing_bytes for image in each if image.drawing is not None}

    @classmethod
    def create(cls, path: Path, made: Made) -> PredictionRecord:
        """Begin a new record.

        Raises
        ------
        UserError, RunError
            If it cannot be written; see `report_write_errors`.
        """
        record = cls(path, made)
        with report_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        try:
            record._append({"format": FORMAT, "version": VERSION, "made": made})
        except BaseException:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return record

    @classmethod
    def read(cls, path: Path) -> PredictionRecord | None:
        """Return a record, or None if there is none, or a process was killed while it began one.

        Raises
        ------
        UserError
            If the file is not a record, or is damaged.
        """
        record: PredictionRecord | None = None
        number = 0
        try:
            with path.open("rb") as file:
                for line in file:
                    number += 1
                    if not line.endswith(b"\n"):
                        break
                    if record is None:
                        record = cls(path, _parse_head(line))
                    else:
                        record._read_line(json.loads(line))
                    record._end += len(line)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise UserError(
                f"{path}, line {number}: is not a line of a record of predictions; move the file away, or"
                " choose another --out"
            ) from None
        return record

    def _read_line(self, line: dict[str, Any]) -> None:
        """Take over one line, which begins at the end of those read so far."""
        if "output" in line:
            self.outputs[str(line["output"])] = str(line["digest"])
            return
        drawing: str | None
        drawing, size = None, 0
        if line["drawing"] is not None:
            drawing, size = str(line["drawing"][0]), int(line["drawing"][1])
        source_size, modified = line["state"]
        recorded = RecordedImage(self._end, drawing, size, (int(source_size), int(modified)))
        self.images[str(line["source"])] = recorded

    def add_image(self, result: ImageResult, state: FileState, drawing_bytes: int) -> None:
        """Append the landmarks of an image, before its drawing is written.

        Parameters
        ----------
        result
            The landmarks.
        state
            See `RecordedImage.source_state`.
        drawing_bytes
            Size of the drawing; 0 without one.
        """
        offset, source = self._end, source_key(result.image)
        drawing = None if result.drawing is None else result.drawing.name
        self._append(
            {
                "image": str(result.image),
                "source": source,
                "state": state,
                "size": result.size,
                "drawing": None if drawing is None else [drawing, drawing_bytes],
                "faces": _landmarks_to_json(result.landmarks),
            }
        )
        self.images[source] = RecordedImage(offset, drawing, drawing_bytes, state)

    def add_output(self, name: str, digest: str) -> None:
        """Append the digest of a file or folder of landmarks; see `outputs`."""
        self._append({"output": name, "digest": digest})
        self.outputs[name] = digest

    def results(self, schema: LandmarkSchema, folder: Path) -> Iterator[ImageResult]:
        """Yield the landmarks of all images, in the order in which they were first done.

        Parameters
        ----------
        schema
            Names of the landmarks.
        folder
            The folder that contains the drawings.
        """
        with self.path.open("rb") as file:
            for recorded in self.images.values():
                file.seek(recorded.offset)
                line = json.loads(file.readline())
                width, height = line["size"]
                landmarks = _landmarks_from_json(line["faces"], schema)
                drawing = None if recorded.drawing is None else folder / recorded.drawing
                yield ImageResult(Path(line["image"]), (width, height), landmarks, drawing)

    def _append(self, line: dict[str, Any]) -> None:
        """Append a line; if that fails, the complete lines stay."""
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        mode: Literal["r+b", "xb"] = "r+b" if self._end else "xb"
        with report_write_errors(self.path, RESUME_HINT), self.path.open(mode, buffering=0) as file:
            file.truncate(self._end)
            file.seek(self._end)
            if file.write(data) != len(data):  # a disk with too little space takes a part of the line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += len(data)


def source_key(image: Path) -> str:
    """Return the key of an image in the record: its absolute path."""
    return str(image.resolve())


def file_state(path: Path) -> FileState:
    """Return the state of a file, which changes when it is written again.

    Raises
    ------
    UserError
        If there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def check_made(out: Path, before: Made, now: Made) -> None:
    """Check that results were made with the same options.

    Raises
    ------
    UserError
        If they were not; the message names the first option that differs.
    """
    for key, option in OPTIONS.items():
        if before.get(key) != now.get(key):
            raise UserError(
                f"{out}: its results were made with a different {option}; repeat the options of the first"
                " run, or use --overwrite"
            )


def _parse_head(line: bytes) -> Made:
    """Return the options in the first line of a record; a ValueError if it is none of this version."""
    head = json.loads(line)
    if head["format"] != FORMAT or head["version"] != VERSION or not isinstance(head["made"], dict):
        raise ValueError
    return dict(head["made"])


def _landmarks_to_json(landmarks: Landmarks) -> dict[str, Any]:
    """Return all values of the landmarks of an image, at full precision; None where one is unknown."""
    return {
        "points": _to_lists(landmarks.points.reshape(len(landmarks), 2 * len(landmarks.schema))),
        "confidence": _to_lists(landmarks.confidence),
        "scales": _to_lists(landmarks.scales),
        "visibility": _to_lists(landmarks.visibility),
        "crops": [[crop.left, crop.top, crop.side, crop.roll] for crop in landmarks.crops or ()],
    }


def _landmarks_from_json(values: Mapping[str, Any], schema: LandmarkSchema) -> Landmarks:
    """Return the landmarks from which `_landmarks_to_json` made the values."""
    crops = tuple(Crop(*map(float, crop)) for crop in values["crops"])
    shape = len(crops), len(schema)
    points = np.array(values["points"], np.float32).reshape(*shape, 2)
    confidence, scales, visibility = (
        np.array(values[name], np.float32).reshape(shape) for name in ("confidence", "scales", "visibility")
    )
    return Landmarks(points, schema, confidence, scales, crops, visibility=visibility)


def _to_lists(values: NDArray[np.float32]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in values.tolist()]
