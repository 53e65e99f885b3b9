"""The schema in a file beside the labels: schema.json, schema.yaml or landmarks.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from landmarks_fastai.data.formats.labeled_objects import make_schema
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas.files import read_schema
from landmarks_fastai.utils.files import write_json
from landmarks_fastai.utils.text import quote

SCHEMA_NAME = "schema.json"
"""File that is written."""

SCHEMA_NAMES = (SCHEMA_NAME, "schema.yaml", "landmarks.yaml")
"""Files that are read."""


def schema_beside(labels: Path, names: Sequence[str]) -> LandmarkSchema:
    """Return the schema of the file beside `labels`, or the schema that follows from the landmark names.

    Parameters
    ----------
    labels
        The label file.
    names
        Its landmark names, in its order.

    Raises
    ------
    UserError
        If there are several such files, or one cannot be used or has other landmarks.
    """
    paths = [labels.with_name(name) for name in SCHEMA_NAMES if labels.with_name(name).is_file()]
    if len(paths) > 1:
        raise UserError(f"{paths[0]}: {paths[1].name} is a schema too; keep one of them")
    if not paths:
        return make_schema(labels.stem, names, labels)
    schema = read_schema(paths[0], labels.stem)
    _check_names(paths[0], labels, schema.names, names)
    return schema


def write_schema(schema: LandmarkSchema, labels: Path) -> None:
    """Write schema.json beside `labels`, unless the same schema is there.

    Raises
    ------
    UserError
        If another schema is there.
    """
    for name in SCHEMA_NAMES:
        path = labels.with_name(name)
        if path.is_file():
            if read_schema(path, schema.name) == schema:
                return
            raise UserError(f"{path}: another schema is in this folder; write to a folder without one")
    write_json(labels.with_name(SCHEMA_NAME), schema.to_dict())


def _check_names(path: Path, labels: Path, listed: Sequence[str], names: Sequence[str]) -> None:
    differing = set(listed) ^ set(names)
    if differing:
        name = min(differing)
        present, missing = (labels, path) if name in names else (path, labels)
        raise UserError(
            f"{present}: has the landmark {quote(name)}, which {missing} does not have; use the same names"
        )
