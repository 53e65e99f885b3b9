"""Learning rate schedules: pure functions of the iteration, and the callback that applies one.

Each function gives the rate *at* an iteration, so a run that is taken up again needs nothing but the
number of iterations done. Knows nothing about models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastai.callback.core import Callback
from fastai.callback.schedule import combined_cos

from landmarks_fastai.config import CyclicSchedule, FlatCosSchedule, OneCycleSchedule, Schedule


@dataclass(frozen=True)
class Hypers:
    """What an iteration trains with; a momentum of None leaves the optimiser's own."""

    lr: float
    mom: float | None = None


def cyclic(step: int, total: int, options: CyclicSchedule) -> Hypers:
    """Return the rate of Smith 2017 (Cyclical Learning Rates, algorithm of section 3.1) at `step`.

    Equal to torch.optim.lr_scheduler.CyclicLR at every step. `total` plays no part: the origin's cycles
    are counted in iterations, however long the run.
    """
    down = options.step_down or options.step_up
    length = options.step_up + down
    cycle = math.floor(1 + step / length)
    position = 1 + step / length - cycle
    rise = options.step_up / length
    height = position / rise if position <= rise else (position - 1) / (rise - 1)
    if options.mode == "triangular2":
        height *= 0.5 ** (cycle - 1)
    elif options.mode == "exp_range":
        height *= (1.0 if options.gamma is None else options.gamma) ** step
    return Hypers(options.base_lr + (options.max_lr - options.base_lr) * height)


def one_cycle(step: int, total: int, options: OneCycleSchedule) -> Hypers:
    """Return rate and momentum of fastai's fit_one_cycle (Smith & Topin 2018) at `step` of `total`."""
    position = step / total
    top = options.max_lr
    lr = combined_cos(options.pct_start, top / options.div, top, top / options.div_final)(position)
    return Hypers(float(lr), float(combined_cos(options.pct_start, 0.95, 0.85, 0.95)(position)))


def flat_cos(step: int, total: int, options: FlatCosSchedule) -> Hypers:
    """Return the rate of fastai's fit_flat_cos at `step` of `total`."""
    top = options.max_lr
    return Hypers(float(combined_cos(options.pct_start, top, top, top / options.div_final)(step / total)))


SCHEDULES: dict[str, Callable[..., Hypers]] = {"cyclic": cyclic, "one_cycle": one_cycle, "flat_cos": flat_cos}


class ScheduleByStep(Callback):
    """Set rate and momentum before each training batch, from the number of iterations done."""

    order, run_valid = 60, False

    def __init__(self, options: Schedule) -> None:
        self.options = options

    def before_batch(self) -> None:
        """Apply the schedule at this iteration."""
        now = SCHEDULES[self.options.name](self.train_iter, self.n_iter * self.n_epoch, self.options)
        self.opt.set_hypers(lr=now.lr)
        if now.mom is not None:
            self.opt.set_hypers(mom=now.mom)
