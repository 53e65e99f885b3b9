"""The files of the page, uploads and results: the only files that it opens, until their session ends.

The browser knows a file as ``TOKEN/NAME``. The token is random, so that a session cannot guess the files of
another one, and names a folder whose path on the server the browser never sees.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import IO
from urllib.parse import quote

from landmarks_fastai.errors import UserError
from landmarks_fastai.web.limits import MEGABYTE, Limits

FILE_ROUTE = "/gradio_api/file="
"""Address below which gradio's scripts expect the files."""

NOT_THERE = "the file is not on the server, or no longer; upload it again"
"""The answer to every path that is not a file of the session, whether such a file exists or not."""

EXAMPLES = "examples"
"""Name of the folder that takes the place of the token for files that all sessions may open."""

SWEEP_SECONDS = 5.0

ORPHAN_SECONDS = 60.0
"""Time after which a file is deleted that belongs to no open page: it was uploaded, but the page was closed
before it asked for a prediction, or a prediction ended after the page was closed."""

NAME_CHARACTERS = 55
"""Maximum length of a name: with 4 bytes per character, a suffix and "_landmarks", less than 255 bytes."""

Reference = dict[str, str]
"""How the browser names a file: its "path", "url" and "orig_name"."""


@dataclass
class _Folder:
    """The folder of one upload or result: whose it is, when it was last used, and its size in bytes."""

    session: str | None
    tab: str | None
    used: float
    size: int = 0


@dataclass
class _Session:
    """A page in a browser: how many connections it has, and since when it has none."""

    connections: int = 0
    closed: float = 0.0


class Uploads:
    """Uploads and results below one folder; a context manager that deletes those of closed sessions.

    Parameters
    ----------
    root
        Existing folder.
    limits
        Limits of storage and time.
    clock
        Returns the time in seconds.
    """

    def __init__(
        self, root: Path, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root = root.resolve()
        self._limits = limits or Limits()
        self._clock = clock
        self._folders: dict[str, _Folder] = {}
        self._sessions: dict[str, _Session] = {}
        self._reserved = 0
        self._lock = Lock()
        self._stopping = Event()
        self.examples = self.root / EXAMPLES
        self.examples.mkdir(exist_ok=True)

    def __enter__(self) -> Uploads:
        """Start the thread that deletes files."""
        self._sweeper = Thread(target=self._sweep_until_stopped, daemon=True)
        self._sweeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._stopping.set()
        self._sweeper.join()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve storage for an upload of `size` bytes within the block.

        Raises
        ------
        UserError
            If the limit of the storage would be exceeded.
        """
        with self._lock:
            if self._stored() + size > self._limits.storage_megabytes * MEGABYTE:
                raise UserError("the storage of the page is full; try again in a few minutes")
            self._reserved += size
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= size

    def save(self, content: IO[bytes], name: str) -> str:
        """Save an upload, and return ``TOKEN/NAME``; see `safe_name`.

        Raises
        ------
        OSError
            If it cannot be written; nothing of it is left then.
        """
        token, folder = self._new_folder(None, None)
        path = folder / safe_name(name)
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
        except OSError:
            self._delete([token])
            raise
        self._measure(token)
        return f"{token}/{path.name}"

    def claim(self, name: str, session: str) -> None:
        """Let an upload, ``TOKEN/NAME``, belong to a session from now on, if it belongs to no other."""
        self._may_use(name.partition("/")[0], session)

    def find(self, upload: object, session: str | None = None) -> Path:
        """Return the path of a file that a browser refers to, which from then on belongs to `session`.

        Parameters
        ----------
        upload
            What the browser sent: a `Reference`, if it is honest.
        session
            The session that uses the file; None for a download.

        Raises
        ------
        UserError
            If it is not a file of this session, always with the same message.
        """
        name = upload.get("path") if isinstance(upload, dict) else None
        token, separator, rest = name.partition("/") if isinstance(name, str) else ("", "", "")
        if not (separator and rest and self._may_use(token, session)):
            raise UserError(NOT_THERE)
        try:
            path = (self.root / token / rest).resolve()
            inside = path.parent == self.root / token and path.is_file()
        except (OSError, ValueError):  # a name that is too long, or contains a null character
            inside = False
        if not inside:
            raise UserError(NOT_THERE)
        return path

    @contextmanager
    def results(self, session: str, tab: str) -> Iterator[Path]:
        """Create the folder of a result, which replaces the session's previous result in the tab.

        Raises
        ------
        UserError
            If the storage is full.
        """
        with self._lock:
            previous = [
                t for t, folder in self._folders.items() if (folder.session, folder.tab) == (session, tab)
            ]
        self._delete(previous)
        with self.reserve(0):
            token, folder = self._new_folder(session, tab)
        try:
            yield folder
        finally:
            if self._measure(token) == 0:
                self._delete([token])

    def reference(self, path: Path) -> Reference:
        """Return how the browser names a file of the page.

        The result lacks the mark of gradio's own files, so that gradio passes it on as it is.
        """
        name = path.relative_to(self.root).as_posix()
        return {"path": name, "url": FILE_ROUTE + quote(name), "orig_name": path.name}

    @contextmanager
    def connected(self, session: str) -> Iterator[None]:
        """Keep the files of a session within the block."""
        with self._lock:
            self._sessions.setdefault(session, _Session()).connections += 1
        try:
            yield
        finally:
            with self._lock:
                state = self._sessions[session]
                state.connections -= 1
                state.closed = self._clock()

    def sweep(self) -> None:
        """Delete the files of closed sessions, and files that were not used for a long time."""
        now = self._clock()
        with self._lock:
            closed = {
                name
                for name, state in self._sessions.items()
                if not state.connections and now - state.closed >= self._limits.grace_seconds
            }
            expired = [
                token
                for token, folder in self._folders.items()
                if folder.session in closed
                or now - folder.used
                >= (self._limits.keep_seconds if folder.session in self._sessions else ORPHAN_SECONDS)
            ]
            for name in closed:
                del self._sessions[name]
        self._delete(expired)

    def _sweep_until_stopped(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            self.sweep()

    def _may_use(self, token: str, session: str | None) -> bool:
        """Return whether a session may use a folder; the first session that uses an upload owns it."""
        if token == EXAMPLES:
            return True
        with self._lock:
            folder = self._folders.get(token)
            if folder is None or (session is not None and folder.session not in (None, session)):
                return False
            folder.session = folder.session or session
            folder.used = self._clock()
        return True

    def _new_folder(self, session: str | None, tab: str | None) -> tuple[str, Path]:
        token = secrets.token_urlsafe(16)
        (self.root / token).mkdir()
        with self._lock:
            self._folders[token] = _Folder(session, tab, self._clock())
        return token, self.root / token

    def _measure(self, token: str) -> int:
        """Update and return the size of a folder, in bytes."""
        try:
            size = sum(file.stat().st_size for file in (self.root / token).iterdir())
        except OSError:  # deleted in the meantime, because its session ended
            return 0
        with self._lock:
            if token in self._folders:
                self._folders[token].size = size
        return size

    def _stored(self) -> int:
        return self._reserved + sum(folder.size for folder in self._folders.values())

    def _delete(self, tokens: list[str]) -> None:
        for token in tokens:
            shutil.rmtree(self.root / token, ignore_errors=True)
        with self._lock:
            for token in tokens:
                self._folders.pop(token, None)


def safe_name(name: str) -> str:
    """Return the last part of a file name without characters that have a meaning in paths or on terminals."""
    last = re.split(r"[/\\]", name)[-1]
    path = Path(re.sub(r"[^\w .()+-]", "_", last).strip(". ") or "file")
    return path.stem[:NAME_CHARACTERS] + path.suffix[: NAME_CHARACTERS // 5]
