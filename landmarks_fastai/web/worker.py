"""A worker process that opens what users upload, with limits on its time and memory.

Decoders of images and videos are written in C: what freezes or crashes one of them, or makes it allocate
gigabytes, does so in a process that can be stopped. The process keeps its models, so that a request costs no
more than a message to it and one back.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from landmarks_fastai.errors import LandmarksError, RunError
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.web.limits import MEGABYTE, Limits

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

START_SECONDS = 300.0
"""Maximum time in which a process must start and open its first model."""

POLL_SECONDS = 0.2
"""How often a waiting request looks whether the server stops."""

ALARM_SECONDS = 15.0
"""How long after its limit a process ends itself, in case that the server, which should do so, was killed."""


@dataclass(frozen=True)
class Job:
    """A call of a method of the service.

    Parameters
    ----------
    method, arguments
        Name of the method and its positional arguments.
    name
        Name of the file for messages.
    seconds
        Maximum time of the call.
    stall_seconds
        Maximum time between two of its progress reports; None if the method does not report its progress.
    """

    method: str
    arguments: tuple[Any, ...]
    name: str
    seconds: float
    stall_seconds: float | None = None


class Worker:
    """One process that runs one job at a time; it is started when needed, and again after it was stopped.

    Parameters
    ----------
    open_service
        Returns the object whose methods the jobs call; called in the process, to which it is pickled.
    limits
        Limits of memory and of the size of a file.
    """

    def __init__(self, open_service: Callable[[], object], limits: Limits) -> None:
        self._open_service = open_service
        self._limits = limits
        self._busy = Lock()
        self._closing = Event()
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the process, and wait until it has opened the service.

        Raises
        ------
        UserError, RunError
            What `open_service` raises; or if the process cannot be started.
        """
        with self._busy:
            self._ready()

    def run(self, job: Job, progress: Progress | None = None) -> Any:
        """Run a job, and return its result.

        Raises
        ------
        UserError, RunError
            What the service raises; or if the job exceeds a limit, its process dies, or the server stops.
        """
        with self._busy:
            connection = self._ready()
            try:
                connection.send(job)
                return self._wait(connection, job, progress)
            except (EOFError, OSError):
                code = self._stop()
                raise RunError(
                    f"{job.name}: cannot be processed (its decoder ended with code {code}); the file is"
                    " damaged or too large: save it again, or reduce its size"
                ) from None
            except _LimitExceededError as error:
                self._stop()
                raise RunError(f"{job.name}: {error}") from None
            except LandmarksError:
                raise
            except BaseException:
                self._stop()  # its answer, still to come, must not be taken for that of the next job
                raise

    def close(self) -> None:
        """Stop the process and the job in progress."""
        self._closing.set()
        with self._busy:
            self._stop()

    def _wait(self, connection: Connection, job: Job, progress: Progress | None) -> Any:
        """Return the result of a job; call `progress` on the way."""
        end = time.monotonic() + job.seconds
        stall_seconds = job.seconds if job.stall_seconds is None else job.stall_seconds
        stall = time.monotonic() + stall_seconds
        while True:
            self._check_open(job.name)
            if connection.poll(POLL_SECONDS):
                kind, value = connection.recv()
                if kind == "result":
                    return value
                if kind == "error":
                    raise value
                stall = time.monotonic() + stall_seconds
                if progress is not None:
                    progress(*value)
            if time.monotonic() > end:
                raise _LimitExceededError(f"not finished after {job.seconds:g} s; reduce its size")
            if time.monotonic() > stall:
                raise _LimitExceededError(
                    f"stopped because it did not advance for {stall_seconds:g} s; the file may be damaged:"
                    " save it again"
                )

    def _check_open(self, name: str) -> None:
        """Raise a RunError, and stop the process, if the server stops."""
        if self._closing.is_set():
            self._stop()
            raise RunError(f"{name}: not finished because the server is stopping")

    def _ready(self) -> Connection:
        """Return the connection to the process, which is started if it does not run."""
        if self._connection is not None and self._process is not None and self._process.is_alive():
            return self._connection
        self._stop()
        self._check_open("the page")
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(other, self._open_service, self._limits), daemon=True
        )
        self._process.start()
        other.close()
        opening = Job("", (), "the page", START_SECONDS)
        try:
            self._wait(self._connection, opening, None)
        except (EOFError, OSError, _LimitExceededError) as error:
            code = self._stop()
            raise RunError(
                f"the worker process cannot be started ({error or f'it ended with code {code}'})"
            ) from None
        except LandmarksError:
            self._stop()
            raise
        return self._connection

    def _stop(self) -> int | None:
        """Stop the process, and return its exit code; None if there is none."""
        if self._process is None:
            return None
        self._process.join(0.1)  # if it is ending by itself, its own exit code is the interesting one
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        return code


class _LimitExceededError(Exception):
    """A job exceeds one of its limits of time."""


# --- in the process ------------------------------------------------------------------------------


def _work(connection: Connection, open_service: Callable[[], object], limits: Limits) -> None:
    """Run jobs until the server closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
    try:
        service = open_service()
    except LandmarksError as error:
        connection.send(("error", error))
        return
    _limit_resources(limits)
    connection.send(("result", None))
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        _set_alarm(job.seconds + ALARM_SECONDS)
        answer = _answer(service, job, connection, limits)
        _set_alarm(0)
        connection.send(answer)


def _answer(service: object, job: Job, connection: Connection, limits: Limits) -> tuple[str, Any]:
    """Return the result of a job, or the error to raise in the server."""

    def report(done: int, expected: int | None, unit: str = "frames") -> None:
        connection.send(("progress", (done, expected, unit)))

    progress = () if job.stall_seconds is None else (report,)
    try:
        return "result", getattr(service, job.method)(*job.arguments, *progress)
    except LandmarksError as error:
        return "error", error
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # the latter is torch's
            return "error", RunError(
                f"{job.name}: needs more than {limits.memory_megabytes:g} MB of memory; reduce its size"
            )
        traceback.print_exception(error)
        return "error", RunError(f"internal error: {type(error).__name__}; the terminal shows the traceback")


def _set_alarm(seconds: float) -> None:
    """Let the system end the process after some seconds, even within a decoder; 0 for never."""
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_resources(limits: Limits) -> None:
    """Limit the memory that the process may use in addition to what it uses now, and the size of its files.

    Only Linux enforces the former. The address space is not limited, because a GPU reserves much of it.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData"))
    memory = used + round(limits.memory_megabytes * MEGABYTE)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    file = round(limits.storage_megabytes * MEGABYTE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file, file))
