"""The number of threads that compute on a CPU, chosen by measurement, and again when others are busy.

The threads wait for one another after every layer. If other processes use the same processors, one thread is
often held up, and all wait for it: fewer threads are then faster.

The results of torch's convolutions differ by rounding between numbers of threads, because their sums have
another order. So the number is part of a checkpoint, and all threads are used unless fewer are clearly
faster: on a machine without other load, the same seed gives the same weights.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner

from landmarks_fastai.training.callbacks import find_callback
from landmarks_fastai.training.precision import Autocast
from landmarks_fastai.utils.processors import available_processors
from landmarks_fastai.utils.stopwatch import Stopwatch
from landmarks_fastai.utils.text import format_count

ADVANTAGE = 1.2
"""How many times faster than all threads a smaller number has to be, so that it is chosen."""

SLOWER = 1.5
"""How many times slower than before iterations have to be, so that the number of threads is chosen again."""

WINDOW = 20
"""Number of iterations whose median durations are compared."""

MAX_SHARE = 0.05
"""Largest share of the time that measurements may take which try whether more threads are faster again."""

MEASURED_ROWS = 16
"""Largest number of rows of an iteration that is measured."""

MEASURED_SECONDS = 0.5
"""Time for which each number of threads is measured, at least three iterations."""


@contextmanager
def keep_threads() -> Iterator[None]:
    """At the end of the block, set the number of threads of torch to what it was before."""
    count = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(count)


class ChooseThreads(Callback):
    """Choose the number of threads before the first iteration, and measure again when iterations become slow.

    With fewer threads than there are processors, all are tried again between epochs.

    Parameters
    ----------
    fixed
        The number of threads; None for that of the checkpoint, or else to choose it.
    chooses
        Whether the number is chosen by measurement, if it is not fixed; without, all processors are used.
    note
        Receives a line when fewer threads than possible are used, or their number changes.
    measure
        Returns the duration of an iteration with a number of threads, in seconds; by default, `step_seconds`.
    stopwatch
        Measures the iterations.

    Attributes
    ----------
    count
        The number of threads.
    """

    order = 96  # after a checkpoint was restored
    run_valid = False

    def __init__(
        self,
        fixed: int | None,
        note: Callable[[str], None],
        chooses: bool = True,
        measure: Callable[[Learner, int], float] | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.fixed, self.note, self.chooses = fixed, note, chooses and fixed is None
        self.measure, self.stopwatch = measure or step_seconds, stopwatch or Stopwatch()
        self.count: int | None = fixed
        self.restored: int | None = None
        self.last_step: float | None = None
        self.usual: float | None = None

    def restore(self, count: int | None) -> None:
        """Continue with the number of threads of a checkpoint, unless a number is fixed."""
        self.restored = count

    def before_fit(self) -> None:
        """Set the number of threads."""
        self.most = min(torch.get_num_threads(), available_processors())
        self._forget_steps()
        self.chosen_at, self.choice_seconds = self.stopwatch.elapsed(), 0.0
        if self.fixed is not None:
            self._set(self.fixed)
        elif self.restored is not None:
            self._set(min(self.restored, self.most))
            if self.count != self.restored:
                self.note(
                    f"the run had {format_count(self.restored, 'thread')} and continues with {self.count}:"
                    " its result differs slightly from that of an uninterrupted run"
                )
        else:
            self._set(self.most)
            if self.chooses:
                self._choose()

    def before_epoch(self) -> None:
        """Try more threads, if fewer are used and the measurement takes a small share of the time."""
        self.last_step = None
        if not self.chooses or self.count == self.most or not self.epoch:
            return
        if self.stopwatch.elapsed() - self.chosen_at > self.choice_seconds / MAX_SHARE:
            self._choose()

    def before_batch(self) -> None:
        """Choose again if the last iterations were much slower than those before."""
        now = self.stopwatch.elapsed()
        if self.last_step is not None:
            self.steps.append(now - self.last_step)
        if self._has_become_slow():
            self._choose()
        self.last_step = self.stopwatch.elapsed()

    def _has_become_slow(self) -> bool:
        """Compare the last iterations with the first ones after the number of threads was chosen."""
        if not self.chooses or self.most == 1 or len(self.steps) < WINDOW:
            return False
        if self.usual is None:
            self.usual = median(self.steps)
            self.steps.clear()
            return False
        return median(self.steps) > SLOWER * self.usual

    def _choose(self) -> None:
        """Measure 1, 2, 4 … and all threads, and set the fastest number."""
        if self.most == 1:
            return
        started = self.stopwatch.elapsed()
        seconds = {count: self.measure(self.learn, count) for count in _candidates(self.most)}
        fastest = min(seconds, key=seconds.__getitem__)
        chosen = fastest if seconds[self.most] > ADVANTAGE * seconds[fastest] else self.most
        if chosen != self.count:
            self.note(
                f"training.threads: {chosen} of {self.most}, because an iteration of {MEASURED_ROWS} rows"
                f" takes {seconds[chosen]:.2g} s, and {seconds[self.count or self.most]:.2g} s with"
                f" {self.count}"
            )
        self._set(chosen)
        self._forget_steps()
        self.chosen_at = self.stopwatch.elapsed()
        self.choice_seconds = self.chosen_at - started

    def _set(self, count: int) -> None:
        self.count = count
        torch.set_num_threads(count)

    def _forget_steps(self) -> None:
        self.steps: deque[float] = deque(maxlen=WINDOW)
        self.usual = None


def _candidates(most: int) -> list[int]:
    """Return `most`, half of it, a quarter …, and 1."""
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts


def step_seconds(learn: Learner, threads: int) -> float:
    """Return the mean duration of a forward and a backward pass of a copy of the network.

    Neither the network nor the random number generators change.
    """
    before, autocast = torch.get_num_threads(), find_callback(learn, Autocast)
    network: Any = copy.deepcopy(learn.model).train()
    shape = (
        min(MEASURED_ROWS, learn.dls.train.bs),
        learn.header["channels"],
        *[learn.header["input_size"]] * 2,
    )
    images = torch.zeros(shape).contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(threads)
    try:
        durations: list[float] = []
        while len(durations) < 4 or sum(durations[1:]) < MEASURED_SECONDS:
            started = time.perf_counter()
            with nullcontext() if autocast is None else torch.autocast("cpu", dtype=autocast.dtype):
                loss = network(images).float().square().mean()
            loss.backward()
            durations.append(time.perf_counter() - started)
        return sum(durations[1:]) / len(durations[1:])  # without the first, which allocates
    finally:
        torch.set_num_threads(before)
