"""Lock files that are deleted when they are released."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock


def acquire_lock(path: Path) -> FileLock:
    """Return the acquired lock of a file; `release_lock` releases it.

    Raises
    ------
    filelock.Timeout
        If another process holds the lock.
    OSError
        If the file cannot be written.
    """
    while True:
        lock = FileLock(path, timeout=0)
        path.touch()
        with suppress(FileNotFoundError):  # `release_lock` has deleted the file meanwhile
            before = path.stat().st_ino
            lock.acquire()
            if path.stat().st_ino == before:
                return lock
        lock.release()


def release_lock(lock: FileLock) -> None:
    """Release a lock and delete its file: on Windows afterward, because it deletes no open file."""
    path = Path(lock.lock_file)
    with suppress(OSError):
        if os.name != "nt":
            path.unlink()
    lock.release()
    with suppress(OSError):
        if os.name == "nt":
            path.unlink()
