"""Timing iterations of the training loop and another step in turn, so that both meet the same load."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner

from _common.results import Results

ROUNDS = 5

Step = Callable[[], None]


class TakeTurns(Callback):
    """Times iterations of the training loop and another step in turn; the first round warms up.

    Parameters
    ----------
    iterations
        Iterations per round.
    prepare
        Returns the other step; called after the first iterations, with the learner and its last batch.

    Attributes
    ----------
    loop, other
        Seconds of each round.
    """

    order = 101
    run_valid = False

    def __init__(self, iterations: int, prepare: Callable[[Learner], Step]) -> None:
        self.iterations, self.prepare = iterations, prepare
        self.loop: list[float] = []
        self.other: list[float] = []
        self.started = 0.0

    def after_batch(self) -> None:
        """After some iterations, time as many of the other step."""
        if self.train_iter % self.iterations:
            return
        self.loop.append(self._now() - self.started)
        if not self.other:
            self.step = self.prepare(self.learn)
        begun = self._now()
        for _ in range(self.iterations):
            self.step()
        self.other.append(self._now() - begun)
        if len(self.other) > ROUNDS:
            raise CancelFitException
        self.started = self._now()

    def _now(self) -> float:
        if self.dls.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def results(self) -> Results:
        """Return the seconds of an iteration in each round but the first."""
        return {
            name: [round(seconds / self.iterations, 5) for seconds in values[1:]]
            for name, values in (("loop", self.loop), ("other", self.other))
        }


def ratio(row: Results) -> float:
    """Return the median over the rounds of the duration of the other step relative to the loop."""
    return float(median(other / loop for other, loop in zip(row["other"], row["loop"], strict=True)))
