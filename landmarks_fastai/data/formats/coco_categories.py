"""The categories of a COCO file: which one has the landmarks, and its schema."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from landmarks_fastai.data.formats.labeled_objects import make_schema
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.text import format_count, quote

Id = int | str | None
"""Identifier in a COCO file; None if it is missing."""

FLIP_MAP = "keypoint_flip_map"
"""Key of the flip pairs, as in Detectron2's metadata; not part of COCO."""


@dataclass(frozen=True)
class Category:
    """A category with landmarks.

    Parameters
    ----------
    id
        Its identifier.
    name
        Its name.
    keypoints
        The K landmark names.
    entries
        The JSON object.
    """

    id: Id
    name: str
    keypoints: tuple[str, ...]
    entries: dict[str, object]


def parse_id(value: object, location: str) -> Id:
    """Return an identifier.

    Raises
    ------
    UserError
        If it is neither a whole number nor text nor missing.
    """
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise UserError(f"{location}: the id {str(value)[:40]} must be a whole number")


def find_categories(path: Path, entries: Sequence[object]) -> tuple[list[Category], set[Id]]:
    """Return the categories with landmarks, and the ids of all categories.

    Raises
    ------
    UserError
        If a category cannot be used, or none has landmarks.
    """
    found: list[Category] = []
    ids: set[Id] = set()
    for index, entry in enumerate(entries):
        location = f"{path}, categories[{index}]"
        if not isinstance(entry, dict):
            raise UserError(f"{location}: must be a JSON object with id, name and keypoints")
        identifier = parse_id(entry.get("id"), location)
        if identifier in ids:
            raise UserError(f"{location}: the id {str(identifier)[:40]} occurs twice; give each its own")
        ids.add(identifier)
        keypoints = entry.get("keypoints")
        if not keypoints:
            continue
        if not isinstance(keypoints, list):
            raise UserError(f"{location}: 'keypoints' must be the list of landmark names")
        names = tuple(str(name)[:200] for name in keypoints)
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{location}: the landmark {quote(double)} occurs twice in 'keypoints'")
        found.append(Category(identifier, str(entry.get("name", path.stem))[:80], names, entry))
    if not found:
        raise UserError(f"{path}: no category has 'keypoints', the list of landmark names; add it")
    return found, ids


def select_categories(path: Path, categories: Sequence[Category], used: set[Id]) -> list[Category]:
    """Return the categories whose annotations are read: those with the same landmarks.

    Parameters
    ----------
    path
        The file.
    categories
        The categories with landmarks.
    used
        Ids of the categories that have annotations with landmarks.

    Raises
    ------
    UserError
        If categories with different landmarks have annotations.
    """
    candidates = [category for category in categories if category.id in used] or list(categories)
    first = candidates[0]
    for category in candidates:
        if category.keypoints != first.keypoints:
            raise UserError(
                f"{path}: the categories {quote(first.name)} and {quote(category.name)} have different"
                " landmarks; write each to a file of its own"
            )
    return [category for category in categories if category.keypoints == first.keypoints]


def read_schema(path: Path, category: Category) -> tuple[LandmarkSchema, list[str]]:
    """Return the schema of a category, and notes about its skeleton.

    Raises
    ------
    UserError
        If its flip pairs cannot be used.
    """
    edges, notes = _read_skeleton(path, category)
    schema = make_schema(category.name, category.keypoints, path, edges)
    flip_map = category.entries.get(FLIP_MAP)
    if flip_map is None:
        return schema, notes
    try:
        pairs = tuple((str(first), str(second)) for first, second in flip_map)  # type: ignore[attr-defined]
        if {frozenset(pair) for pair in pairs} != {frozenset(pair) for pair in schema.flip_pairs}:
            schema = replace(schema, flip_pairs=pairs, midline=())
    except (TypeError, ValueError):
        raise UserError(f"{path}: {FLIP_MAP!r} must be a list of pairs of landmark names") from None
    except UserError as error:
        raise UserError(f"{path}: {FLIP_MAP!r} cannot be used: {str(error)[:160]}") from None
    return schema, notes


def _read_skeleton(path: Path, category: Category) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the edges of the skeleton, whose indices count from 1, and notes."""
    skeleton = category.entries.get("skeleton")
    if not isinstance(skeleton, list):
        return [], []
    pairs = [edge for edge in skeleton if _is_pair(edge)]
    notes = []
    start = 1
    if any(0 in edge for edge in pairs):
        start = 0
        notes.append("the skeleton is read with indices from 0, not from 1 as in COCO, because it contains 0")
    k = len(category.keypoints)
    edges = [(i - start, j - start) for i, j in pairs]
    valid = [(i, j) for i, j in edges if 0 <= i < k and 0 <= j < k and i != j]
    if len(valid) < len(skeleton):
        lost = format_count(len(skeleton) - len(valid), "edge")
        notes.append(f"{lost} of the skeleton left out: not a pair of landmark indices")
    return [(category.keypoints[i], category.keypoints[j]) for i, j in valid], notes


def _is_pair(edge: object) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and all(type(index) is int for index in edge)


def skeleton_edges(schema: LandmarkSchema) -> list[tuple[int, int]]:
    """Return the edges of the chains of a skeleton as indices from 0, each once."""
    edges: Iterable[tuple[str, str]] = (edge for chain in schema.skeleton for edge in pairwise(chain))
    index = {name: k for k, name in enumerate(schema.names)}
    return list(dict.fromkeys((index[first], index[second]) for first, second in edges if first != second))
