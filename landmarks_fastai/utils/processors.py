"""The processors that this process may use, and work in several threads."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.cpu_quota import cpu_quota

Item = TypeVar("Item")
Result = TypeVar("Result")


PROCESSORS_VARIABLE = "LANDMARKS_FASTAI_PROCESSORS"
"""Environment variable with the largest number of processors to use."""


SPIN_VARIABLE = "GOMP_SPINCOUNT"

SPINS = 8000
"""Number of times that a thread looks for work before it sleeps: about 0.3 ms, far less than the 4 ms after
which Linux gives a processor to another process, and enough for the pauses between two layers of a
network."""


def available_processors() -> int:
    """Return the number of processors that this process may use, at least 1.

    Those that it may run on, but not more than the quota of its container, rounded up, and at most
    LANDMARKS_FASTAI_PROCESSORS.

    Raises
    ------
    UserError
        If that is not a number from 1 on.
    """
    allowed = _allowed_processors()
    limit = os.environ.get(PROCESSORS_VARIABLE, str(allowed))
    if not (limit.isascii() and limit.isdigit() and int(limit)):
        raise UserError(f"{PROCESSORS_VARIABLE}={limit}: must be a number from 1 on; correct or unset it")
    return min(allowed, int(limit))


def _allowed_processors() -> int:
    """Return the number of processors that this process may run on, and whose time it may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = cpu_quota()
    return processors if quota is None else min(processors, math.ceil(quota))


def limit_spinning() -> None:
    """Let threads of OpenMP that wait for long sleep; has to come before torch is imported.

    By default, they keep their processors busy for milliseconds, and so take them from the thread that all
    wait for (benchmarks/loaded.md). The variable is that of GCC's OpenMP, which torch's packages for Linux
    contain; what the user has chosen in it or in OMP_WAIT_POLICY is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, str(SPINS))


def map_in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    per_processor: int = 2,
    threads: int | None = None,
) -> Generator[Result, None, None]:
    """Yield the result of each item, in order, computed in one thread per processor.

    Unlike with `ThreadPoolExecutor.map`, items are taken only shortly before they are needed, so that neither
    they nor the results pile up. If it is closed early, or raises, items that were not begun are dropped.

    Parameters
    ----------
    function
        It should release Python's global lock most of the time, as numpy, scipy and Pillow do.
    items
        Taken in the calling thread.
    per_processor
        Number of items in progress or waiting for each processor.
    threads
        Number of threads; None: one per processor. More if they wait for other machines.
    """
    workers = available_processors() if threads is None else threads
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > workers * per_processor:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def read_ahead(items: Iterable[Item], count: int = 4) -> Generator[Item, None, None]:
    """Yield the items of an iterable that is iterated in another thread, up to `count` items ahead.

    An exception of the iterable is raised after the items before it. If the generator is closed early, the
    iterable is no longer in use when `close` returns.

    Parameters
    ----------
    items
        Its iterator should release Python's global lock most of the time.
    count
        Number of items in memory that were not yet yielded.
    """
    end, iterator = object(), iter(items)
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, iterator, end) for _ in range(count))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, iterator, end))
                yield cast(Item, item)
        finally:
            for future in pending:
                future.cancel()
