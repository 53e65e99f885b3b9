"""What can go wrong, told in one line.

    LandmarksError        the base: caught by the command line, printed without a traceback
    ├── UserError         the input is wrong; names the file, row or option and the remedy (exit 2)
    └── RunError          the input was fine and the run failed all the same (exit 1)

Knows nothing about the command line: whoever calls a function of ours from Python gets the same text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LandmarksError(Exception):
    """One line for a person: what is wrong, where, and what to do about it."""

    exit_code = 1


class UserError(LandmarksError):
    """Bad input: a file, a row, an option or a value that can't be used."""

    exit_code = 2


class RunError(LandmarksError):
    """A run that failed though its input was good: a full disk, a lost connection."""

    exit_code = 1


def counted(number: int, what: str) -> str:
    """Say how many there are: ``"1 face"``, ``"1,200 faces"``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Say what `word` might have meant.

    Returns
    -------
    str
        ``"did you mean 'resnet18'?"`` where one of `known` is close, else ``"known: a, b, c"``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
