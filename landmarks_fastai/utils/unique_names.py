"""Names of new files that do not collide, on any file system."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path


def fold_name(name: str) -> str:
    """Return a key that is equal for names that a file system may regard as the same file.

    Some file systems do not distinguish upper and lower case, or the ways in which Unicode composes a
    character.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def numbered_paths(path: Path) -> Iterator[Path]:
    """Yield PATH, PATH-2, PATH-3 … without end."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name}-{number}")


class UniqueNames:
    """Numbers names that occur more than once: ``face``, ``face-2``, ``face-3``.

    The time for N names grows linearly with N, even if all of them are equal.

    Parameters
    ----------
    separator
        Text between name and number.
    used
        Names that are in use already.
    is_free
        Returns False for names that cannot be given for another reason. None: all names are free.
    """

    def __init__(
        self,
        separator: str = "-",
        used: Iterable[str] = (),
        is_free: Callable[[str], bool] | None = None,
    ) -> None:
        self._separator, self._is_free = separator, is_free
        self._used = {fold_name(name) for name in used}
        self._numbers: dict[str, int] = {}
        """The number that each name was given last."""

    def __call__(self, name: str) -> str:
        """Return `name`, with a number if it is in use; the result is in use from now on."""
        key = fold_name(name)
        number = self._numbers.get(key, 1)
        unique = name if number == 1 else self._numbered(name, number)
        while not self._take(unique):
            number += 1
            unique = self._numbered(name, number)
        self._numbers[key] = number
        return unique

    def _numbered(self, name: str, number: int) -> str:
        return f"{name}{self._separator}{number}"

    def _take(self, name: str) -> bool:
        """Return whether a name is free, and use it."""
        key = fold_name(name)
        if key in self._used or (self._is_free is not None and not self._is_free(name)):
            return False
        self._used.add(key)
        return True
