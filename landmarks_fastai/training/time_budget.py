"""Training for a given time: the schedule follows the clock, and the last epoch ends when the time is over.

Nothing has to be predicted for the schedule: it depends on the fraction of the training time that has passed,
so that it is complete when the time is over, however much the duration of an iteration changes on the way.
Only the time after the last iteration is estimated: for validation, checkpoint and results. The estimate for
the results is scaled up if iterations become slower.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fastai.callback.core import Callback, CancelTrainException
from fastai.learner import Learner

from landmarks_fastai.errors import UserError
from landmarks_fastai.export.onnx import export_onnx
from landmarks_fastai.model_files.header import MODEL_NAME, ModelHeader
from landmarks_fastai.training.distributed import check_single_process
from landmarks_fastai.training.random_state import get_random_state, set_random_state
from landmarks_fastai.utils.stopwatch import Stopwatch

REPORTED_AFTER = 10
"""Number of iterations after which the plan is reported; their median duration is that of an iteration."""

KEPT = 100
"""Number of iterations whose durations are kept."""

RECENT, RECENT_SECONDS = 9, 5.0
"""The slowdown compares the median duration of the last iterations, at least so many and of so many seconds,
with that of the first ones."""

PLOTS_SECONDS = 1.5
"""Time for the plots of a run, the scores and the model card, which hardly depends on the data."""

SAVING_SECONDS = 0.5
"""Time for a checkpoint, until the first one was measured."""

VALIDATION_SHARE = 0.4
"""Time that a validation row needs, relative to a training row, until the first validation was measured."""


@dataclass
class TimeSpent:
    """What a run has spent, in seconds; part of its checkpoints.

    Parameters
    ----------
    elapsed
        Since the run began, without the time between an interruption and the resumption.
    trained
        Of that, since its first iteration: without reading the data.
    finished
        Whether the training time is over.
    validation, saving
        Duration of the last validation and of the files written after it; None before the first.
    """

    elapsed: float = 0.0
    trained: float = 0.0
    finished: bool = False
    validation: float | None = None
    saving: float | None = None


class TimeBudget(Callback):
    """Fit the schedule and the number of epochs to a time, and end the last epoch when the time is over.

    The last epoch may be shorter than the others, but it is validated like them. A resumed run has what the
    interrupted one had not used.

    Parameters
    ----------
    seconds
        The time for the whole run.
    stopwatch
        Runs since the beginning of this process's part of the run.
    finishing
        Seconds that the results need after the last epoch, without the evaluation of the validation rows, on
        the machine as it was during the first iterations.
    note
        Receives the plan, after `REPORTED_AFTER` iterations and when it has changed.

    Attributes
    ----------
    spent
        What earlier processes of the run have spent; a checkpoint restores it.
    """

    order = 59  # before the schedule and the checkpoints, which need the number of epochs
    run_valid = False

    def __init__(
        self, seconds: float, stopwatch: Stopwatch, finishing: float, note: Callable[[str], None]
    ) -> None:
        self.seconds, self.stopwatch, self.finishing, self.note = seconds, stopwatch, finishing, note
        self.spent = TimeSpent()
        self.steps: deque[float] = deque(maxlen=KEPT)
        self.first_steps: list[float] = []
        self.reported_epochs: int | None = None
        self.saving_since: float | None = None

    # --- the time ------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the run has spent, for a checkpoint."""
        return asdict(TimeSpent(self.elapsed(), self.trained(), *self._outcome()))

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with what an earlier process has spent."""
        self.spent = TimeSpent(**state)

    def _outcome(self) -> tuple[bool, float | None, float | None]:
        return self.spent.finished, self.spent.validation, self.spent.saving

    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return self.spent.elapsed + self.stopwatch.elapsed()

    def trained(self) -> float:
        """Return the seconds since the first iteration."""
        return self.spent.trained + self.stopwatch.elapsed() - self.begun

    def left(self) -> float:
        """Return the seconds left for training, without the last validation, checkpoint and results."""
        validation = self._validation_seconds()
        saving = SAVING_SECONDS if self.spent.saving is None else self.spent.saving
        # the results begin with another pass over the validation rows
        return self.seconds - self.elapsed() - 2 * validation - saving - self.slowdown() * self.finishing

    def _validation_seconds(self) -> float:
        """Return the duration of a validation; estimated before the first."""
        if self.spent.validation is not None:
            return self.spent.validation
        rows = len(self.dls.valid.dataset) / self.dls.train.bs
        return VALIDATION_SHARE * rows * self.step_seconds()

    def step_seconds(self) -> float:
        """Return the median duration of an iteration; 0 before the first."""
        return median(self.steps) if self.steps else 0.0

    def slowdown(self) -> float:
        """Return the duration of recent iterations relative to that of the first ones, at least 1."""
        if not _are_enough(self.first_steps):
            return 1.0
        recent: list[float] = []
        for step in reversed(self.steps):
            if _are_enough(recent):
                break
            recent.append(step)
        return max(1.0, median(recent) / median(self.first_steps))

    # --- the plan ------------------------------------------------------------------------------

    def position(self) -> float:
        """Return the fraction of the training time that has passed, from 0 to 1."""
        trained, left = self.trained(), max(self.left(), 0.0)
        return trained / (trained + left) if trained + left > 0 else 1.0

    def total(self) -> int:
        """Return the expected number of iterations of the run, at least those done and the next one."""
        position = self.position()
        expected = 0 if position == 0 else round(self.train_iter / position)
        return max(self.train_iter + 1, expected)

    def total_epochs(self) -> float:
        """Return the expected number of epochs of the run."""
        return self.total() / len(self.dls.train)

    def is_over(self) -> bool:
        """Return True if the time for training ends in the first half of the next iteration, or before."""
        return self.left() < self.step_seconds() / 2

    # --- events --------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Begin to train."""
        self.begun = self.stopwatch.elapsed()
        self.iterations = 0

    def before_epoch(self) -> None:
        """Measure how long the files of the epoch before took."""
        if self.saving_since is not None:
            self.spent.saving = self.stopwatch.elapsed() - self.saving_since
        self.last_step: float | None = None

    def before_batch(self) -> None:
        """Plan, and end the epoch if the time is over; it has at least one iteration."""
        self._measure_step()
        if self.iter and self.is_over():
            self._finish()
            raise CancelTrainException
        self._plan_epochs(self.epoch + 1)
        if self.iterations == REPORTED_AFTER:
            self._report()
        self.iterations += 1

    def before_validate(self) -> None:
        """Note the time."""
        self.validation_since = self.stopwatch.elapsed()

    def after_validate(self) -> None:
        """Measure the validation."""
        self.spent.validation = self.stopwatch.elapsed() - self.validation_since

    def after_epoch(self) -> None:
        """Decide whether there is time for another epoch, and say so if the plan has changed."""
        self.saving_since = self.stopwatch.elapsed()
        saving = SAVING_SECONDS if self.spent.saving is None else self.spent.saving
        if self.spent.finished or self.left() - saving < self.step_seconds():
            self._finish()
            return
        self._plan_epochs(self.epoch + 2)
        reported = self.reported_epochs
        if reported is not None and abs(self.n_epoch - reported) > max(1, 0.2 * reported):
            self._report()

    def _measure_step(self) -> None:
        """Add the duration of the last iteration, which includes loading the batch."""
        now = self.stopwatch.elapsed()
        if self.last_step is not None:
            step = now - self.last_step
            self.steps.append(step)
            if not _are_enough(self.first_steps):
                self.first_steps.append(step)
        self.last_step = now

    def _plan_epochs(self, at_least: int) -> None:
        self.learn.n_epoch = max(at_least, math.ceil(self.total_epochs()))

    def _finish(self) -> None:
        """Make this epoch the last."""
        self.spent.finished = True
        self.learn.n_epoch = self.epoch + 1

    def _report(self) -> None:
        self.reported_epochs = self.n_epoch
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + self.seconds - self.elapsed()))
        rest = self.seconds - self.elapsed() - self.left()
        self.note(
            f"training.minutes {self.seconds / 60:g}: an iteration takes {self.step_seconds():.3g} s, so"
            f" there is time for about {self.total_epochs():.1f} epochs; expected end at {end}, with"
            f" {rest:.0f} s for the last validation, the files and the evaluation"
        )


def _are_enough(steps: list[float]) -> bool:
    """Return whether the durations of some iterations are enough to estimate the slowdown."""
    return len(steps) == KEPT or (len(steps) >= RECENT and sum(steps) >= RECENT_SECONDS)


def new_time_budget(
    minutes: float, learn: Learner, stopwatch: Stopwatch, note: Callable[[str], None], resumed: bool = False
) -> TimeBudget:
    """Return the time budget of a run; how long the export takes is measured with the initial weights.

    Parameters
    ----------
    minutes
        The time for the whole run.
    learn
        The learner of the run.
    stopwatch
        Runs since the beginning of this process's part of the run.
    note
        See `TimeBudget`.
    resumed
        Whether the run is resumed: it then ends with what it has, if no time is left.

    Raises
    ------
    UserError
        If no time is left for training, or there are several processes, whose clocks differ.
    """
    check_single_process("a run with --minutes", ", or set --epochs instead")
    budget = TimeBudget(60 * minutes, stopwatch, PLOTS_SECONDS + export_seconds(learn), note)
    needed = stopwatch.elapsed() + SAVING_SECONDS + budget.finishing
    if not resumed and needed >= budget.seconds:
        raise UserError(
            f"training.minutes: {minutes:g} minutes are too short: start, data and results take"
            f" {needed / 60:.1f} minutes without any training; give several times as much"
        )
    return budget


def export_seconds(learn: Learner) -> float:
    """Export the current weights to a temporary folder, and return how many seconds that takes."""
    state, started = get_random_state(), time.perf_counter()
    network = copy.deepcopy(learn.model).cpu().eval()
    header = ModelHeader.from_dict(learn.header, Path(MODEL_NAME))
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(network, header, Path(folder) / "model.onnx")
    set_random_state(state)
    return time.perf_counter() - started


def time_budget_of(learn: Learner) -> TimeBudget | None:
    """Return the time budget of a learner that is being fitted; None if it has none."""
    return next((callback for callback in learn.cbs if isinstance(callback, TimeBudget)), None)


def planned_iterations(learn: Learner) -> int:
    """Return the number of iterations of a fit: of all epochs, or as many as its time seems to allow."""
    budget = time_budget_of(learn)
    return int(learn.n_iter * learn.n_epoch) if budget is None else budget.total()
