"""The eyes among landmarks, found by their names: a schema with eyes is that of a face."""

from __future__ import annotations

import re
from collections.abc import Sequence

from landmarks_fastai.schema import Groups
from landmarks_fastai.schemas.sides import Pair, split_names

EYE = re.compile(r"eyes?(?!brow|lash|lid|glass|wear|patch|liner|bag)|pupils?|iris(es)?|canthus|canthi")
"""Start of a word that belongs to an eye."""

NOT_EYE = re.compile(r"brow|lash|glass|liner|bag")
"""Start of a word that shows that a landmark belongs to something next to an eye."""

CENTER = frozenset(
    {"center", "centre", "middle", "mid", "ctr", "ball", "eyeball", "eyecenter", "eyecentre"}
    | {"pupil", "pupils", "iris", "irises"}
)
"""Words for the middle of an eye."""

BODY = re.compile(
    r"shoulder|elbow|wrist|hips?$|knee|ankle|paw|hoof|tail|wings?$|foot|feet|hand|thumb|finger|toes?$|heel|thigh"
    r"|spine|pelvis|legs?$|arms?$|torso|body|belly|withers|thorax"
)
"""Start of a word that shows that the landmarks are those of a body, whose box is not that of its face."""

NOSE = re.compile("nose|nasal")
"""Start of a word that shows that a wing is that of a nose."""


def find_eyes(names: Sequence[str], pairs: Sequence[Pair]) -> Groups | None:
    """Return the landmarks of the left and the right eye, or None if the names are not those of a face.

    The eyes are their centers or pupils if both are among the flip pairs, else all paired landmarks of the
    eyes, so that the mean of each group is near the center of its eye.

    Parameters
    ----------
    names
        The landmark names.
    pairs
        Their flip pairs, (left, right).

    Examples
    --------
    >>> find_eyes(["LEye", "REye", "nose"], [("LEye", "REye")])
    (('LEye',), ('REye',))
    """
    words = {each.name: each.words for each in split_names(names)}
    if any(_starts(BODY, each) and not _starts(NOSE, each) for each in words.values()):
        return None
    eyes = [pair for pair in pairs if _starts(EYE, words[pair[0]]) and not _starts(NOT_EYE, words[pair[0]])]
    centers = [pair for pair in eyes if _is_center(words[pair[0]])]
    chosen = centers or eyes
    if not chosen:
        return None
    return tuple(left for left, _ in chosen), tuple(right for _, right in chosen)


def _starts(pattern: re.Pattern[str], words: Sequence[str]) -> bool:
    return any(pattern.match(word) for word in words)


def _is_center(words: Sequence[str]) -> bool:
    """Return whether the words name the middle of an eye, or the eye and nothing else."""
    others = {word for word in words if word not in ("eye", "eyes") and not word.startswith("<")}
    return others <= CENTER
