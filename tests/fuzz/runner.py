"""Runs mutated inputs in forked workers with limits on time and memory, and classifies the outcomes.

An input of a target is determined by the seed and its number: `make_input` creates it again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import struct
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.mutator import Files, mutate
from landmarks_fastai.errors import LandmarksError

MAX_SECONDS = 10
"""Limit of the CPU time of an input."""

MAX_WAIT = 200
"""Limit of the time of an input on the clock, for a worker that waits for something."""

MAX_MEMORY = 2 << 30
"""Limit of the memory that an input may allocate, bytes."""

MAX_MESSAGE = 400
"""Limit of the characters of a message, and of each line of its details."""

PER_WORKER = 2000
"""Inputs after which a worker process is replaced."""

SUCCESS, REFUSED = "success", "refused"
"""The outcomes that are right: a result, and a `LandmarksError` with a short message."""


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Parameters
    ----------
    name
        Its name in the table of results.
    read
        Reads the files of an input in a folder, which is empty apart from them.
    seeds
        Returns valid inputs, each with the same main file.
    main
        Path of the file that is never deleted.
    pack
        Creates the main file from its content after a mutation, such as a zip; half of the inputs are
        mutated before, the others afterward.
    expensive
        True if an input takes more than about 10 ms.
    """

    name: str
    read: Callable[[Path], object]
    seeds: Callable[[], Sequence[Files]]
    main: str
    pack: Callable[[bytes], bytes] | None = None
    expensive: bool = False


@dataclass(frozen=True)
class Failure:
    """An outcome that is neither success nor a short error.

    Parameters
    ----------
    target, seed, case
        The input; see `make_input`.
    kind
        "exception", "long message", "hang", "memory" or "crash".
    text
        The exception and where it was raised, or the message.
    """

    target: str
    seed: int
    case: int
    kind: str
    text: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.target}, seed {self.seed}, input {self.case}: {self.kind}: {self.text}"


@dataclass
class Outcomes:
    """Counts of the outcomes of a target, and its failures."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


class InputMaker:
    """Creates the inputs of a target.

    Parameters
    ----------
    target
        The target.
    seed
        Seed of all of them.
    """

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._seed = seed
        self._unpacked = [dict(files) for files in target.seeds()]
        self._packed = [self._pack(files) for files in self._unpacked]

    def make(self, case: int) -> Files:
        """Return the files of an input; number 0 and the next ones are the seeds themselves."""
        if case < len(self._packed):
            return self._packed[case]
        rng = random.Random(f"{self._target.name}/{self._seed}/{case}")
        if self._target.pack is not None and rng.random() < 0.5:
            chosen = rng.choice(self._unpacked)
            return self._pack(mutate(rng, chosen, self._unpacked, self._target.main))
        return mutate(rng, rng.choice(self._packed), self._packed, self._target.main)

    def _pack(self, files: Files) -> dict[str, bytes]:
        packed = dict(files)
        if self._target.pack is not None:
            packed[self._target.main] = self._target.pack(files[self._target.main])
        return packed


class InputFolder:
    """A folder whose content is replaced by that of an input; only what differs is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: dict[str, bytes] = {}

    def fill(self, files: Files) -> None:
        """Write the files of an input, and remove all others."""
        for name in self._written.keys() - files.keys():
            (self.path / name).unlink(missing_ok=True)
        for name, content in files.items():
            if self._written.get(name) != content:
                path = self.path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self._written = dict(files)


def run_target(target: Target, seed: int, cases: range) -> Outcomes:
    """Run inputs of a target; a worker that is killed by one of them is replaced."""
    make = InputMaker(target, seed).make  # before the fork, so that the seeds are created once
    outcomes = Outcomes()
    start = cases.start
    while start < cases.stop:
        batch = range(start, min(start + PER_WORKER, cases.stop))
        done = 0
        for result in _run_worker(target, make, batch):
            kind, _, text = result.partition(":")
            outcomes.counts[kind] += 1
            if kind not in (SUCCESS, REFUSED):
                outcomes.failures.append(Failure(target.name, seed, start + done, kind, text))
            done += 1
        start += done
    return outcomes


def run_inputs(target: Target, inputs: Sequence[Files]) -> list[str]:
    """Return the outcome of each input, up to the first that ends the worker."""
    return list(_run_worker(target, inputs.__getitem__, range(len(inputs))))


def check(read: Callable[[], object], folder: Path | None = None) -> str:
    """Call a reader, and return the outcome: its kind, and after a colon what was wrong."""
    try:
        read()
    except LandmarksError as error:
        lines = [line.replace(str(folder), "") for line in (str(error), *error.details)]
        long = [line for line in lines if len(line) >= MAX_MESSAGE]
        return f"long message:{long[0][:500]}" if long else REFUSED
    except MemoryError as error:
        return f"memory:{_place(error)}"
    except Exception as error:
        return f"exception:{type(error).__name__}: {str(error)[:200]} {_place(error)}"
    return SUCCESS


def _place(error: BaseException) -> str:
    """Return the last line of this package in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "landmarks_fastai" in frame.filename] or list(frames)
    return f"({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""


# --- workers -------------------------------------------------------------------------------------


def _run_worker(target: Target, make: Callable[[int], Files], cases: range) -> Iterator[str]:
    """Yield the outcome of each input until the worker has done them all, or one of them has ended it."""
    root = Path(tempfile.mkdtemp(prefix="fz", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    readable, writable = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.close(readable)
            _work(target, make, cases, root, writable)
            code = 0
        finally:
            os._exit(code)
    os.close(writable)
    done = 0
    try:
        while (outcome := _receive(readable)) is not None:
            done += 1
            yield outcome
    except TimeoutError:
        os.kill(process, signal.SIGKILL)
        yield f"hang:no outcome after {MAX_WAIT} s"
    else:
        if done < len(cases) and (reason := _end(process)):
            yield reason
            return
    finally:
        os.close(readable)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        shutil.rmtree(root, ignore_errors=True)


def _work(target: Target, make: Callable[[int], Files], cases: range, root: Path, pipe: int) -> None:
    """Run inputs, and send the outcome of each."""
    _silence(pipe)
    os.environ["HOME"] = os.environ["LANDMARKS_FASTAI_CACHE"] = str(root)
    home = root / "in"
    home.mkdir()
    os.chdir(home)
    folder = InputFolder(home)
    _limit_memory()
    base = _peak_memory()
    for case in cases:
        folder.fill(make(case))
        # SIGPROF ends the process, whatever library it is in
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        outcome = check(lambda: target.read(home), home)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if _peak_memory() - base > MAX_MEMORY:
            outcome = f"memory:{(_peak_memory() - base) >> 20} MiB"
        content = json.dumps(outcome).encode()
        os.write(pipe, struct.pack("<I", len(content)) + content)
        if outcome.startswith("memory"):
            return  # the peak stays, and what was allocated may be in pieces


def _silence(pipe: int) -> None:
    """Discard the output of the libraries and warnings."""
    faulthandler.disable()  # pytest's
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        if stream != pipe:
            os.dup2(null, stream)
    warnings.resetwarnings()
    warnings.simplefilter("ignore")


def _limit_memory() -> None:
    """Limit the private memory, as RLIMIT_DATA counts it, to what there is and `MAX_MEMORY`."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit = pages * resource.getpagesize() + MAX_MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _receive(pipe: int) -> str | None:
    """Return the next outcome; None if the worker has ended. TimeoutError if it sends nothing."""
    header = _read_exactly(pipe, 4)
    content = None if header is None else _read_exactly(pipe, struct.unpack("<I", header)[0])
    return None if content is None else str(json.loads(content))


def _read_exactly(pipe: int, size: int) -> bytes | None:
    content = b""
    while len(content) < size:
        if not select.select([pipe], [], [], MAX_WAIT)[0]:
            raise TimeoutError
        part = os.read(pipe, size - len(content))
        if not part:
            return None
        content += part
    return content


def _end(process: int) -> str | None:
    """Return what ended a worker; None if it has ended by itself."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"hang:more than {MAX_SECONDS} s of CPU time" if name == "SIGPROF" else f"crash:{name}"
    code = os.WEXITSTATUS(status)
    return f"crash:exit status {code}" if code else None
