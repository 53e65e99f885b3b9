"""The processors that this process may use, and work in several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_processors() -> int:
    """Return the number of processors that this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], per_processor: int = 2
) -> Iterator[Result]:
    """Yield the result of each item, in order, computed in one thread per processor.

    Unlike with `ThreadPoolExecutor.map`, items are taken only shortly before they are needed, so that neither
    they nor the results pile up.

    Parameters
    ----------
    function
        It should release Python's global lock most of the time, as numpy, scipy and Pillow do.
    items
        Taken in the calling thread.
    per_processor
        Number of items in progress or waiting for each processor.
    """
    workers = available_processors()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers * per_processor:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
