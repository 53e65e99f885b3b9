"""Checkpoints: everything a run needs to continue as if it had not been interrupted.

fastai's SaveModel leaves out the random number generators and the history. The files contain only tensors and
plain values and are read with torch's `weights_only`, so that opening one executes no code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.learner import Learner

from landmarks_fastai.errors import UserError
from landmarks_fastai.training.callbacks import find_callback
from landmarks_fastai.training.distributed import SINGLE_PROCESS, Processes
from landmarks_fastai.training.ema import ExponentialMovingAverage, evaluated_weights
from landmarks_fastai.training.label_bias import EstimateLabelBias
from landmarks_fastai.training.precision import Autocast
from landmarks_fastai.training.random_state import get_random_state, set_random_state
from landmarks_fastai.training.reporting import EpochLog
from landmarks_fastai.training.run_folder import best_checkpoint, last_checkpoint
from landmarks_fastai.training.run_replacement import settle_replacement
from landmarks_fastai.training.threads import ChooseThreads
from landmarks_fastai.training.time_budget import time_budget_of
from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.utils.text import shorten


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically: if the run is killed, the previous file is kept.

    Raises
    ------
    WriteError
        If the disk is full or the folder cannot be written.
    """
    # with a file, unlike with a path, the OSError of a failed write is the context of torch's RuntimeError
    with atomic_write(path) as partial, partial.open("wb") as file:
        torch.save(content, file)


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a file of `write_tensors`, without executing code from it.

    Raises
    ------
    UserError
        If the file is missing, damaged or not a checkpoint.
    """
    if not path.is_file():
        raise UserError(f"{path}: no checkpoint to resume from; train again with --overwrite")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler and the zip reader raise many types of exception
        reason = shorten(str(error), 200)
        raise UserError(f"{path}: not a checkpoint, or damaged ({reason}); train again") from error
    return content


def place_of(learn: Learner, processes: Processes = SINGLE_PROCESS) -> str:
    """Return the device and the dtype of the forward pass of a learner: ``"cuda:0, bfloat16"``.

    Several processes are part of it: ``"cuda:0, bfloat16, 4 processes"``. A resumed run continues bit for bit
    only at the same place.
    """
    autocast = find_callback(learn, Autocast)
    dtype = "float32" if autocast is None else str(autocast.dtype).removeprefix("torch.")
    place = f"{learn.dls.device}, {dtype}"
    return f"{place}, {processes.count} processes" if processes.are_several else place


def is_stopped(state: dict[str, Any], patience: int | None) -> bool:
    """Return True if early stopping, or the end of its time, ended the run of a full state."""
    if state.get("time") is not None and state["time"]["finished"]:
        return True
    return patience is not None and state["stopping"] is not None and state["stopping"]["wait"] >= patience


class SaveCheckpoint(Callback):
    """Write the full state every few epochs and at the end, and the weights after the best epoch so far.

    The full state is also written after the first epoch, so that a run can be resumed from then on, and after
    an epoch that ends the fit.

    Parameters
    ----------
    folder
        The run folder. The run that it contained before is deleted after the first full state.
    every
        Number of epochs between full states.
    processes
        The processes of the run, of which the main one writes, with the random numbers of all.
    """

    order = 64  # after early stopping, whose count of epochs is part of the state

    def __init__(self, folder: Path, every: int, processes: Processes = SINGLE_PROCESS) -> None:
        self.folder, self.every, self.processes = folder, every, processes

    def before_fit(self) -> None:
        """Note that no epoch has been saved."""
        self.saved = 0

    def after_epoch(self) -> None:
        """Write the best weights and the full state, if due."""
        done = self.epoch + 1
        self._write(done == 1 or done % self.every == 0 or done == self.n_epoch)

    def after_cancel_fit(self) -> None:
        """Write the same if the epoch was complete, and ended the fit before `after_epoch`."""
        if len(_epoch_log(self.learn).rows) == self.epoch + 1 != self.saved:
            self._write(True)

    def _write(self, state_due: bool) -> None:
        rows = _epoch_log(self.learn).rows
        earlier = [row["valid_loss"] for row in rows[:-1]]
        if self.processes.is_main and (not earlier or rows[-1]["valid_loss"] < min(earlier)):
            best = {"weights": evaluated_weights(self.learn), "row": rows[-1]}
            write_tensors(best_checkpoint(self.folder), best)
        if state_due:
            state = self._state()
            self.saved = self.epoch + 1
            if self.processes.is_main:
                write_tensors(last_checkpoint(self.folder), state)
                settle_replacement(self.folder)

    def _state(self) -> dict[str, Any]:
        stopping = find_callback(self.learn, EarlyStoppingCallback)
        ema = find_callback(self.learn, ExponentialMovingAverage)
        bias = find_callback(self.learn, EstimateLabelBias)
        budget = time_budget_of(self.learn)
        threads = find_callback(self.learn, ChooseThreads)
        random_states = self.processes.gather(get_random_state())
        return {
            "epoch": self.epoch + 1,
            "train_iter": self.train_iter,
            "place": place_of(self.learn, self.processes),
            "model": self.model.state_dict(),
            "ema": None if ema is None else ema.average,
            "optimizer": self.opt.state_dict(),
            "label_bias": None if bias is None else bias.augment.label_bias,
            "threads": None if threads is None else threads.count,
            "time": None if budget is None else budget.state(),
            "rows": _epoch_log(self.learn).rows,
            "stopping": None if stopping is None else {"best": float(stopping.best), "wait": stopping.wait},
            "random": random_states[0],
            "random_of_others": random_states[1:],
        }


class RestoreCheckpoint(Callback):
    """Restore the full state of a run before its first batch, after all other callbacks are set up.

    Parameters
    ----------
    state
        Content of the file at `last_checkpoint`.
    rank
        Number of this process. One that the run did not have before keeps its random numbers.
    """

    order = 95

    def __init__(self, state: dict[str, Any], rank: int = 0) -> None:
        self.state, self.rank = state, rank

    def before_fit(self) -> None:
        """Restore everything that `SaveCheckpoint` saves in the full state."""
        state, learn = self.state, self.learn
        learn.model.load_state_dict(state["model"])
        learn.opt.load_state_dict(state["optimizer"])
        learn.train_iter = state["train_iter"]
        _epoch_log(learn).rows = list(state["rows"])
        threads = find_callback(learn, ChooseThreads)
        if threads is not None:
            threads.restore(state.get("threads"))
        budget = time_budget_of(learn)
        if budget is not None and state.get("time") is not None:
            budget.restore(state["time"])
        ema = find_callback(learn, ExponentialMovingAverage)
        if ema is not None and state["ema"] is not None:
            ema.average = {name: value.to(self.dls.device) for name, value in state["ema"].items()}
        bias = find_callback(learn, EstimateLabelBias)
        if bias is not None and state["label_bias"] is not None:
            bias.augment.label_bias = state["label_bias"]
        stopping = find_callback(learn, EarlyStoppingCallback)
        if stopping is not None and state["stopping"] is not None:
            stopping.best, stopping.wait = state["stopping"]["best"], state["stopping"]["wait"]
        random_states = [state["random"], *state.get("random_of_others", [])]
        if self.rank < len(random_states):
            set_random_state(random_states[self.rank])


@contextmanager
def fit_from_epoch(learn: Learner, start: int) -> Iterator[None]:
    """Within the block, make `learn.fit(n)` skip the first `start` epochs.

    fastai's fit(start_epoch) also calls `after_epoch` of every callback for the skipped epochs, for which
    there are no losses.
    """

    def fit_remaining() -> None:
        epoch = start
        while epoch < learn.n_epoch:  # which a time budget changes on the way
            learn.epoch = epoch
            learn._with_events(learn._do_epoch, "epoch", CancelEpochException)
            epoch += 1

    learn._do_fit = fit_remaining
    try:
        yield
    finally:
        del learn._do_fit


def _epoch_log(learn: Learner) -> EpochLog:
    log = find_callback(learn, EpochLog)
    assert log is not None, "checkpoints include the rows of an EpochLog"
    return log
