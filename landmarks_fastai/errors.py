"""Exceptions whose message is written for the user.

LandmarksError        base class; the command line prints the message without a traceback
├── UserError         the input is wrong: names the file, row or option and what to do (exit code 2)
└── RunError          the input was valid but the run failed (exit code 1)
    └── WriteError    a file cannot be written
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class LandmarksError(Exception):
    """Error with a one-line message: what is wrong, where, and what to do about it.

    Parameters
    ----------
    message
        The message.
    details
        Further lines, such as one for each row that cannot be used.
    """

    exit_code = 1

    def __init__(self, message: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class UserError(LandmarksError):
    """Invalid input: a file, row, option or value that cannot be used."""

    exit_code = 2


class RunError(LandmarksError):
    """A run that failed although its input was valid: a full disk, a lost connection."""

    exit_code = 1


class WriteError(RunError):
    """A file that cannot be written: no permission, no space.

    Parameters
    ----------
    path
        The file.
    reason
        What the operating system says.
    hint
        What to do about it.
    """

    def __init__(self, path: Path, reason: str, hint: str) -> None:
        super().__init__(f"{path}: cannot be written ({reason}); {hint}")
        self.path, self.reason = path, reason
