"""Text of messages: counts and suggestions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_WORD = 80
MAX_KNOWN = 200
"""Largest numbers of characters of a name, and of a list of names, in a message."""


def format_count(number: int, noun: str) -> str:
    """Return a count with its noun: ``"1 face"``, ``"1,200 faces"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quote(value: object, length: int = 60) -> str:
    """Return a value that a user wrote as one line for messages, at most `length` characters long.

    Parameters
    ----------
    value
        Any value, such as the content of a YAML file; text is returned in quotes.
    length
        Largest number of characters; the middle of a longer text is left out.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer with more digits than Python prints; nested too deeply
        text = f"<{type(value).__name__}>"
    return shorten(text, length)


def shorten(text: str, length: int = 60) -> str:
    """Return a text on one line; the middle of one with more than `length` characters is left out."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}…{text[len(text) - (length - 1) // 2 :]}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint about an unknown name.

    Returns
    -------
    str
        ``"did you mean 'resnet18'?"`` if one of `known` is similar, else ``"known: a, b, c"``, shortened to
        `MAX_KNOWN` characters.
    """
    names = sorted(known)
    # a long word is not a misspelled name, and to compare it takes quadratic time
    close = difflib.get_close_matches(word[:MAX_WORD], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0][:MAX_WORD]!r}?"
    return f"known: {shorten(', '.join(names), MAX_KNOWN)}"
