"""Landmark schemas: the names, flip pairs, skeleton and eyes of a set of landmarks.

The built-in schemas, and those that follow from landmark names, are in `landmarks_fastai.schemas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote, shorten

Groups = tuple[tuple[str, ...], tuple[str, ...]]
"""Two groups of landmark names."""

MAX_LANDMARKS = 10_000
"""Largest number of landmarks: more than any object has, and few enough for a network to fit in memory."""

MAX_NAME = 200
"""Largest number of characters of a landmark name."""


@dataclass(frozen=True)
class LandmarkSchema:
    """The names of K landmarks, their flip pairs, skeleton and eyes.

    Parameters
    ----------
    name
        Name of the schema, stored in model files.
    names
        The K landmark names, in the order of the landmarks in `(…, K, 2)` arrays.
    flip_pairs
        Pairs of names that are exchanged when an image is mirrored. Empty if none are known.
    skeleton
        Chains of landmarks that are drawn as connected lines.
    eyes
        Landmarks of the left eye and of the right eye; the distance between their means is the inter-ocular
        distance. A schema with eyes is that of a face. None if the schema has no eyes.
    normalizer
        Two groups of landmarks; errors are normalized by the distance between their means. None: the eyes, or
        the size of the box around the landmarks if there are none.
    midline
        Landmarks that stay the same in a mirrored image although their names contain "left" or "right".

    Raises
    ------
    UserError
        If `check_names` refuses the names, a landmark is in two flip pairs, or another entry
        contains a name that is not in `names`.
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[str, ...], ...] = ()
    eyes: Groups | None = None
    normalizer: Groups | None = None
    midline: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the names and all references to them."""
        title = f"schema {shorten(self.name)}"
        check_names(self.names, title)
        paired = [name for pair in self.flip_pairs for name in pair]
        if len(set(paired)) != len(paired):
            raise UserError(f"{title}: a landmark is in two flip pairs")
        groups = (*self.skeleton, *(self.eyes or ()), *(self.normalizer or ()), self.midline)
        known = set(self.names)
        for name in [*paired, *(name for group in groups for name in group)]:
            if name not in known:
                raise UserError(f"{title}: {quote(name)} is not one of its landmarks")
        if set(paired) & set(self.midline):
            raise UserError(f"{title}: a landmark is in a flip pair and in midline")
        for group in (*(self.eyes or ()), *(self.normalizer or ())):
            if not group:
                raise UserError(f"{title}: a group of landmarks is empty")

    def __len__(self) -> int:
        """Return K, the number of landmarks."""
        return len(self.names)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """For each landmark, the index of the landmark that takes its place in a mirrored image."""
        order = list(range(len(self.names)))
        index = {name: k for k, name in enumerate(self.names)}
        for first, second in self.flip_pairs:
            i, j = index[first], index[second]
            order[i], order[j] = j, i
        return tuple(order)

    @property
    def distance_groups(self) -> Groups | None:
        """The two groups of landmarks by whose distance errors are normalized; None: by the box size."""
        return self.normalizer or self.eyes

    def indices(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the index of each of `names`."""
        return tuple(self.names.index(name) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON-serializable lists and strings."""
        entries: dict[str, Any] = {
            "name": self.name,
            "names": list(self.names),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "skeleton": [list(chain) for chain in self.skeleton],
            "eyes": None if self.eyes is None else [list(eye) for eye in self.eyes],
        }
        # left out of most schemas, so that their model files and digests stay as they were
        if self.normalizer is not None:
            entries["normalizer"] = [list(group) for group in self.normalizer]
        if self.midline:
            entries["midline"] = list(self.midline)
        return entries

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> LandmarkSchema:
        """Create a schema from the output of `to_dict`.

        Raises
        ------
        UserError
            If a required key is missing, or a value has the wrong structure.
        """
        try:
            return cls(
                name=str(entries["name"]),
                names=tuple(str(name) for name in entries["names"]),
                flip_pairs=tuple((str(a), str(b)) for a, b in entries.get("flip_pairs", ())),
                skeleton=tuple(tuple(str(name) for name in chain) for chain in entries.get("skeleton", ())),
                eyes=_parse_groups(entries.get("eyes")),
                normalizer=_parse_groups(entries.get("normalizer")),
                midline=tuple(str(name) for name in entries.get("midline", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"a schema needs name and names; flip_pairs, skeleton and eyes are optional:"
                f" {shorten(repr(error), 100)}"
            ) from error


def check_names(names: Sequence[str], source: str) -> None:
    """Check landmark names; `source` is named in messages.

    Raises
    ------
    UserError
        If there are none, more than `MAX_LANDMARKS`, duplicates, or one has more than `MAX_NAME` characters.
    """
    if len(set(names)) != len(names) or not names:
        raise UserError(f"{source}: at least one landmark is needed, and names must be unique")
    if len(names) > MAX_LANDMARKS:
        raise UserError(f"{source}: {len(names):,} landmarks; at most {MAX_LANDMARKS:,}")
    for name in names:
        if len(name) > MAX_NAME:
            raise UserError(
                f"{source}: the landmark name {quote(name)} has {len(name):,} characters; shorten it to"
                f" at most {MAX_NAME}"
            )


def _parse_groups(entry: Any) -> Groups | None:
    """Return two groups of names; a name alone is a group of one."""
    if entry is None:
        return None
    first, second = ([group] if isinstance(group, str) else group for group in entry)
    return tuple(map(str, first)), tuple(map(str, second))
