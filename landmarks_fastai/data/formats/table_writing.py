"""Writing labels as a table: the columns that `tables` describes, and schema.json beside the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.image_files import image_reference, without_frames
from landmarks_fastai.data.formats.schema_files import write_schema
from landmarks_fastai.data.formats.table_columns import BOX, GROUP, IMAGE, TableColumns
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote

Table = dict[str, list[object]]


def write_table(annotations: Annotations, out: Path) -> tuple[Table, list[str]]:
    """Write schema.json beside `out`, and return the columns of the table that the caller writes to `out`.

    Returns
    -------
    tuple
        N values of each column by its name: numbers are float (NaN if empty) or int, others text. And one
        line for each thing that the table cannot hold.

    Raises
    ------
    UserError
        If another schema is beside `out`, or a landmark name cannot be a column.
    """
    for name in annotations.schema.names:
        if not name or name != name.strip():
            raise UserError(
                f"{annotations.source}: the landmark name {quote(name)} cannot be a column of a table; remove"
                " the spaces around it"
            )
    kept, losses = without_frames(annotations)
    write_schema(annotations.schema, out)
    table: Table = {IMAGE: [image_reference(kept.images[row].path, out.parent) for row in kept.rows.tolist()]}
    for k, name in enumerate(kept.schema.names):
        table[f"{name}_x"] = kept.points[:, k, 0].tolist()
        table[f"{name}_y"] = kept.points[:, k, 1].tolist()
        if kept.visibility is not None:
            table[f"{name}_visibility"] = kept.visibility[:, k].tolist()
    if kept.groups is not None:
        table[GROUP] = [group.strip() or "no group" for group in kept.groups]
    if kept.boxes is not None:
        table |= {name: kept.boxes[:, i].tolist() for i, name in enumerate(BOX)}
    losses += _add_columns(table, kept)
    if kept.boxes is not None and len(kept) and np.isnan(kept.boxes).all():
        losses.append("no row has a box")
    return table, losses


def _add_columns(table: Table, annotations: Annotations) -> list[str]:
    """Add the other columns; return a line for those whose names mean something else in a table."""
    reserved = []
    for name, values in annotations.columns.items():
        header = [*table, name]
        if name in table or not name.strip() or name != name.strip() or _changes_meaning(header, name):
            reserved.append(name)
        else:
            table[name] = list(values)
    if not reserved:
        return []
    names = ", ".join(reserved)[:80]
    return [f"columns whose names have another meaning in a table are not written: {names}"]


def _changes_meaning(header: list[str], name: str) -> bool:
    """Return True if the last column of a header would not be read as one of the other columns."""
    try:
        return name not in TableColumns.from_names(header, "").others
    except UserError:
        return True
