"""Learning rate schedules: pure functions of the iteration, and the callback that applies them.

To add a schedule:

1. Add a class of its options, with a `name`, to `config/options.py` and to the union `ScheduleConfig` there.
2. Write a function of (step, total, options) here and add it to `SCHEDULES`.
3. Make it depend on these arguments only. Nothing fails if it keeps state of its own, but a resumed run then
   differs from an uninterrupted one: only the number of iterations is restored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastai.callback.core import Callback
from fastai.callback.schedule import combined_cos

from landmarks_fastai.config.options import CyclicConfig, FlatCosConfig, OneCycleConfig, ScheduleConfig
from landmarks_fastai.training.time_budget import planned_iterations


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of one iteration.

    Parameters
    ----------
    lr
        Learning rate.
    mom
        Momentum (β₁ of Adam); None leaves that of the optimizer unchanged.
    """

    lr: float
    mom: float | None = None


def cyclic(step: int, total: int, options: CyclicConfig) -> Hyperparameters:
    """Return the cyclical learning rate (Smith 2017, "Cyclical Learning Rates", section 3.1) at `step`.

    Equal to torch.optim.lr_scheduler.CyclicLR at every step. `total` is not used, because the length of a
    cycle is given in iterations.
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
    return Hyperparameters(options.base_lr + (options.max_lr - options.base_lr) * height)


def one_cycle(step: int, total: int, options: OneCycleConfig) -> Hyperparameters:
    """Return the hyperparameters of fastai's fit_one_cycle (Smith & Topin 2018) at `step` of `total`."""
    position = step / total
    top = options.max_lr
    lr = combined_cos(options.pct_start, top / options.div, top, top / options.div_final)(position)
    return Hyperparameters(float(lr), float(combined_cos(options.pct_start, 0.95, 0.85, 0.95)(position)))


def flat_cos(step: int, total: int, options: FlatCosConfig) -> Hyperparameters:
    """Return the learning rate of fastai's fit_flat_cos at `step` of `total`."""
    top = options.max_lr
    return Hyperparameters(
        float(combined_cos(options.pct_start, top, top, top / options.div_final)(step / total))
    )


SCHEDULES: dict[str, Callable[..., Hyperparameters]] = {
    "cyclic": cyclic,
    "one_cycle": one_cycle,
    "flat_cos": flat_cos,
}


class ScheduleByStep(Callback):
    """Set learning rate and momentum before each training batch from the number of iterations done."""

    order, run_valid = 60, False

    def __init__(self, options: ScheduleConfig) -> None:
        self.options = options

    def before_batch(self) -> None:
        """Set the hyperparameters of this iteration."""
        schedule = SCHEDULES[self.options.name]
        current = schedule(self.train_iter, planned_iterations(self.learn), self.options)
        self.opt.set_hypers(lr=current.lr)
        if current.mom is not None:
            self.opt.set_hypers(mom=current.mom)
