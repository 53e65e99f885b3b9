"""The points of a video's faces, frame by frame, as CSV, JSON or Parquet.

Knows the three layouts and how to write each while the video runs, in constant memory. Nothing about how
points are found.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.files import replacing
from landmarks_fastai.inference.tracking import TrackedFace
from landmarks_fastai.schema import Schema
from landmarks_fastai.tasks.points import named_points, points_as_cells, points_as_json

COLUMNS = ("frame", "time", "face", "point", "x", "y", "confidence")
ROWS_AT_ONCE = 20_000

Writer = Callable[[int, float, Sequence[TrackedFace]], None]
"""Takes a frame's number, its time in seconds and its faces."""


def check_point_file(path: Path) -> None:
    """Refuse a name that none of the layouts has.

    Raises
    ------
    UserError
        Names the ends that there are.
    """
    if path.suffix.lower() not in POINT_FILES:
        raise UserError(f"{path}: points are written as {', '.join(POINT_FILES)}; choose one of these ends")


def open_point_file(path: Path, schema: Schema) -> AbstractContextManager[Writer]:
    """Open the file in the layout that the end of its name says.

    Rows are `COLUMNS`: the frame's number from 0, its time in seconds, the face's number, the point's name,
    x and y in pixels of the upright frame, and the confidence, empty (JSON: null) where the model knows
    none. A frame without a face has no row in CSV and Parquet, and an empty list in JSON. The file takes
    its name when it is whole.
    """
    check_point_file(path)
    return POINT_FILES[path.suffix.lower()](path, schema)


@contextmanager
def _csv_file(path: Path, schema: Schema) -> Iterator[Writer]:
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)

        def write(frame: int, time: float, faces: Sequence[TrackedFace]) -> None:
            for face in faces:
                for cells in points_as_cells(face.points, face.confidence, schema):
                    rows.writerow((frame, f"{time:.6f}", face.number, *cells))

        yield write


@contextmanager
def _json_file(path: Path, schema: Schema) -> Iterator[Writer]:
    """Write {"schema", "points", "frames": [{"frame", "time", "faces": [{"face", "points"}]}]}."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        head = json.dumps({"schema": schema.name, "points": list(schema.points)}, ensure_ascii=False)
        file.write(f'{head[:-1]}, "frames": [')
        before = "\n"

        def write(frame: int, time: float, faces: Sequence[TrackedFace]) -> None:
            nonlocal before
            listed = [
                {"face": face.number, "points": points_as_json(face.points, face.confidence, schema)}
                for face in faces
            ]
            row = {"frame": frame, "time": round(time, 6), "faces": listed}
            file.write(before + json.dumps(row, ensure_ascii=False))
            before = ",\n"

        yield write
        file.write("\n]}\n")


@contextmanager
def _parquet_file(path: Path, schema: Schema) -> Iterator[Writer]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs another package: pip install pyarrow") from error
    kinds = ("int64", "float64", "int64", "string", "float32", "float32", "float32")
    layout = pyarrow.schema(list(zip(COLUMNS, map(pyarrow.type_for_alias, kinds), strict=True)))
    waiting: list[tuple[Any, ...]] = []
    with replacing(path) as part, pyarrow.parquet.ParquetWriter(part, layout) as file:

        def flush() -> None:
            columns = zip(*waiting, strict=True) if waiting else [()] * len(COLUMNS)
            arrays = [
                pyarrow.array(column, field.type) for column, field in zip(columns, layout, strict=True)
            ]
            file.write_table(pyarrow.Table.from_arrays(arrays, schema=layout))
            waiting.clear()

        def write(frame: int, time: float, faces: Sequence[TrackedFace]) -> None:
            for face in faces:
                each = named_points(face.points, face.confidence, schema)
                waiting.extend((frame, time, face.number, *point) for point in each)
            if len(waiting) >= ROWS_AT_ONCE:
                flush()

        yield write
        flush()


POINT_FILES: Mapping[str, Callable[[Path, Schema], AbstractContextManager[Writer]]] = {
    ".csv": _csv_file,
    ".json": _json_file,
    ".parquet": _parquet_file,
}
