"""The temporary folder of a server, and what servers that were killed have left."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "landmarks-fastai-page-"
LOCK_NAME = "lock"
FILES_NAME = "files"

STARTING_SECONDS = 60.0
"""A younger folder may belong to a server that has not locked it yet."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder for the files of a server, and delete it at the end of the block.

    A server that is killed cannot do the latter. Its lock, however, ends with it, and the next server of the
    same user deletes the folder.
    """
    _delete_abandoned_folders(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, FileLock(Path(folder, LOCK_NAME)):
        files = Path(folder, FILES_NAME)
        files.mkdir()
        yield files


def _delete_abandoned_folders(parent: Path) -> None:
    """Delete the folders whose server does not run any more."""
    for folder in parent.glob(f"{PREFIX}*"):
        if not _is_own_folder(folder) or time.time() - folder.stat().st_mtime < STARTING_SECONDS:
            continue
        try:
            with FileLock(folder / LOCK_NAME, timeout=0):
                pass
        except (Timeout, OSError):
            continue
        shutil.rmtree(folder, ignore_errors=True)


def _is_own_folder(folder: Path) -> bool:
    """Return whether a path is a folder of this user; in a shared folder, others may put anything there."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
