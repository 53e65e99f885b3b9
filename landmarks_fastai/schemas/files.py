"""Schemas in files: YAML or JSON with the keys names, flip_pairs, midline, skeleton, eyes and normalizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas.matching import SCHEMAS
from landmarks_fastai.schemas.sides import unpaired_names
from landmarks_fastai.utils.json_reader import read_json
from landmarks_fastai.utils.text import quote, suggest
from landmarks_fastai.utils.yaml_reader import read_yaml

KEYS = ("name", "names", "flip_pairs", "midline", "skeleton", "eyes", "normalizer")
"""Keys of a schema file; only names is required."""


def open_schema(source: str) -> LandmarkSchema:
    """Return the built-in schema of a name, or the schema in a file.

    Raises
    ------
    UserError
        If there is neither, or the file cannot be used.
    """
    if source in SCHEMAS:
        return SCHEMAS[source]
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"--schema {source}: no such file or built-in schema; {suggest(source, SCHEMAS)}")
    return read_schema(path)


def read_schema(path: Path, name: str | None = None) -> LandmarkSchema:
    """Read a schema from a JSON or YAML file.

    Parameters
    ----------
    path
        The file.
    name
        Name of the schema if the file does not contain one; that of the file if None.

    Raises
    ------
    UserError
        If the file cannot be read, has unknown keys, or its values are inconsistent.
    """
    entries = read_json(path) if path.suffix.lower() == ".json" else read_yaml(path)
    if not isinstance(entries, dict):
        raise UserError(f"{path}: a schema is a mapping with the keys {', '.join(KEYS)}")
    for key in entries:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key {quote(str(key))}; {suggest(str(key)[:40], KEYS)}")
    _check_values(path, entries)
    filled = {key: value for key, value in entries.items() if value is not None}
    try:
        return LandmarkSchema.from_dict({"name": name or path.stem, **filled})
    except UserError as error:
        raise UserError(f"{path}: {str(error)[:200]}") from error


def schema_template(schema: LandmarkSchema, source: str) -> str:
    """Return a schema as a YAML file with comments, to be completed by the user.

    Parameters
    ----------
    schema
        The schema.
    source
        The labels that it belongs to.
    """
    unpaired = unpaired_names(schema)
    sections: list[tuple[str, str, object]] = [
        (f"Landmark schema of {source}.", "name", schema.name),
        ("The landmarks. The order of the labels may be another one.", "names", list(schema.names)),
        ("Pairs that are exchanged in a mirrored image.", "flip_pairs", _lists(schema.flip_pairs)),
        (
            "Landmarks without a partner, although their names contain left or right."
            + (f" Pair {', '.join(unpaired)}, or list them here." if unpaired else ""),
            "midline",
            list(schema.midline),
        ),
        ("Chains of landmarks that are drawn as lines: [[a, b, c]].", "skeleton", _lists(schema.skeleton)),
        (
            "Landmarks of the left and of the right eye: [a, b] or [[a, b], [c, d]]. A face detector is used"
            " if they are given; null for anything but a face.",
            "eyes",
            _lists(schema.eyes),
        ),
        (
            "Two landmarks, or groups of landmarks, by whose distance errors are divided; null for the eyes,"
            " or the box around the landmarks.",
            "normalizer",
            _lists(schema.normalizer),
        ),
    ]
    return "\n".join(
        "".join(f"# {line}\n" for line in _wrap(comment)) + _dump(key, value)
        for comment, key, value in sections
    )


def _check_values(path: Path, entries: dict[str, object]) -> None:
    """Raise UserError if a value is neither text, a number nor a list of these."""
    for key, value in entries.items():
        if key == "names" and (not isinstance(value, list) or not value):
            raise UserError(f"{path}: 'names' must be the list of landmark names")
        if key not in ("name", "names") and not isinstance(value, list | None):
            raise UserError(f"{path}: {key!r} must be a list")
        for name in _leaves(value):
            if isinstance(name, bool) or not isinstance(name, str | int | None):
                raise UserError(
                    f"{path}: {key!r} has the value {quote(str(name))}, which is not a name; put names that"
                    " YAML reads as something else in quotes"
                )
            if name is None and key in ("name", "names"):
                raise UserError(f"{path}: {key!r} is empty or has an empty entry; fill it in")
    if "names" not in entries:
        raise UserError(f"{path}: the key 'names' is missing; list the landmark names")


def _leaves(value: object) -> list[object]:
    if isinstance(value, list):
        return [leaf for entry in value for leaf in _leaves(entry)]
    return [value]


def _lists(groups: Sequence[Sequence[str]] | None) -> list[list[str]] | None:
    return None if groups is None else [list(group) for group in groups]


def _dump(key: str, value: object) -> str:
    """Return one key as YAML: a list of lists with one of them in each line, any other list in one line."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        lines = "".join(f"  - {_flow(entry)}\n" for entry in value)
        return f"{key}:\n{lines}"
    return f"{key}: {_flow(value)}\n"


def _flow(value: object) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _wrap(text: str, width: int = 100) -> list[str]:
    """Return the lines of a comment; characters that YAML does not allow become question marks."""
    lines = [""]
    text = "".join(letter if letter.isprintable() or letter.isspace() else "?" for letter in text)
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
