"""Landmark schemas: the names, flip pairs, skeleton and eyes of a set of landmarks.

Left and right are the subject's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from landmarks_fastai.errors import UserError


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
        distance. None if the schema has no eyes.

    Raises
    ------
    UserError
        If `names` is empty or has duplicates, a landmark is in two flip pairs, or a pair, chain or eye
        contains a name that is not in `names`.
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[str, ...], ...] = ()
    eyes: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        """Check the names and all references to them."""
        if len(set(self.names)) != len(self.names) or not self.names:
            raise UserError(f"schema {self.name}: at least one landmark is needed, and names must be unique")
        paired = [name for pair in self.flip_pairs for name in pair]
        if len(set(paired)) != len(paired):
            raise UserError(f"schema {self.name}: a landmark is in two flip pairs")
        eyes = [name for eye in self.eyes or () for name in eye]
        for name in [*paired, *(name for chain in self.skeleton for name in chain), *eyes]:
            if name not in self.names:
                raise UserError(f"schema {self.name}: {name!r} is not one of its landmarks")

    def __len__(self) -> int:
        """Return K, the number of landmarks."""
        return len(self.names)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """For each landmark, the index of the landmark that takes its place in a mirrored image."""
        order = list(range(len(self.names)))
        for first, second in self.flip_pairs:
            i, j = self.names.index(first), self.names.index(second)
            order[i], order[j] = j, i
        return tuple(order)

    def indices(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the index of each of `names`."""
        return tuple(self.names.index(name) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON-serializable lists and strings."""
        return {
            "name": self.name,
            "names": list(self.names),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "skeleton": [list(chain) for chain in self.skeleton],
            "eyes": None if self.eyes is None else [list(eye) for eye in self.eyes],
        }

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> LandmarkSchema:
        """Create a schema from the output of `to_dict`.

        Raises
        ------
        UserError
            If a required key is missing, or a value has the wrong structure.
        """
        try:
            eyes = entries.get("eyes")
            return cls(
                name=str(entries["name"]),
                names=tuple(str(name) for name in entries["names"]),
                flip_pairs=tuple((str(a), str(b)) for a, b in entries.get("flip_pairs", ())),
                skeleton=tuple(tuple(str(name) for name in chain) for chain in entries.get("skeleton", ())),
                eyes=None if eyes is None else (tuple(map(str, eyes[0])), tuple(map(str, eyes[1]))),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"a schema needs name and names; flip_pairs, skeleton and eyes are optional: {error!r}"
            ) from error


def schema_from_names(name: str, names: Sequence[str]) -> LandmarkSchema:
    """Return the built-in schema with these names, or a new one whose flip pairs are inferred from the names.

    Names that differ only in "left" and "right", or "l" and "r", as a separate word are a pair.

    Examples
    --------
    >>> schema_from_names("hand", ["left_thumb", "right_thumb", "wrist"]).flip_pairs
    (('left_thumb', 'right_thumb'),)
    """
    for known in SCHEMAS.values():
        if tuple(names) == known.names:
            return known
    # only as a separate word: "cleft" is not the left half of a pair
    left = re.compile(r"(?<![a-z])(left|l)(?![a-z])", re.IGNORECASE)
    mirrored = {"left": "right", "l": "r", "Left": "Right", "L": "R", "LEFT": "RIGHT"}
    pairs = []
    for landmark in names:
        other = left.sub(lambda match: mirrored.get(match[0], "right"), landmark)
        if other != landmark and other in names:
            pairs.append((landmark, other))
    return LandmarkSchema(name=name, names=tuple(names), flip_pairs=tuple(pairs))


KAGGLE15 = LandmarkSchema(
    name="kaggle15",
    names=(
        "left_eye_center",
        "right_eye_center",
        "left_eye_inner_corner",
        "left_eye_outer_corner",
        "right_eye_inner_corner",
        "right_eye_outer_corner",
        "left_eyebrow_inner_end",
        "left_eyebrow_outer_end",
        "right_eyebrow_inner_end",
        "right_eyebrow_outer_end",
        "nose_tip",
        "mouth_left_corner",
        "mouth_right_corner",
        "mouth_center_top_lip",
        "mouth_center_bottom_lip",
    ),
    flip_pairs=(
        ("left_eye_center", "right_eye_center"),
        ("left_eye_inner_corner", "right_eye_inner_corner"),
        ("left_eye_outer_corner", "right_eye_outer_corner"),
        ("left_eyebrow_inner_end", "right_eyebrow_inner_end"),
        ("left_eyebrow_outer_end", "right_eyebrow_outer_end"),
        ("mouth_left_corner", "mouth_right_corner"),
    ),
    skeleton=(
        ("left_eyebrow_inner_end", "left_eyebrow_outer_end"),
        ("right_eyebrow_inner_end", "right_eyebrow_outer_end"),
        ("left_eye_inner_corner", "left_eye_center", "left_eye_outer_corner"),
        ("right_eye_inner_corner", "right_eye_center", "right_eye_outer_corner"),
        (
            "mouth_left_corner",
            "mouth_center_top_lip",
            "mouth_right_corner",
            "mouth_center_bottom_lip",
            "mouth_left_corner",
        ),
    ),
    eyes=(("left_eye_center",), ("right_eye_center",)),
)
"""The 15 landmarks of Kaggle's Facial Keypoints Detection, in the order of its columns."""


def _ibug68() -> LandmarkSchema:
    """Return the schema of the 68 landmarks of iBUG 300-W (Sagonas et al. 2013), named "0" … "67"."""

    def numbered(*numbers: int) -> tuple[str, ...]:
        return tuple(str(number) for number in numbers)

    def chain(first: int, last: int, closed: bool = False) -> tuple[str, ...]:
        return numbered(*range(first, last + 1), *((first,) if closed else ()))

    mirrored = {i: 16 - i for i in range(8)} | {i: 43 - i for i in range(17, 22)}
    mirrored |= {31: 35, 32: 34, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46}
    mirrored |= {48: 54, 49: 53, 50: 52, 59: 55, 58: 56, 60: 64, 61: 63, 67: 65}
    return LandmarkSchema(
        name="ibug68",
        names=numbered(*range(68)),
        flip_pairs=tuple((str(a), str(b)) for a, b in mirrored.items()),
        skeleton=(
            chain(0, 16),
            chain(17, 21),
            chain(22, 26),
            chain(27, 30),
            chain(31, 35),
            chain(36, 41, closed=True),
            chain(42, 47, closed=True),
            chain(48, 59, closed=True),
            chain(60, 67, closed=True),
        ),
        # the subject's left eye is on the right of the image: landmarks 42 to 47
        eyes=(chain(42, 47), chain(36, 41)),
    )


IBUG68 = _ibug68()
"""The 68 landmarks of iBUG 300-W."""

SCHEMAS = {KAGGLE15.name: KAGGLE15, IBUG68.name: IBUG68}
"""The built-in schemas by name."""
