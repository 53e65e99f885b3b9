"""Labels in an Apache Parquet file with the columns of `tables`: image, NAME_x, NAME_y, and further ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.table_cells import Cells
from landmarks_fastai.data.formats.table_writing import write_table
from landmarks_fastai.data.formats.tables import MAX_CELLS, MAX_ROWS, TableBuilder
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.utils.text import quote

PARQUET_NAME = "landmarks.parquet"
MAGIC = b"PAR1"
MAX_UNPACKED = 4 << 30
BLOCK_ROWS = 4096


def recognizes(path: Path) -> bool:
    """Return True for a Parquet file, or a folder with landmarks.parquet."""
    try:
        file = path / PARQUET_NAME if path.is_dir() else path
        with file.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read(path: Path) -> Annotations:
    """Read a Parquet file, or landmarks.parquet in a folder, as `csv.read` reads a CSV.

    Raises
    ------
    UserError
        If the file cannot be read, unpacks to more than 10 million rows, 2^28 cells or 4 GB, its columns or
        the schema cannot be used, all images are missing, or pyarrow is not installed.
    """
    file = path / PARQUET_NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    pq = _import_pyarrow(file)
    with _report_errors(file), pq.ParquetFile(file) as parquet:
        _check_size(file, parquet)
        names = [field.name for field in parquet.schema_arrow]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{file}: duplicate column {quote(name)}; remove one of them")
        for field in parquet.schema_arrow:
            _check_type(file, field)
        builder = TableBuilder(file, [name.strip() for name in names], "row")
        by_name = {name.strip(): name for name in names}
        number = 1
        for batch in parquet.iter_batches(BLOCK_ROWS):
            cells = {stripped: _cells(batch.column(name)) for stripped, name in by_name.items()}
            builder.add(range(number, number + len(batch)), cells.__getitem__)
            number += len(batch)
    return builder.build()


def write(annotations: Annotations, out: Path) -> list[str]:
    """Write a Parquet file, and schema.json beside it.

    Raises
    ------
    UserError
        If another schema is beside `out`, a landmark name cannot be a column, or pyarrow is not installed.
    """
    pq = _import_pyarrow(out)
    import pyarrow as pa

    table, losses = write_table(annotations, out)
    with atomic_write(out) as partial:
        pq.write_table(pa.table({name: pa.array(values) for name, values in table.items()}), partial)
    return losses


FORMAT = AnnotationFormat(
    "parquet",
    "Parquet with the columns image, NAME_x and NAME_y",
    recognizes,
    read,
    write,
    suffix=".parquet",
)


def _import_pyarrow(file: Path) -> ModuleType:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            f"{file}: Parquet needs pyarrow; install it: pip install 'landmarks-fastai[parquet]'"
        ) from None
    return pq  # type: ignore[no-any-return]


@contextmanager
def _report_errors(file: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # pyarrow raises its own types, OSError, ValueError, …
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{file}: not a Parquet file, or damaged ({reason}); copy it again") from error


def _check_size(file: Path, parquet: Any) -> None:
    metadata = parquet.metadata
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if metadata.num_rows > MAX_ROWS or metadata.num_rows * metadata.num_columns > MAX_CELLS:
        raise UserError(
            f"{file}: {metadata.num_rows:,} rows of {metadata.num_columns:,} columns are too many; split it"
            f" into files of at most {MAX_ROWS:,} rows and {MAX_CELLS:,} cells"
        )
    if unpacked > MAX_UNPACKED:
        raise UserError(f"{file}: unpacks to {unpacked / 2**30:.1f} GB; the limit is 4 GB: split it")


def _check_type(file: Path, field: Any) -> None:
    import pyarrow.types as pt

    kind = field.type.value_type if pt.is_dictionary(field.type) else field.type
    plain = (pt.is_integer, pt.is_floating, pt.is_decimal, pt.is_string, pt.is_large_string, pt.is_boolean)
    others = (pt.is_temporal, pt.is_null)
    if not any(check(kind) for check in (*plain, *others)):
        remedy = "leave it out, or store the file names of images" if pt.is_binary(kind) else "leave it out"
        raise UserError(
            f"{file}: the column {quote(field.name)} has the type {str(field.type)[:80]}; columns must hold"
            f" numbers or text: {remedy}"
        )


def _cells(column: Any) -> Cells:
    """Return a column of a batch: floating-point numbers as an array, anything else as text."""
    import pyarrow.types as pt

    if pt.is_floating(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    return ["" if value is None else str(value) for value in column.to_pylist()]
