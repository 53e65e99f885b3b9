"""Replacing an exported file, or folder, together with the files that belong to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from landmarks_fastai.utils.files import DISK_HINT, partial_path, remove, report_write_errors


@contextmanager
def replaced_on_success(path: Path, companions: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield a temporary path next to `path` that replaces it on success and is deleted on failure.

    Unlike with `atomic_write`, what is written may be a folder, and may have companions.

    Parameters
    ----------
    path
        The file or folder; its parent is created if needed.
    companions
        Suffixes of further files, which are written next to the temporary path.

    Raises
    ------
    UserError, WriteError
        As `atomic_write`.
    """
    partial = partial_path(path)
    suffixes = (*companions, path.suffix)  # the file that names the others comes last
    try:
        with report_write_errors(path, DISK_HINT):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            for suffix in suffixes:
                _replace(partial.with_suffix(suffix), path.with_suffix(suffix))
    finally:
        for suffix in suffixes:
            with suppress(OSError):
                remove(partial.with_suffix(suffix))


def _replace(new: Path, path: Path) -> None:
    """Replace a file or folder; a folder, which cannot be replaced at once, is renamed first."""
    if not (path.is_dir() and new.is_dir()):
        os.replace(new, path)
        return
    old = partial_path(path).with_suffix(".old")
    os.replace(path, old)
    os.replace(new, path)
    remove(old)
