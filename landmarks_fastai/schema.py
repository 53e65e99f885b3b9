"""What the points are called, which mirror each other, which lines join them.

Knows nothing about pixels, files or tensors. Left and right are the subject's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from landmarks_fastai.errors import UserError


@dataclass(frozen=True)
class Schema:
    """The names of K landmarks, in order, and what joins them.

    Parameters
    ----------
    name
        What the schema is called, as it stands in model files.
    points
        The K names, in the order of every `(…, K, 2)` array.
    flip_pairs
        Names that change places in a mirrored image, in any order. Empty where no pair is known.
    lines
        Chains of names that are drawn joined.
    inter_ocular
        The points of the left eye, and of the right eye: their means lie the inter-ocular distance apart
        (one name each where the eye centres are labelled). None where the schema has no eyes.

    Raises
    ------
    UserError
        If a pair, line or eye names a point that does not exist, or a name stands twice.
    """

    name: str
    points: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()
    inter_ocular: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        """Check that every name is one of the points."""
        if len(set(self.points)) != len(self.points) or not self.points:
            raise UserError(f"schema {self.name}: the points need names, each one only once")
        paired = [name for pair in self.flip_pairs for name in pair]
        if len(set(paired)) != len(paired):
            raise UserError(f"schema {self.name}: a point stands in two flip pairs")
        eyes = [name for group in self.inter_ocular or () for name in group]
        for name in [*paired, *(name for line in self.lines for name in line), *eyes]:
            if name not in self.points:
                raise UserError(f"schema {self.name}: {name!r} is not one of its points")

    def __len__(self) -> int:
        """Return K, the number of points."""
        return len(self.points)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """For each point, the index of the point that takes its place in a mirrored image."""
        order = list(range(len(self.points)))
        for first, second in self.flip_pairs:
            i, j = self.points.index(first), self.points.index(second)
            order[i], order[j] = j, i
        return tuple(order)

    def indices(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return where each of `names` stands among the points."""
        return tuple(self.points.index(name) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain lists and strings, for a JSON header."""
        return {
            "name": self.name,
            "points": list(self.points),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "lines": [list(line) for line in self.lines],
            "inter_ocular": None if self.inter_ocular is None else [list(eye) for eye in self.inter_ocular],
        }

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Schema:
        """Read what `to_dict` wrote.

        Raises
        ------
        UserError
            If a key is missing or has the wrong shape.
        """
        try:
            eyes = entries.get("inter_ocular")
            return cls(
                name=str(entries["name"]),
                points=tuple(str(name) for name in entries["points"]),
                flip_pairs=tuple((str(a), str(b)) for a, b in entries.get("flip_pairs", ())),
                lines=tuple(tuple(str(name) for name in line) for line in entries.get("lines", ())),
                inter_ocular=None if eyes is None else (tuple(map(str, eyes[0])), tuple(map(str, eyes[1]))),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"a schema needs name, points, flip_pairs, lines and inter_ocular: {error!r}"
            ) from error


def schema_from_names(name: str, points: Sequence[str]) -> Schema:
    """Make a schema for points of one's own: names that differ only in left/right are flip pairs.

    >>> schema_from_names("hand", ["left_thumb", "right_thumb", "wrist"]).flip_pairs
    (('left_thumb', 'right_thumb'),)
    """
    for known in SCHEMAS.values():
        if tuple(points) == known.points:
            return known
    # "left" as a word of its own, so that "cleft" has no mirror image
    left = re.compile(r"(?<![a-z])(left|l)(?![a-z])", re.IGNORECASE)
    mirrored = {"left": "right", "l": "r", "Left": "Right", "L": "R", "LEFT": "RIGHT"}
    pairs = []
    for point in points:
        other = left.sub(lambda match: mirrored.get(match[0], "right"), point)
        if other != point and other in points:
            pairs.append((point, other))
    return Schema(name=name, points=tuple(points), flip_pairs=tuple(pairs))


KAGGLE15 = Schema(
    name="kaggle15",
    points=(
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
    lines=(
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
    inter_ocular=(("left_eye_center",), ("right_eye_center",)),
)
"""The 15 points of Kaggle's Facial Keypoints Detection, in the order of its columns."""


def _ibug68() -> Schema:
    """Build the 68 points of iBUG 300-W (Sagonas et al. 2013), named "0" … "67"."""

    def names(*numbers: int) -> tuple[str, ...]:
        return tuple(str(number) for number in numbers)

    def chain(first: int, last: int, closed: bool = False) -> tuple[str, ...]:
        return names(*range(first, last + 1), *((first,) if closed else ()))

    mirrored = {i: 16 - i for i in range(8)} | {i: 43 - i for i in range(17, 22)}
    mirrored |= {31: 35, 32: 34, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46}
    mirrored |= {48: 54, 49: 53, 50: 52, 59: 55, 58: 56, 60: 64, 61: 63, 67: 65}
    return Schema(
        name="ibug68",
        points=names(*range(68)),
        flip_pairs=tuple((str(a), str(b)) for a, b in mirrored.items()),
        lines=(
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
        # the subject's left eye stands on the right of the image: points 42 to 47
        inter_ocular=(chain(42, 47), chain(36, 41)),
    )


IBUG68 = _ibug68()

SCHEMAS = {KAGGLE15.name: KAGGLE15, IBUG68.name: IBUG68}
