"""Writing predicted landmarks: of images as JSON or CSV, of a video as CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import atomic_write, write_csv, write_json

DIGITS = 3
"""Decimal places of coordinates in pixels and of confidences."""

IMAGE_COLUMNS = ("image", "face", "landmark", "x", "y", "confidence")
VIDEO_COLUMNS = ("frame", "time", "track_id", "landmark", "x", "y", "confidence")

ROWS_PER_FLUSH = 20_000
"""Rows of a Parquet file kept in memory until they are written."""

FrameWriter = Callable[[int, float, Landmarks], None]
"""Called with the index of a frame, its time in seconds and its landmarks."""


@dataclass(frozen=True)
class ImageResult:
    """Landmarks found in an image.

    Parameters
    ----------
    image
        Path of the image.
    size
        Its width and height in pixels, upright.
    landmarks
        Landmarks of its faces, possibly none, in pixels of the image.
    drawing
        Path of the image with its landmarks drawn.
    """

    image: Path
    size: tuple[int, int]
    landmarks: Landmarks
    drawing: Path


# --- one face ------------------------------------------------------------------------------------


def iter_landmarks(face: Landmarks) -> Iterator[tuple[str, float, float, float | None]]:
    """Yield name, x, y and confidence of each landmark of one face; confidence is None if unknown."""
    (points,), (confidence,) = face.points.tolist(), face.confidence.tolist()
    for name, (x, y), value in zip(face.schema.names, points, confidence, strict=True):
        yield name, x, y, None if math.isnan(value) else value


def landmark_cells(face: Landmarks) -> Iterator[tuple[str, str, str, str]]:
    """Yield the CSV cells name, x, y and confidence of each landmark; an unknown confidence is empty."""
    for name, x, y, confidence in iter_landmarks(face):
        shown = "" if confidence is None else f"{confidence:.{DIGITS}f}"
        yield name, f"{x:.{DIGITS}f}", f"{y:.{DIGITS}f}", shown


def landmarks_to_json(face: Landmarks) -> dict[str, dict[str, float | None]]:
    """Return {name: {"x", "y", "confidence"}} of one face; an unknown confidence is null."""
    return {
        name: {
            "x": round(x, DIGITS),
            "y": round(y, DIGITS),
            "confidence": None if confidence is None else round(confidence, DIGITS),
        }
        for name, x, y, confidence in iter_landmarks(face)
    }


# --- images --------------------------------------------------------------------------------------


def write_landmarks_json(path: Path, results: Sequence[ImageResult], schema: LandmarkSchema) -> None:
    """Write the landmarks of images as JSON.

    The structure is {"schema", "names", "images": [{"image", "width", "height", "faces": [{"box", "roll",
    "landmarks"}]}]}. A box holds the edges x0, y0, x1, y1 of the face's crop before it is rotated by `roll`
    degrees about its center; see `landmarks_to_json` for the landmarks.
    """
    images = [
        {
            "image": str(result.image),
            "width": result.size[0],
            "height": result.size[1],
            "faces": [
                {
                    "box": [round(edge, DIGITS) for edge in crop.box],
                    "roll": round(crop.roll, DIGITS),
                    "landmarks": landmarks_to_json(face),
                }
                for face, crop in zip(result.landmarks, result.landmarks.crops or (), strict=True)
            ],
        }
        for result in results
    ]
    write_json(path, {"schema": schema.name, "names": list(schema.names), "images": images})


def write_landmarks_csv(path: Path, results: Sequence[ImageResult]) -> None:
    """Write the landmarks of images as CSV, one row of `IMAGE_COLUMNS` for each landmark."""
    rows = [
        (str(result.image), str(index), *cells)
        for result in results
        for index, face in enumerate(result.landmarks)
        for cells in landmark_cells(face)
    ]
    write_csv(path, [IMAGE_COLUMNS, *rows])


# --- videos --------------------------------------------------------------------------------------


def check_landmark_file(path: Path) -> None:
    """Check that the suffix of a file name is one of `LANDMARK_FILES`.

    Raises
    ------
    UserError
        If it is not; the message names the supported suffixes.
    """
    if path.suffix.lower() not in LANDMARK_FILES:
        raise UserError(
            f"{path}: landmarks are written as {', '.join(LANDMARK_FILES)}; use one of these suffixes"
        )


def open_landmark_file(
    path: Path, schema: LandmarkSchema, rows_per_flush: int = ROWS_PER_FLUSH
) -> AbstractContextManager[FrameWriter]:
    """Open a file for the landmarks of a video, in the format of its suffix.

    Rows have `VIDEO_COLUMNS`: index of the frame from 0, its time in seconds, the track ID, the landmark, x
    and y in pixels of the upright frame, and the confidence, empty (in JSON null) if unknown. A frame without
    faces has no row in CSV and Parquet, and an empty list in JSON. The file is written atomically; memory
    does not grow with the length of the video.

    Parameters
    ----------
    path
        The file.
    schema
        Names of the landmarks.
    rows_per_flush
        Rows of a Parquet file kept in memory until they are written.

    Raises
    ------
    UserError
        If the suffix is not supported, or Parquet needs the missing package pyarrow.
    UserError, RunError
        If the file cannot be written; see `atomic_write`.
    """
    check_landmark_file(path)
    return LANDMARK_FILES[path.suffix.lower()](path, schema, rows_per_flush)


def _track_ids(landmarks: Landmarks) -> Sequence[int]:
    return range(len(landmarks)) if landmarks.track_ids is None else landmarks.track_ids


@contextmanager
def _csv_file(path: Path, schema: LandmarkSchema, rows_per_flush: int) -> Iterator[FrameWriter]:
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(VIDEO_COLUMNS)

        def write(frame: int, time: float, landmarks: Landmarks) -> None:
            for face, track_id in zip(landmarks, _track_ids(landmarks), strict=True):
                for cells in landmark_cells(face):
                    rows.writerow((frame, f"{time:.6f}", track_id, *cells))

        yield write


@contextmanager
def _json_file(path: Path, schema: LandmarkSchema, rows_per_flush: int) -> Iterator[FrameWriter]:
    """Write {"schema", "names", "frames": [{"frame", "time", "faces": [{"track_id", "landmarks"}]}]}."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        head = json.dumps({"schema": schema.name, "names": list(schema.names)}, ensure_ascii=False)
        file.write(f'{head[:-1]}, "frames": [')
        separator = "\n"

        def write(frame: int, time: float, landmarks: Landmarks) -> None:
            nonlocal separator
            faces = [
                {"track_id": track_id, "landmarks": landmarks_to_json(face)}
                for face, track_id in zip(landmarks, _track_ids(landmarks), strict=True)
            ]
            row = {"frame": frame, "time": round(time, 6), "faces": faces}
            file.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n"

        yield write
        file.write("\n]}\n")


@contextmanager
def _parquet_file(path: Path, schema: LandmarkSchema, rows_per_flush: int) -> Iterator[FrameWriter]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs another package: pip install pyarrow") from error
    types = ("int64", "float64", "int64", "string", "float32", "float32", "float32")
    layout = pyarrow.schema(list(zip(VIDEO_COLUMNS, map(pyarrow.type_for_alias, types), strict=True)))
    pending: list[tuple[Any, ...]] = []
    with atomic_write(path) as partial, pyarrow.parquet.ParquetWriter(partial, layout) as file:

        def flush() -> None:
            columns = zip(*pending, strict=True) if pending else [()] * len(VIDEO_COLUMNS)
            arrays = [
                pyarrow.array(column, field.type) for column, field in zip(columns, layout, strict=True)
            ]
            file.write_table(pyarrow.Table.from_arrays(arrays, schema=layout))
            pending.clear()

        def write(frame: int, time: float, landmarks: Landmarks) -> None:
            for face, track_id in zip(landmarks, _track_ids(landmarks), strict=True):
                pending.extend((frame, time, track_id, *landmark) for landmark in iter_landmarks(face))
            if len(pending) >= rows_per_flush:
                flush()

        yield write
        flush()


LANDMARK_FILES: Mapping[str, Callable[[Path, LandmarkSchema, int], AbstractContextManager[FrameWriter]]] = {
    ".csv": _csv_file,
    ".json": _json_file,
    ".parquet": _parquet_file,
}
