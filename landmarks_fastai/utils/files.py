"""Files: atomic writes, CSV, JSON and hashes."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from landmarks_fastai.errors import LandmarksError, UserError, WriteError

DISK_HINT = "free some space or choose another location"

FULL = 1 << 16
"""A disk with fewer free bytes counts as full."""

PARTIAL_NAME = re.compile(r"\.(?P<stem>.+)\.(?P<pid>\d{1,10})(?P<suffix>(\.[^.]*)?)", re.ASCII)
"""Names that `partial_path` returns."""


@contextmanager
def atomic_write(path: Path, hint: str = DISK_HINT) -> Iterator[Path]:
    """Yield a temporary path next to `path` that replaces it on success and is deleted on failure.

    Parameters
    ----------
    path
        The file to write; its folder is created if needed.
    hint
        Advice in the error message if the file cannot be written.

    Raises
    ------
    UserError
        If `path` is a folder, or one of its parents is a file.
    WriteError
        If the file cannot be written: no permission, no space.
    """
    partial = partial_path(path)
    try:
        with report_write_errors(path, hint):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return the temporary path under which `path` is written until it is complete."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


def remove_stale_partials(folder: Path, names: Collection[str]) -> list[Path]:
    """Delete the temporary files and folders (`partial_path`) that killed processes have left in a folder.

    Parameters
    ----------
    folder
        The folder, which this process does not write to at the moment.
    names
        The files and folders in it whose temporary ones are deleted; others are not touched.

    Returns
    -------
    list[Path]
        The deleted files and folders.
    """
    removed = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = PARTIAL_NAME.fullmatch(entry.name)
        # the temporary file of a temporary file, if one function that writes a file calls another one
        while match is not None and (name := match["stem"] + match["suffix"]) not in names:
            match = PARTIAL_NAME.fullmatch(name)
        if match is None:
            continue
        if not _is_running(int(match["pid"])):
            with suppress(OSError):  # on Windows, a file that a process has open
                remove(entry)
                removed.append(entry)
    return removed


def remove(path: Path) -> None:
    """Delete a file or link, or a folder with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    """Return True if another process with this ID runs here."""
    if os.name == "nt" or pid == os.getpid():  # Windows deletes no open file; there, `os.kill` ends processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    return True


@contextmanager
def report_write_errors(path: Path, hint: str = DISK_HINT) -> Iterator[None]:
    """Turn an OSError while writing `path` into a UserError or WriteError; see `atomic_write`.

    So is the exception that a library raises in place of an OSError if the disk is full.
    """
    try:
        yield
    except LandmarksError:
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{path}: cannot be written because a file exists where a folder is needed, or a folder where the"
            " file is needed; choose another location"
        ) from error
    except OSError as error:
        raise WriteError(path, error.strerror or str(error), hint) from error
    except Exception as error:
        if not _is_disk_full(error, path.parent):
            raise
        raise WriteError(path, os.strerror(errno.ENOSPC), hint) from error


def _is_disk_full(error: BaseException | None, folder: Path) -> bool:
    """Return True if there is no space; torch, for example, raises a RuntimeError in place of the OSError."""
    with suppress(OSError):
        if shutil.disk_usage(folder).free < FULL:
            return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def reserve_space(path: Path) -> None:
    """Allocate the space of an existing file, so that writing to it through a memory map cannot fail.

    A process that writes to a sparse file through a memory map is killed by SIGBUS if the disk is full.
    Nothing is done where the system or the file system has no such function.

    Raises
    ------
    OSError
        If there is no space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the first of which is the header, as CSV, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Write indented JSON atomically; NaN is an error."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
