"""Left and right in landmark names, in the spellings that annotation tools and data sets use.

A name is split into words at punctuation, digits and changes of case: "LEFT_EYE", "leftEye", "LEye", "eye_l",
"eyeL", "l-eye" and "Eye.L" all consist of a side and of the word "eye". Left and right are also found at the
start or end of a word ("lefteye", "topright"), and the letters L and R before or after a few words of anatomy
("lshoulder"). Two names are a flip pair if they differ in their sides only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from landmarks_fastai.schema import LandmarkSchema

Pair = tuple[str, str]

MIRRORED = {
    "left": "right",
    "lft": "rgt",
    "lt": "rt",
    "lf": "rf",  # left front, as in "LF_paw"
    "lh": "rh",
    "lb": "rb",
    "l": "r",
}
"""Words for left, with the same word for right."""

WORDS = ("left", "right")
"""Words that name a side even if no other name is their mirror image."""

ANATOMY = frozenset(
    [
        "ankle",
        "brow",
        "canthus",
        "cheek",
        "ear",
        "elbow",
        "eye",
        "eyebrow",
        "foot",
        "hand",
        "hip",
        "jaw",
        "knee",
        "lip",
        "mouth",
        "nostril",
        "paw",
        "pupil",
        "shoulder",
        "temple",
        "toe",
        "wrist",
    ]
)
"""Words to which the letter of a side is attached without a change of case: "lshoulder", "eyel"."""

NO_SIDES = frozenset(
    [
        "alright",
        "aright",
        "birthright",
        "bright",
        "brighter",
        "cleft",
        "copyright",
        "downright",
        "forthright",
        "fright",
        "leftover",
        "leftovers",
        "outright",
        "playwright",
        "righteous",
        "rightly",
        "rights",
        "upright",
        "wright",
    ]
)
"""Words that contain "left" or "right" but do not name a side."""

NOT_LETTERING = frozenset("cmtbudio")
"""Letters beside "l" and "r" for other positions: center, middle, top, bottom, up, down, inner, outer."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_OPPOSITE = MIRRORED | {right: left for left, right in MIRRORED.items()}
_SIDE = "<side>"
_RIGHT_ANGLE = re.compile(r"right[\W_]*angle", re.IGNORECASE)


@dataclass(frozen=True)
class SidedName:
    """A landmark name, split into its sides and the rest.

    Parameters
    ----------
    name
        The name.
    words
        Lowercase words; `_SIDE` in the place of each side.
    sides
        The sides in lowercase, as they are spelled: "left", "l" …; empty if the name has none.
    style
        How the first side is spelled: its word for left, its position among the words, and whether it is in
        upper case.
    """

    name: str
    words: tuple[str, ...]
    sides: tuple[str, ...]
    style: tuple[str, str, bool]

    @property
    def opposite(self) -> tuple[str, ...]:
        """The sides of its mirror image."""
        return tuple(_OPPOSITE[side] for side in self.sides)

    @property
    def has_word(self) -> bool:
        """Whether a side is spelled out as "left" or "right"."""
        return any(side in WORDS for side in self.sides)


def find_pairs(names: Sequence[str]) -> tuple[Pair, ...]:
    """Return the flip pairs of landmark names, (left, right), in the order of the left ones.

    Single letters are no sides where they count on ("point_k", "point_l", "point_m").

    Examples
    --------
    >>> find_pairs(["leftEye", "rightEye", "nose", "mouth_l", "mouth_r"])
    (('leftEye', 'rightEye'), ('mouth_l', 'mouth_r'))
    """
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
    sided = split_names(names)
    for each in sided:
        groups[each.words, each.sides].append(each.name)
    pairs = []
    for each in sided:
        if each.sides and each.sides[0] in MIRRORED:
            own, others = groups[each.words, each.sides], groups.get((each.words, each.opposite), [])
            other = _choose(each, others, alone=len(own) == 1)
            if other is not None:
                pairs.append((each.name, other))
    return tuple(pairs)


def unpaired_names(schema: LandmarkSchema) -> tuple[str, ...]:
    """Return the landmarks whose name says left or right but which are in no flip pair.

    The letters L and R say so only if they are spelled like those of a pair of the schema. Right angles, and
    landmarks that the schema declares to be on the midline, are left out.

    Examples
    --------
    >>> unpaired_names(LandmarkSchema("face", ("left_eye", "right_eye", "leftMouth"),
    ...                               flip_pairs=(("left_eye", "right_eye"),)))
    ('leftMouth',)
    """
    known = {name for pair in schema.flip_pairs for name in pair} | set(schema.midline)
    sided = split_names(schema.names)
    styles = {each.style for each in sided if each.sides and not each.has_word and each.name in known}
    return tuple(
        each.name
        for each in sided
        if each.sides
        and each.name not in known
        and (each.has_word or each.style in styles)
        and not _RIGHT_ANGLE.search(each.name)
    )


def split_names(names: Sequence[str]) -> tuple[SidedName, ...]:
    """Split landmark names into their sides and the rest."""
    words = [_WORD.findall(name) for name in names]
    letters: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for each in words:
        for position, word in enumerate(each):
            if len(word) == 1:
                letters[_slot(each, position)].add(word.lower())
    return tuple(_split(name, each, letters) for name, each in zip(names, words, strict=True))


def _choose(each: SidedName, others: list[str], alone: bool) -> str | None:
    """Return the mirror image among names that differ from it in case or punctuation at most."""
    if len(others) == 1 and alone:
        return others[0]
    exact = [other for other in others if _shape(other) == _shape(each.name)]
    return exact[0] if len(exact) == 1 else None


def _shape(name: str) -> str:
    """Return the name with its sides replaced, and its case and punctuation kept."""

    def replace(match: re.Match[str]) -> str:
        side, rest, at_start = _split_word(match[0], alone=True)
        if side is None:
            return match[0]
        return f"<{side.isupper()}{side.istitle()}>{rest}" if at_start else f"{rest}<{side.isupper()}>"

    return _WORD.sub(replace, name)


def _slot(words: list[str], position: int) -> tuple[str, ...]:
    """Return the words with that at `position` left open, to find out which letters occur there."""
    return tuple("" if i == position else word.lower() for i, word in enumerate(words))


def _split(name: str, words: list[str], letters: dict[tuple[str, ...], set[str]]) -> SidedName:
    rest: list[str] = []
    sides: list[str] = []
    style = ("", "", False)
    for position, word in enumerate(words):
        side, other, at_start = _split_word(word, alone=_is_side(words, position, letters))
        if side is None:
            rest.append(word.lower())
            continue
        if not sides:
            place = "first" if not position else "last" if position == len(words) - 1 else "between"
            left = side.lower() if side.lower() in MIRRORED else _OPPOSITE[side.lower()]
            style = (left, place, side.isupper())
        sides.append(side.lower())
        rest += ([_SIDE, other.lower()] if at_start else [other.lower(), _SIDE]) if other else [_SIDE]
    return SidedName(name, tuple(rest), tuple(sides), style)


def _is_side(words: list[str], position: int, letters: dict[tuple[str, ...], set[str]]) -> bool:
    """Return whether a word may be the letter of a side: the letters in its place must not count on."""
    others = letters.get(_slot(words, position), set()) - {"l", "r"}
    return not others - (NOT_LETTERING if len(words) > 1 else frozenset("cm"))


def _split_word(word: str, alone: bool) -> tuple[str | None, str, bool]:
    """Return the side in a word, or None, the rest of the word, and whether the side is at its start.

    `alone` tells whether the word itself may be a letter that stands for a side.
    """
    lower = word.lower()
    if lower in _OPPOSITE:
        return (word, "", True) if len(lower) > 1 or alone else (None, word, True)
    if lower in NO_SIDES:
        return None, word, True
    for side in WORDS:
        if lower.startswith(side) and len(lower) >= len(side) + 2:
            return word[: len(side)], word[len(side) :], True
        if lower.endswith(side) and len(lower) >= len(side) + 2:
            return word[-len(side) :], word[: -len(side)], False
    if lower[0] in "lr" and lower[1:] in ANATOMY:
        return word[0], word[1:], True
    if lower[-1] in "lr" and lower[:-1] in ANATOMY:
        return word[-1], word[:-1], False
    return None, word, True
