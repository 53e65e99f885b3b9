"""One file over HTTP: resumed after a break, tried again, checked, and whole or not there at all.

Knows nothing about what is in the file or who wants it.
"""

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
from pathlib import Path

from filelock import FileLock

from landmarks_fastai.errors import RunError, UserError

Progress = Callable[[int, int | None], None]

CHUNK = 1 << 18
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers that another try may turn into a better one."""


class _BrokenError(Exception):
    """The connection broke, or was never there: worth another try."""


def fetch(
    url: str,
    target: Path,
    wanted: str,
    progress: Progress | None = None,
    retries: int = 4,
    *,
    digest: Callable[[Path], str] | None = None,
    otherwise: str | None = None,
    timeout: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Download `url` to `target`, unless the right file is there already.

    What has come stands in `target`.part until it is whole, so a later call, of this process or
    another, goes on where the last one broke off. Of two processes, the second waits for the first.

    Parameters
    ----------
    url
        Where the file is, http or https; redirections are followed.
    target
        Where it goes; the folder is made.
    wanted
        The digest that the file must have.
    progress
        Told of the bytes that are there and of those in all, None where the server does not say.
    retries
        How often to try again after a break, 1, 2, 4 … seconds apart.
    digest
        Computes a file's digest, as hex; `git_blob` if unset.
    otherwise
        What to do without the download, for the messages; "go on with a local file …" if unset.
    timeout
        Seconds without a byte that count as a break.
    sleep
        Called between two tries.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    RunError
        If there is no connection, the server refuses, or the file can't be written.
    UserError
        If what came is another file than was asked for.
    """
    part = target.with_name(f"{target.name}.part")
    digest = digest or git_blob
    otherwise = otherwise or f"go on with a local file: --data path/to/{target.name}"
    if target.is_file() and digest(target) == wanted:  # also in a folder that may not be written to
        return target
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_file() and digest(target) == wanted:  # fetched by another process meanwhile
                return target
            _pull_patiently(url, part, otherwise, progress, retries, timeout, sleep)
            found = digest(part)
            if found != wanted:
                part.unlink()
                raise UserError(
                    f"{url}: what came has the digest {found}, not {wanted}: another file, or"
                    f" damaged on the way; try again, or {otherwise}"
                )
            os.replace(part, target)
    return target


def git_blob(path: Path) -> str:
    r"""Return the digest git gives a file: SHA-1 of ``blob <length>\0`` and the bytes, as hex."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Tell what the disk refuses; what the network refuses has become a _BrokenError by then."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{target}: can't be written ({error.strerror or error}); make room, or choose another"
            " cache folder in LANDMARKS_FASTAI_CACHE"
        ) from error


def _pull_patiently(
    url: str,
    part: Path,
    otherwise: str,
    progress: Progress | None,
    retries: int,
    timeout: float,
    sleep: Callable[[float], None],
) -> None:
    """Pull until the file is whole or the patience is at its end."""
    for attempt in range(retries + 1):
        try:
            return _pull(url, part, otherwise, progress, timeout)
        except _BrokenError as error:
            if attempt == retries:
                kept = (
                    "what came is kept for the next try; " if part.is_file() and part.stat().st_size else ""
                )
                raise RunError(f"{url}: {error}; {kept}try again later, or {otherwise}") from error
        sleep(2.0**attempt)


def _pull(url: str, part: Path, otherwise: str, progress: Progress | None, timeout: float) -> None:
    """Fetch what is missing from `part` in one connection."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "landmarks-fastai"} | ({"Range": f"bytes={have}-"} if have else {})
    with _talking(url, otherwise):
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416 or not have:
                raise
            # nothing lies behind what we have: it is whole, or not the start of this file at all
            if _span(error.headers.get("Content-Range"))[1] != have:
                part.unlink()
                raise _BrokenError("the part that was there did not fit") from None
            return
    with response:
        start, total = _span(response.headers.get("Content-Range"))
        goes_on = response.status == 206 and start == have
        if not goes_on:  # the server sends the whole, so what we have would stand twice
            if response.status == 206:
                part.unlink()
                raise _BrokenError("the server sent another part than was asked for")
            length = response.headers.get("Content-Length")
            have, total = 0, int(length) if length and length.isdigit() else None
        with part.open("ab" if goes_on else "wb") as out:
            if progress is not None:
                progress(have, total)
            while chunk := _read(response, url, otherwise):
                out.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
    # http.client ends a cut body like a whole one
    if total is not None and have < total:
        raise _BrokenError(f"the connection broke after {have:,} of {total:,} bytes")


def _read(response: http.client.HTTPResponse, url: str, otherwise: str) -> bytes:
    with _talking(url, otherwise):
        return response.read1(CHUNK)


@contextmanager
def _talking(url: str, otherwise: str) -> Iterator[None]:
    """Sort what a connection can raise into what may pass and what won't."""
    try:
        yield
    except urllib.error.HTTPError as error:
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in PASSING:
            raise _BrokenError(answer) from error
        raise RunError(f"{url}: {answer}; {otherwise}") from error
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise _BrokenError(f"no connection ({reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection broke ({str(error) or type(error).__name__})") from error


def _span(content_range: str | None) -> tuple[int | None, int | None]:
    """Read where a part starts and how long the whole is from ``bytes 5-9/10`` or ``bytes */10``."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", content_range or "")
    start, total = match.groups() if match else (None, None)
    return (None if start is None else int(start)), (None if total is None else int(total))
