"""The schema of a data set: notes about it, and a template of a schema file."""

from __future__ import annotations

from pathlib import Path

from landmarks_fastai.config.options import AugmentConfig, DataConfig
from landmarks_fastai.data.annotation_files import read_annotations
from landmarks_fastai.data.schema_matching import with_schema
from landmarks_fastai.data.sources import KAGGLE, SYNTHETIC, is_kaggle
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import KAGGLE15, SCHEMAS
from landmarks_fastai.schemas.files import open_schema, schema_template
from landmarks_fastai.training.schema_checks import check_mirroring, describe_schema
from landmarks_fastai.utils.files import write_text


def schema_notes(schema: LandmarkSchema, augment: AugmentConfig) -> list[str]:
    """Return lines about a schema: its name if it is built in, its eyes, and what a run does otherwise."""
    lines = []
    if SCHEMAS.get(schema.name) == schema:
        lines.append(f"schema: {schema.name}")
    elif schema.eyes is not None:
        lines.append(f"eyes: {', '.join(schema.eyes[0])} ↔ {', '.join(schema.eyes[1])}")
    try:
        check_mirroring(schema, augment)
    except UserError as error:
        lines.append(f"warning: {error}")
    return lines + describe_schema(schema, augment)


def write_schema_template(data: DataConfig, path: Path) -> LandmarkSchema:
    """Write a schema file that is filled in with the names of a data set and the pairs found among them.

    Parameters
    ----------
    data
        The data set; its images are not read.
    path
        The YAML file, which must not exist.

    Returns
    -------
    LandmarkSchema
        The schema that the file contains.

    Raises
    ------
    UserError
        If the labels cannot be read, or the file exists or is not named *.yaml.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"--schema-template {path}: the file is YAML; name it *.yaml")
    if path.exists():
        raise UserError(f"--schema-template {path}: already exists; choose another name, or remove it")
    schema = _read_schema(data)
    write_text(path, schema_template(schema, data.source))
    return schema


def _read_schema(data: DataConfig) -> LandmarkSchema:
    source = Path(data.source).expanduser()
    if data.source in (KAGGLE, SYNTHETIC) or (data.format is None and is_kaggle(source)):
        return KAGGLE15
    if not source.exists():
        raise UserError(f"{data.source}: no such file or folder")
    schema = None if data.landmark_schema is None else open_schema(data.landmark_schema)
    return with_schema(read_annotations(source, data.format), schema).schema
