"""The schema of landmark names: a built-in one if they match, else one with the pairs and eyes in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from landmarks_fastai.schema import LandmarkSchema, check_names
from landmarks_fastai.schemas.bodies import COCO17
from landmarks_fastai.schemas.eyes import find_eyes
from landmarks_fastai.schemas.face_mesh import MEDIAPIPE468, MEDIAPIPE478
from landmarks_fastai.schemas.faces import (
    AFLW19,
    AFLW21,
    CELEBA5,
    COFW29,
    IBUG68,
    INSIGHTFACE106,
    KAGGLE15,
    MTCNN5,
    WFLW98,
)
from landmarks_fastai.schemas.sides import find_pairs
from landmarks_fastai.utils.text import shorten

SCHEMAS = {
    schema.name: schema
    for schema in (
        KAGGLE15,
        CELEBA5,
        MTCNN5,
        AFLW19,
        AFLW21,
        COFW29,
        IBUG68,
        WFLW98,
        INSIGHTFACE106,
        MEDIAPIPE468,
        MEDIAPIPE478,
        COCO17,
    )
}
"""The built-in schemas by name."""

_BY_COUNT = {len(schema): schema for schema in SCHEMAS.values()}
"""Schema of numbered landmarks by their number; MTCNN5 for 5, whose order is the same as that of CELEBA5."""

_NUMBER = re.compile(
    r"(feature|id|joint|key[ _-]?point|kpt?|land[ _-]?mark|lmk?|mark|marker|node|no|point|pt|p|vertex)?"
    r"[ _.:#-]*(\d{1,4})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Match:
    """A built-in schema that names match.

    Parameters
    ----------
    schema
        The schema.
    order
        For each of its landmarks, the index of the name that stands for it.
    by_number
        Whether the names are numbers, so that only their count shows which schema it is.
    """

    schema: LandmarkSchema
    order: tuple[int, ...]
    by_number: bool

    def note(self, names: Sequence[str]) -> str | None:
        """Return a line that says what numbers are taken for; None if the names are those of the schema."""
        if set(names) == set(self.schema.names):
            return None
        first, last = names[self.order[0]], names[self.order[-1]]
        return (
            f"the {len(names)} landmarks {first} … {last} are taken for those of {self.schema.name},"
            f" {self.schema.names[0]} … {self.schema.names[-1]}; if they are not, use --schema"
        )


def match_built_in(names: Sequence[str]) -> Match | None:
    """Return the built-in schema with these names, in any order; None if there is none.

    Numbers ("7", "point_7", "kp07"), from 0 or 1 without gaps, match the schema of as many landmarks.
    """
    if len(set(names)) != len(names):
        return None
    index = {name: i for i, name in enumerate(names)}
    order = order_by_number(names)
    for schema in SCHEMAS.values():
        if index.keys() == set(schema.names):
            return Match(schema, tuple(index[name] for name in schema.names), by_number=order is not None)
    if order is None or len(names) not in _BY_COUNT:
        return None
    return Match(_BY_COUNT[len(names)], order, by_number=True)


def canonical_schema(
    name: str, names: Sequence[str]
) -> tuple[LandmarkSchema, tuple[int, ...], tuple[str, ...]]:
    """Return the schema of landmark names, the order of its landmarks among the names, and notes.

    Parameters
    ----------
    name
        Name of the schema if it is not a built-in one.
    names
        The K landmark names.

    Returns
    -------
    schema
        The built-in schema with these names in any order, or with as many landmarks if the names are numbers;
        else that of `schema_from_names`.
    order
        For each landmark of the schema, the index of its name: ``points[:, order]`` are in its order.
    notes
        Lines for the user: what numbers are taken for.

    Examples
    --------
    >>> names = ["nose", "right_eye", "left_eye", "mouth_right", "mouth_left"]
    >>> schema, order, _ = canonical_schema("any", names)
    >>> schema.name, order
    ('mtcnn5', (2, 1, 0, 4, 3))
    """
    match = match_built_in(names)
    if match is None:
        return infer_schema(name, names), tuple(range(len(names))), ()
    note = match.note(names)
    return match.schema, match.order, () if note is None else (note,)


def schema_from_names(name: str, names: Sequence[str]) -> LandmarkSchema:
    """Return the built-in schema with these names in this order, else that of `infer_schema`.

    Examples
    --------
    >>> schema_from_names("hand", ["left_thumb", "right_thumb", "wrist"]).flip_pairs
    (('left_thumb', 'right_thumb'),)
    """
    for known in SCHEMAS.values():
        if tuple(names) == known.names:
            return known
    return infer_schema(name, names)


def infer_schema(name: str, names: Sequence[str]) -> LandmarkSchema:
    """Return a schema whose flip pairs (`find_pairs`) and eyes (`find_eyes`) follow from the names."""
    check_names(names, f"schema {shorten(name)}")  # to find the pairs of a very long name would take minutes
    pairs = find_pairs(names)
    return LandmarkSchema(name, tuple(names), flip_pairs=pairs, eyes=find_eyes(names, pairs))


def order_by_number(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the order of names that only count, from 0 or 1 without gaps; None if they do not.

    Examples
    --------
    >>> order_by_number(["p3", "p1", "p2"])
    (1, 2, 0)
    """
    matches = [_NUMBER.fullmatch(name) for name in names]
    numbers = [int(match[2]) for match in matches if match]
    prefixes = {(match[1] or "").lower() for match in matches if match}
    if len(numbers) != len(names) or len(prefixes) != 1 or not names:
        return None
    first = min(numbers)
    if first > 1 or sorted(numbers) != list(range(first, first + len(names))):
        return None
    return tuple(sorted(range(len(names)), key=numbers.__getitem__))
