"""Writing predicted landmarks: of images as JSON or CSV, of a video as CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import atomic_write

DIGITS = 3
"""Decimal places of coordinates in pixels and of confidences."""

IMAGE_COLUMNS = ("image", "face", "landmark", "x", "y", "confidence")
VIDEO_COLUMNS = ("frame", "time", "track_id", "landmark", "x", "y", "confidence")
VISIBILITY_COLUMN = "visibility"
"""Last column, only for a model that predicts visibility."""

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
        Path of the image with its landmarks drawn; None if they were not drawn.
    """

    image: Path
    size: tuple[int, int]
    landmarks: Landmarks
    drawing: Path | None


# --- one face ------------------------------------------------------------------------------------


def iter_landmarks(face: Landmarks) -> Iterator[tuple[str, float, float, float | None]]:
    """Yield name, x, y and confidence of each landmark of one face; confidence is None if unknown."""
    (points,), (confidence,) = face.points.tolist(), face.confidence.tolist()
    for name, (x, y), value in zip(face.schema.names, points, confidence, strict=True):
        yield name, x, y, None if math.isnan(value) else value


def iter_values(face: Landmarks, visibility: bool) -> Iterator[tuple[str, tuple[float | None, ...]]]:
    """Yield name and values of each landmark of one face: x, y, confidence and, if requested, visibility.

    An unknown confidence or visibility is None.
    """
    (probabilities,) = face.visibility.tolist()
    for (name, *values), probability in zip(iter_landmarks(face), probabilities, strict=True):
        known = None if math.isnan(probability) else probability
        yield name, (*values, known) if visibility else tuple(values)


def landmark_cells(face: Landmarks, visibility: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield the CSV cells of each landmark, its name and its values (`iter_values`); None is empty."""
    for name, values in iter_values(face, visibility):
        yield name, *("" if value is None else f"{value:.{DIGITS}f}" for value in values)


def face_confidence(face: Landmarks) -> float | None:
    """Return the mean confidence of the landmarks of one face; None if unknown."""
    value = float(face.face_confidence[0])
    return None if math.isnan(value) else round(value, DIGITS)


def landmarks_to_json(face: Landmarks, visibility: bool = False) -> dict[str, dict[str, float | None]]:
    """Return {name: {"x", "y", "confidence"}} of one face, with "visibility" if requested; None is null."""
    keys = ("x", "y", "confidence", VISIBILITY_COLUMN)[: 4 if visibility else 3]
    return {
        name: {
            key: None if value is None else round(value, DIGITS)
            for key, value in zip(keys, values, strict=True)
        }
        for name, values in iter_values(face, visibility)
    }


# --- images --------------------------------------------------------------------------------------


def write_landmarks_json(
    path: Path, results: Iterable[ImageResult], schema: LandmarkSchema, visibility: bool = False
) -> None:
    """Write the landmarks of images as JSON, image by image.

    The structure is {"schema", "names", "images": [{"image", "width", "height", "faces": [{"box", "roll",
    "confidence", "landmarks"}]}]}. A box holds the edges x0, y0, x1, y1 of the face's crop before it is
    rotated by `roll` degrees about its center; the confidence is the mean over the landmarks
    (`face_confidence`). See `landmarks_to_json` for the landmarks, and for `visibility`.
    """
    head = json.dumps({"schema": schema.name, "names": list(schema.names)}, indent=2, ensure_ascii=False)
    separator, end = "\n", "]\n}\n"
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(head.removesuffix("\n}") + ',\n  "images": [')
        for result in results:
            image = _image_to_json(result, visibility)
            text = json.dumps(image, indent=2, ensure_ascii=False, allow_nan=False)
            file.write(separator + "    " + text.replace("\n", "\n    "))
            separator, end = ",\n", "\n  ]\n}\n"
        file.write(end)


def _image_to_json(result: ImageResult, visibility: bool) -> dict[str, Any]:
    """Return the entry of an image in the JSON file."""
    return {
        "image": str(result.image),
        "width": result.size[0],
        "height": result.size[1],
        "faces": [
            {
                "box": [round(edge, DIGITS) for edge in crop.box],
                "roll": round(crop.roll, DIGITS),
                "confidence": face_confidence(face),
                "landmarks": landmarks_to_json(face, visibility),
            }
            for face, crop in zip(result.landmarks, result.landmarks.crops or (), strict=True)
        ],
    }


def write_landmarks_csv(path: Path, results: Iterable[ImageResult], visibility: bool = False) -> None:
    """Write the landmarks of images as CSV, image by image, one row of `IMAGE_COLUMNS` for each landmark.

    With `visibility`, `VISIBILITY_COLUMN` is the last column.
    """
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_with_visibility(IMAGE_COLUMNS, visibility))
        for result in results:
            for index, face in enumerate(result.landmarks):
                for cells in landmark_cells(face, visibility):
                    rows.writerow((str(result.image), str(index), *cells))


def _with_visibility(columns: tuple[str, ...], visibility: bool) -> tuple[str, ...]:
    return (*columns, VISIBILITY_COLUMN) if visibility else columns


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
    path: Path,
    schema: LandmarkSchema,
    rows_per_flush: int = ROWS_PER_FLUSH,
    visibility: bool = False,
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
    visibility
        Also write the probability that a landmark is visible, in the last column.

    Raises
    ------
    UserError
        If the suffix is not supported, or Parquet needs the missing package pyarrow.
    UserError, RunError
        If the file cannot be written; see `atomic_write`.
    """
    check_landmark_file(path)
    return LANDMARK_FILES[path.suffix.lower()](path, schema, rows_per_flush, visibility)


def _track_ids(landmarks: Landmarks) -> Sequence[int]:
    return range(len(landmarks)) if landmarks.track_ids is None else landmarks.track_ids


@contextmanager
def _csv_file(
    path: Path, schema: LandmarkSchema, rows_per_flush: int, visibility: bool
) -> Iterator[FrameWriter]:
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_with_visibility(VIDEO_COLUMNS, visibility))

        def write(frame: int, time: float, landmarks: Landmarks) -> None:
            for face, track_id in zip(landmarks, _track_ids(landmarks), strict=True):
                for cells in landmark_cells(face, visibility):
                    rows.writerow((frame, f"{time:.6f}", track_id, *cells))

        yield write


@contextmanager
def _json_file(
    path: Path, schema: LandmarkSchema, rows_per_flush: int, visibility: bool
) -> Iterator[FrameWriter]:
    """Write {"schema", "names", "frames": [{"frame", "time", "faces": [{"track_id", "landmarks"}]}]}."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        head = json.dumps({"schema": schema.name, "names": list(schema.names)}, ensure_ascii=False)
        file.write(f'{head[:-1]}, "frames": [')
        separator = "\n"

        def write(frame: int, time: float, landmarks: Landmarks) -> None:
            nonlocal separator
            faces = [
                {"track_id": track_id, "landmarks": landmarks_to_json(face, visibility)}
                for face, track_id in zip(landmarks, _track_ids(landmarks), strict=True)
            ]
            row = {"frame": frame, "time": round(time, 6), "faces": faces}
            file.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n"

        yield write
        file.write("\n]}\n")


@contextmanager
def _parquet_file(
    path: Path, schema: LandmarkSchema, rows_per_flush: int, visibility: bool
) -> Iterator[FrameWriter]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs another package: pip install pyarrow") from error
    columns = _with_visibility(VIDEO_COLUMNS, visibility)
    types = ("int64", "float64", "int64", "string", *["float32"] * (len(columns) - 4))
    layout = pyarrow.schema(list(zip(columns, map(pyarrow.type_for_alias, types), strict=True)))
    pending: list[tuple[Any, ...]] = []
    with atomic_write(path) as partial, pyarrow.parquet.ParquetWriter(partial, layout) as file:

        def flush() -> None:
            values = zip(*pending, strict=True) if pending else [()] * len(columns)
            arrays = [pyarrow.array(column, field.type) for column, field in zip(values, layout, strict=True)]
            file.write_table(pyarrow.Table.from_arrays(arrays, schema=layout))
            pending.clear()

        def write(frame: int, time: float, landmarks: Landmarks) -> None:
            for face, track_id in zip(landmarks, _track_ids(landmarks), strict=True):
                pending.extend(
                    (frame, time, track_id, name, *values) for name, values in iter_values(face, visibility)
                )
            if len(pending) >= rows_per_flush:
                flush()

        yield write
        flush()


OpenFile = Callable[[Path, LandmarkSchema, int, bool], AbstractContextManager[FrameWriter]]

LANDMARK_FILES: Mapping[str, OpenFile] = {
    ".csv": _csv_file,
    ".json": _json_file,
    ".parquet": _parquet_file,
}
