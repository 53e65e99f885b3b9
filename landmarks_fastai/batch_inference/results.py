"""The files of results: of each shard a Parquet file with its landmarks, and one with the images without any.

A file of landmarks appears when it is complete, and after that of the other images: it is the mark that its
shard is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.batch_inference.storage import join, names_in, written
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema

LANDMARKS, REJECTED = "landmarks", "rejected"
"""Folders of the two tables."""

COLUMNS = {
    "path": "string",
    "face": "int32",
    "landmark": "string",
    "x": "float32",
    "y": "float32",
    "confidence": "float32",
    "visibility": "float32",
}
REJECTED_COLUMNS = {"path": "string", "kind": "string", "reason": "string"}
"""Columns of the tables, and their types."""

ROWS_PER_GROUP = 200_000
"""Rows of a Parquet file that are kept in memory until they are written."""

NAME = re.compile(r"part-(\d+)\.parquet")

Block = tuple[str, Landmarks]


def part_name(index: int) -> str:
    """Return the name of the file of a shard."""
    return f"part-{index:05d}.parquet"


def done_shards(out: str) -> set[int]:
    """Return the shards whose file of landmarks is there."""
    matches = (NAME.fullmatch(name) for name in names_in(join(out, LANDMARKS)))
    return {int(match[1]) for match in matches if match}


@dataclass(frozen=True)
class Rejected:
    """An image or archive without landmarks.

    Parameters
    ----------
    path
        Its location.
    kind
        "unreadable", "unreachable", "damaged archive", "internal error" or "no face".
    reason
        What is wrong.
    """

    path: str
    kind: str
    reason: str


@contextmanager
def shard_writer(out: str, index: int, schema: LandmarkSchema) -> Iterator[ShardWriter]:
    """Write the files of a shard; nothing is written if the block raises an exception.

    Raises
    ------
    UserError, RunError
        If a file cannot be written.
    """
    name = part_name(index)
    with written(join(out, LANDMARKS, name)) as landmarks:
        writer = ShardWriter(landmarks, schema)
        with writer:
            yield writer
        if writer.rejected:
            with written(join(out, REJECTED, name)) as rejected:
                _write_rejected(rejected, writer.rejected)


class ShardWriter:
    """Writes the landmarks of the images of a shard to a Parquet file, and collects the other images.

    Attributes
    ----------
    rejected
        The images and archives without landmarks.
    """

    def __init__(self, path: Path, schema: LandmarkSchema) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.rejected: list[Rejected] = []
        self._schema = schema
        metadata = {"schema": schema.name}
        fields = [(column, pa.type_for_alias(kind)) for column, kind in COLUMNS.items()]
        self._layout = pa.schema(fields, metadata=metadata)
        self._file: Any = pq.ParquetWriter(path, self._layout, compression="zstd")
        self._pending: list[Block] = []
        self._rows = 0

    def __enter__(self) -> ShardWriter:
        """Return the writer."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Write what is left, and close the file."""
        if kind is None:
            self._flush()
        self._file.close()

    def add(self, path: str, landmarks: Landmarks) -> None:
        """Add the faces of an image."""
        self._pending.append((_valid_text(path), landmarks))
        self._rows += landmarks.confidence.size
        if self._rows >= ROWS_PER_GROUP:
            self._flush()

    def reject(self, path: str, kind: str, reason: str) -> None:
        """Set an image or archive aside."""
        self.rejected.append(Rejected(_valid_text(path), kind, " ".join(_valid_text(reason).split())))

    def _flush(self) -> None:
        """Write the pending rows."""
        import pyarrow as pa

        faces = [landmarks for _, landmarks in self._pending]
        joined = Landmarks.concatenate(faces, self._schema)
        paths = np.array([path for path, _ in self._pending], object)
        counts = [len(landmarks) for landmarks in faces]
        per_face = len(self._schema)
        numbers = [np.arange(count) for count in counts] or [np.arange(0)]
        values: dict[str, NDArray[Any]] = {
            "path": paths.repeat(counts).repeat(per_face),
            "face": np.concatenate(numbers).repeat(per_face),
            "landmark": np.tile(np.array(self._schema.names, object), len(joined)),
            "x": joined.points[..., 0].ravel(),
            "y": joined.points[..., 1].ravel(),
            "confidence": joined.confidence.ravel(),
            "visibility": joined.visibility.ravel(),
        }
        arrays = [pa.array(values[field.name], field.type, from_pandas=True) for field in self._layout]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._layout))
        self._pending, self._rows = [], 0


def _write_rejected(path: Path, rejected: list[Rejected]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        column: pa.array([getattr(one, column) for one in rejected], pa.type_for_alias(kind))
        for column, kind in REJECTED_COLUMNS.items()
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _valid_text(text: str) -> str:
    """Return a text in which what is no Unicode, as names in an archive may be, is written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_parquet(out: str) -> None:
    """Raise a UserError if the package that writes Parquet is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UserError(f"{out}: Parquet needs another package: pip install pyarrow") from error
