"""Text of messages: counts and suggestions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def format_count(number: int, noun: str) -> str:
    """Return a count with its noun: ``"1 face"``, ``"1,200 faces"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint about an unknown name.

    Returns
    -------
    str
        ``"did you mean 'resnet18'?"`` if one of `known` is similar, else ``"known: a, b, c"``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
