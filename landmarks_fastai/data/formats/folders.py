"""Folders with one label file per image: finding the files, and writing such folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.utils.images import natural_key

MAX_EXAMINED = 200_000
"""Number of files after which `first_files` stops looking."""


def find_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files below a folder whose names end in `suffix`, in natural order, without hidden ones."""
    paths = [Path(root, name) for root, names in _walk(folder) for name in names if _matches(name, suffix)]
    return sorted(paths, key=natural_key)


def first_files(folder: Path, suffix: str, count: int) -> list[Path]:
    """Return at most `count` files as `find_files` does, in any order, without searching large trees."""
    found: list[Path] = []
    examined = 0
    for root, names in _walk(folder):
        found += [Path(root, name) for name in names if _matches(name, suffix)]
        examined += len(names)
        if len(found) >= count or examined > MAX_EXAMINED:
            break
    return found[:count]


def copy_image(source: Path, target: Path) -> None:
    """Copy an image, unless `target` is the same file.

    Raises
    ------
    UserError, RunError
        See `atomic_write`.
    """
    if target.exists() and os.path.samefile(source, target):
        return
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder that is not hidden, and the names of its files."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield root, names


def _matches(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix) and not name.startswith(".")
