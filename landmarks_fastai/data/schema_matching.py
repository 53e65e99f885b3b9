"""Annotations with the schema that their landmark names match, or with a given one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas.matching import SCHEMAS, Match, match_built_in, order_by_number
from landmarks_fastai.utils.text import quote

Floats = NDArray[np.float64]

MAX_ASYMMETRY = 0.5
"""Largest `asymmetry` of numbered landmarks that are taken for those of a built-in schema.

It is about 0.2 for photos of faces, turned heads included, and from 0.8 to 1 with wrong pairs.
"""

MAX_ROWS = 2_000
"""Number of rows from which the asymmetry is measured."""


def with_schema(annotations: Annotations, schema: LandmarkSchema | None = None) -> Annotations:
    """Return annotations whose landmarks are those of a schema, in its order.

    Parameters
    ----------
    annotations
        The labels, as a format has read them.
    schema
        The schema. None: the built-in schema with the same names, or with as many landmarks if the names are
        numbers and its flip pairs fit the labels. The schema of the annotations is kept if there is none, and
        if it has other flip pairs, eyes or a normalizer of its own.

    Returns
    -------
    Annotations
        The points and visibility are permuted; a note says what numbers are taken for.

    Raises
    ------
    UserError
        If the landmark names are not those of `schema`.
    """
    if schema is not None:
        return _reorder(annotations, schema, _given_order(annotations, schema))
    own = annotations.schema
    match = match_built_in(own.names)
    if match is None or match.schema == own or _contradicts(own, match):
        return annotations
    if match.by_number:
        flip = match.schema.flip_index
        if asymmetry(annotations.points[:MAX_ROWS, list(match.order)], flip) > MAX_ASYMMETRY:
            asymmetric = (
                f"the {len(own)} landmarks are numbered, but are not symmetric like those of"
                f" {match.schema.name}: if they have flip pairs, name them in a file for --schema"
            )
            return replace(annotations, notes=(*annotations.notes, asymmetric))
    note = match.note(own.names)
    return _reorder(annotations, match.schema, match.order, () if note is None else (note,))


def asymmetry(points: ArrayLike, flip_index: Sequence[int]) -> float:
    """Return how much landmarks differ from their mirror image with left and right exchanged.

    Each row is aligned with its mirror image by a similarity transform. The result is the median over rows of
    the root mean squared distance, divided by that of the landmarks from their center: 0 for symmetric
    shapes, about 1 for unrelated ones.

    Parameters
    ----------
    points
        (N, K, 2) pixels; NaN where unlabeled.
    flip_index
        For each landmark, the index of the landmark that takes its place (`LandmarkSchema.flip_index`).

    Returns
    -------
    float
        0 if no row has 4 landmarks that are labeled together with their partners.
    """
    shape = np.asarray(points, np.float64)
    shape = shape[..., 0] + 1j * shape[..., 1]
    mirrored = -np.conj(shape[:, list(flip_index)])
    known = ~np.isnan(shape) & ~np.isnan(mirrored)
    rows = known.sum(axis=1) >= 4
    shape, mirrored, known = shape[rows], mirrored[rows], known[rows]
    first, second = (_centered(each, known) for each in (shape, mirrored))
    size = (np.abs(first) ** 2).sum(axis=1)
    product = np.abs((first * np.conj(second)).sum(axis=1))
    size, product = size[size > 0], product[size > 0]
    if not len(size):
        return 0.0
    # residual of the least-squares fit; both shapes have the same size, because they have the same points
    return float(np.median(np.sqrt(np.clip(1 - (product / size) ** 2, 0, None))))


def _centered(shape: NDArray[np.complex128], known: NDArray[np.bool_]) -> NDArray[np.complex128]:
    filled = np.where(known, shape, 0)
    center = filled.sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True)
    return np.where(known, filled - center, 0)


def _contradicts(own: LandmarkSchema, match: Match) -> bool:
    """Return whether a schema from a file says something else than the built-in one."""
    built_in = match.schema
    renamed = {built_in.names[k]: own.names[i] for k, i in enumerate(match.order)}
    pairs = {frozenset(renamed[name] for name in pair) for pair in built_in.flip_pairs}
    if own.flip_pairs and {frozenset(pair) for pair in own.flip_pairs} != pairs:
        return True
    eyes = {frozenset(renamed[name] for name in eye) for eye in built_in.eyes or ()}
    if own.eyes and {frozenset(eye) for eye in own.eyes} != eyes:
        return True
    named = not match.by_number and bool(own.skeleton)  # formats have skeletons of numbered landmarks, too
    return own.normalizer is not None or bool(own.midline) or named


def _given_order(annotations: Annotations, schema: LandmarkSchema) -> tuple[int, ...]:
    """Return the order of the landmarks of a given schema among those of the annotations."""
    names = annotations.schema.names
    order = order_by_number(names)
    if set(names) == set(schema.names):
        return tuple(names.index(name) for name in schema.names)
    if order is not None and len(names) == len(schema) and schema in SCHEMAS.values():
        return order
    name = min(set(names) ^ set(schema.names))
    present, missing = (annotations.source, f"schema {schema.name}")
    if name not in names:
        present, missing = missing, present
    raise UserError(
        f"--schema: {present} has the landmark {quote(name)}, which {missing} does not have; use the same"
        " names"
    )


def _reorder(
    annotations: Annotations, schema: LandmarkSchema, order: Sequence[int], notes: tuple[str, ...] = ()
) -> Annotations:
    visibility = annotations.visibility
    return replace(
        annotations,
        schema=schema,
        points=annotations.points[:, list(order)],
        visibility=None if visibility is None else visibility[:, list(order)],
        notes=(*annotations.notes, *notes),
    )
