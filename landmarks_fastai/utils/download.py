"""Downloading a file over HTTP, with retries, resuming, and verification by its digest."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.utils.progress import Progress, announce

CHUNK = 1 << 18
"""Bytes read at a time."""

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP status codes after which the request is retried."""


class _ConnectionFailedError(Exception):
    """No connection, a broken one, or a temporary error of the server: the request is retried."""


@dataclass(frozen=True)
class _Request:
    """A download in progress.

    Parameters
    ----------
    url
        Address of the file.
    partial
        File with the data downloaded so far.
    hint
        What the user can do instead of downloading, for messages.
    progress
        Called with the bytes downloaded so far and the total.
    timeout
        Seconds without data after which the connection counts as broken.
    about
        What is downloaded.
    """

    url: str
    partial: Path
    hint: str
    progress: Progress | None
    timeout: float
    about: str


def download(
    url: str,
    target: Path,
    expected: str,
    progress: Progress | None = None,
    *,
    about: str | None = None,
    retries: int = 4,
    digest: Callable[[Path], str] | None = None,
    hint: str | None = None,
    timeout: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Download `url` to `target` unless a file with the expected digest is there already.

    The data is collected in `target`.part. If the download is interrupted, the next call, of this process or
    another, resumes it. A second process that downloads the same file waits for the first.

    Parameters
    ----------
    url
        Address of the file, http or https; redirects are followed.
    target
        Path of the downloaded file; its folder is created if needed.
    expected
        Digest of the file.
    progress
        Called with the bytes downloaded so far and the total, None if the server does not send its size.
        What is downloaded, its size and `url` are announced before the data arrives.
    about
        What is downloaded, for the announcement; the name of `target` if None.
    retries
        Number of times a failed request is retried, after 1, 2, 4 … seconds.
    digest
        Computes the digest of a file as hex; `git_blob_sha1` if None.
    hint
        What the user can do instead of downloading, for messages; if None, to use a local file with --data.
    timeout
        Seconds without data after which the connection counts as broken.
    sleep
        Called with the number of seconds to wait before a retry.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    RunError
        If there is no connection, the server responds with an error, or the file cannot be written.
    UserError
        If the downloaded file has another digest.
    """
    partial = target.with_name(f"{target.name}.part")
    digest = digest or git_blob_sha1
    hint = hint or f"use a local file: --data path/to/{target.name}"
    if target.is_file() and digest(target) == expected:  # also if the folder is not writable
        return target
    with _report_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_file() and digest(target) == expected:  # downloaded by another process meanwhile
                return target
            request = _Request(url, partial, hint, progress, timeout, about or target.name)
            _download_with_retries(request, retries, sleep)
            actual = digest(partial)
            if actual != expected:
                partial.unlink()
                raise UserError(
                    f"{url}: the downloaded file has the digest {actual}, not {expected}: it is another file,"
                    f" or was damaged in transfer; try again, or {hint}"
                )
            os.replace(partial, target)
    return target


def git_blob_sha1(path: Path) -> str:
    """Return the digest of a file as a git blob, as hex; see `git_blob_sha1_of_stream`."""
    with path.open("rb") as file:
        return git_blob_sha1_of_stream(file, path.stat().st_size)


def git_blob_sha1_of_stream(stream: IO[bytes], size: int) -> str:
    r"""Return the digest of `size` bytes as a git blob, as hex: SHA-1 of ``blob <size>\0`` and the bytes."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _report_disk_errors(target: Path) -> Iterator[None]:
    """Turn an OSError into a RunError; network errors have already become a _ConnectionFailedError."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{target}: cannot be written ({error.strerror or error}); free some space, or choose another"
            " cache folder in LANDMARKS_FASTAI_CACHE"
        ) from error


def _download_with_retries(request: _Request, retries: int, sleep: Callable[[float], None]) -> None:
    """Request the file until it is complete or no retries are left."""
    for attempt in range(retries + 1):
        try:
            return _download_once(request)
        except _ConnectionFailedError as error:
            if attempt == retries:
                resumable = request.partial.is_file() and request.partial.stat().st_size
                resume = "the partial download is kept and will be resumed; " if resumable else ""
                raise RunError(
                    f"{request.url}: {error}; {resume}try again later, or {request.hint}"
                ) from error
        sleep(2.0**attempt)


def _download_once(request: _Request) -> None:
    """Download the rest of the file over one connection."""
    offset = request.partial.stat().st_size if request.partial.is_file() else 0
    response = _connect(request, offset)
    if response is None:
        return
    with response:
        if response.status == 206:
            start, total = _parse_content_range(response.headers.get("Content-Range"))
            if start != offset:
                request.partial.unlink()
                raise _ConnectionFailedError("the server sent a different range than requested")
        else:  # the server ignores ranges and sends the whole file
            length = response.headers.get("Content-Length")
            offset, total = 0, int(length) if length and length.isdigit() else None
        begins = "resuming the download of" if offset else "downloading"
        size = "unknown size" if total is None else f"{total / 1e6:,.1f} MB"
        announce(request.progress, f"{begins} {request.about} ({size}) from {request.url}")
        received = _write_response(request, response, offset, total)
    # http.client does not report a truncated body
    if total is not None and received < total:
        raise _ConnectionFailedError(f"the connection broke after {received:,} of {total:,} bytes")


def _connect(request: _Request, offset: int) -> http.client.HTTPResponse | None:
    """Request the file from byte `offset` on; return None if the partial file is already complete."""
    headers = {"User-Agent": "landmarks-fastai"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with _report_network_errors(request):
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(
                urllib.request.Request(request.url, headers=headers), timeout=request.timeout
            )
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416 or not offset:
                raise
            # no bytes after the offset: the partial file is complete, or is not part of this file
            if _parse_content_range(error.headers.get("Content-Range"))[1] != offset:
                request.partial.unlink()
                raise _ConnectionFailedError("the partial file does not belong to this file") from None
            return None


def _write_response(
    request: _Request, response: http.client.HTTPResponse, offset: int, total: int | None
) -> int:
    """Append the body to the partial file, or replace it if `offset` is 0, and return its new size."""
    received = offset
    with request.partial.open("ab" if offset else "wb") as file:
        if request.progress is not None:
            request.progress(received, total)
        while chunk := _read_chunk(request, response):
            file.write(chunk)
            received += len(chunk)
            if request.progress is not None:
                request.progress(received, total)
    return received


def _read_chunk(request: _Request, response: http.client.HTTPResponse) -> bytes:
    with _report_network_errors(request):
        return response.read1(CHUNK)


@contextmanager
def _report_network_errors(request: _Request) -> Iterator[None]:
    """Raise _ConnectionFailedError for network errors that may be temporary, and RunError for the others."""
    try:
        yield
    except urllib.error.HTTPError as error:
        response = f"the server responded with {error.code} {error.reason}"
        if error.code in RETRYABLE:
            raise _ConnectionFailedError(response) from error
        raise RunError(f"{request.url}: {response}; {request.hint}") from error
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise _ConnectionFailedError(f"no connection ({reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionFailedError(
            f"the connection broke ({str(error) or type(error).__name__})"
        ) from error


def _parse_content_range(content_range: str | None) -> tuple[int | None, int | None]:
    """Return the start of the range and the size of the file: ``bytes 5-9/10``, ``bytes */10``."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", content_range or "")
    start, total = match.groups() if match else (None, None)
    return (None if start is None else int(start)), (None if total is None else int(total))
