"""Files and folders of the local disk and of remote storages, under one name: a path or a URL."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from landmarks_fastai.errors import LandmarksError, RunError, UserError
from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.utils.text import shorten

URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
"""Start of a URL; one letter before the colon is a drive of Windows."""

MERGED_SLASHES = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):[/\\](?![/\\])")
"""Start of a URL that was turned into a Path, which merges its slashes."""

MAX_FILE = 1 << 28
"""Larger image files, in bytes, are not read: they are held in memory while they are decoded."""

RETRY_SECONDS = (0.5, 2.0, 8.0)
"""Seconds before each repetition of a request that failed."""

REMOTE_HINT = "pip install 'landmarks-fastai[remote]'"

T = TypeVar("T")


class UnreachableError(RunError):
    """A remote file that could not be read, although the request was repeated."""


def is_url(location: str) -> bool:
    """Return True for a URL, False for a path of this machine."""
    return URL.match(location) is not None


def location_of(path: Path | str) -> str:
    """Return a location as a user has written it, also if it was a URL that became a Path."""
    return MERGED_SLASHES.sub(r"\1://", str(path), count=1)


def join(folder: str, *parts: str) -> str:
    """Return the location of a file in a folder."""
    if is_url(folder):
        return "/".join([folder.rstrip("/"), *parts])
    return str(Path(folder, *parts))


def parent(location: str) -> str:
    """Return the folder of a location."""
    return location.rpartition("/")[0] if is_url(location) else str(Path(location).parent)


def suffix(location: str) -> str:
    """Return the suffix of a location in lower case, without the query of a URL: ``.jpg``, ``.tar.gz``."""
    name = PurePosixPath(re.split(r"[?#]", location)[0] if is_url(location) else location).name.lower()
    ends = PurePosixPath(name).suffixes
    return "".join(ends[-2:]) if len(ends) > 1 and ends[-2] == ".tar" else "".join(ends[-1:])


def filesystem(location: str) -> tuple[Any, str]:
    """Return the fsspec file system of a location, and the path in it.

    Raises
    ------
    UserError
        If the protocol of a URL is not known, or needs a package that is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        # a cache of listings would grow with the number of files
        return url_to_fs(location, use_listings_cache=False)  # type: ignore[no-any-return]
    except ImportError as error:
        raise UserError(f"{location}: {shorten(str(error), 100)}: {REMOTE_HINT}") from error
    except ValueError as error:
        reason = shorten(str(error), 100)
        raise UserError(f"{location}: cannot be opened ({reason}); use s3://, gs:// or https://") from error


def full_name(fs: Any, location: str, path: str) -> str:
    """Return the location of a path that a file system has listed."""
    return str(fs.unstrip_protocol(path)) if is_url(location) else str(Path(path))


@contextmanager
def opened(location: str) -> Iterator[IO[bytes]]:
    """Open a file for reading.

    Raises
    ------
    UserError
        If there is no such file, or reading it is not allowed.
    UnreachableError
        If a remote file cannot be read for another reason.
    """
    with report_read_errors(location):
        fs, path = filesystem(location)
        with fs.open(path, "rb") as file:
            yield file


def read_file(location: str, limit: int = MAX_FILE) -> bytes:
    """Return the content of a file; requests of remote files are repeated.

    Raises
    ------
    UserError
        If it is missing, not allowed to be read, or larger than `limit` bytes.
    UnreachableError
        If a remote file cannot be read for another reason.
    """

    def read() -> bytes:
        with opened(location) as file:
            return file.read(limit + 1)

    data = repeated(read)
    if len(data) > limit:
        raise UserError(f"{location}: {too_large(limit)}")
    return data


def repeated(action: Callable[[], T]) -> T:
    """Return the result of an action, which is repeated if a remote file cannot be reached."""
    for seconds in RETRY_SECONDS:
        try:
            return action()
        except UnreachableError:
            time.sleep(seconds)
    return action()


def too_large(limit: int = MAX_FILE) -> str:
    """Return the reason for not reading a file of more than `limit` bytes."""
    return f"more than {limit // 2**20} MiB; reduce its size first"


@contextmanager
def report_read_errors(location: str) -> Iterator[None]:
    """Turn what file systems raise into a UserError or, if repeating may help, an UnreachableError."""
    try:
        yield
    except LandmarksError:
        raise
    except FileNotFoundError:
        raise UserError(f"{location}: no such file") from None
    except PermissionError as error:
        raise UserError(f"{location}: access denied; check the permissions or credentials") from error
    except IsADirectoryError as error:
        raise UserError(f"{location}: a folder, not a file") from error
    except Exception as error:  # each library of a storage has exceptions of its own
        if not is_url(location) and not isinstance(error, OSError):
            raise
        reason = shorten(str(error), 100) or type(error).__name__
        raise UnreachableError(f"{location}: cannot be read ({reason})") from error


def names_in(folder: str) -> list[str]:
    """Return the names of the files in a folder, without order; none if it does not exist."""
    fs, path = filesystem(folder)
    with report_read_errors(folder):
        try:
            return [entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []


@contextmanager
def written(target: str) -> Iterator[Path]:
    """Yield a local path whose file gets to `target` when it is complete; an object is written whole.

    Raises
    ------
    UserError, RunError
        If it cannot be written.
    """
    if not is_url(target):
        with atomic_write(Path(target)) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / target.rpartition("/")[2]
        yield partial
        fs, path = filesystem(target)
        with report_remote_write_errors(target):
            fs.makedirs(fs._parent(path), exist_ok=True)
            fs.put_file(str(partial), path)


def delete(location: str) -> None:
    """Delete a file or folder, if it exists."""
    fs, path = filesystem(location)
    with report_remote_write_errors(location):
        if fs.exists(path):
            fs.rm(path, recursive=True)


@contextmanager
def report_remote_write_errors(target: str) -> Iterator[None]:
    """Turn what file systems raise while a file is written or deleted into a RunError."""
    try:
        yield
    except LandmarksError:
        raise
    except Exception as error:
        reason = shorten(str(error), 100) or type(error).__name__
        raise RunError(f"{target}: cannot be written ({reason}); check the address and the access") from error
