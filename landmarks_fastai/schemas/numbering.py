"""Schemas whose landmarks are numbered from 0, and whose chains and pairs are runs of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from landmarks_fastai.schema import LandmarkSchema


def numbered_schema(
    name: str,
    count: int,
    pairs: Iterable[tuple[int, int]],
    chains: Iterable[Sequence[int]],
    eyes: tuple[Sequence[int], Sequence[int]],
) -> LandmarkSchema:
    """Return a schema of `count` landmarks that are named by their numbers, from "0".

    Parameters
    ----------
    name
        Name of the schema.
    count
        Number of landmarks.
    pairs
        Flip pairs.
    chains
        Skeleton.
    eyes
        Landmarks of the left eye and of the right eye.
    """
    left, right = (tuple(map(str, eye)) for eye in eyes)
    return LandmarkSchema(
        name=name,
        names=tuple(map(str, range(count))),
        flip_pairs=tuple((str(a), str(b)) for a, b in pairs),
        skeleton=tuple(tuple(map(str, chain)) for chain in chains),
        eyes=(left, right),
    )


def closed(chain: Sequence[int]) -> list[int]:
    """Return a chain that ends where it begins."""
    return [*chain, chain[0]]


def mirrored(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """Return the flip pairs of two runs of landmarks, in the order in which they correspond."""
    return list(zip(first, second, strict=True))
