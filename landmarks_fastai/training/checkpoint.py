"""What a run needs to go on as if it had not been interrupted: written each few epochs, read once.

fastai's SaveModel leaves the optimiser and the random generators out; this keeps all of it. The files hold
tensors and plain values alone and are read with torch's weights_only, so opening one runs no code.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.learner import Learner

from landmarks_fastai.errors import UserError
from landmarks_fastai.files import replacing
from landmarks_fastai.training.callbacks import weights_to_keep

LAST = "last.pt"
BEST = "best.pt"


def random_state() -> dict[str, Any]:
    """Return the state of every generator that training draws from."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every generator where `random_state` found it."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write whole or not at all: a run that is killed leaves the older file as it was.

    Raises
    ------
    RunError
        If the disk is full or the folder can't be written.
    """
    with replacing(path, remedy="free some space and use --resume") as part:
        try:
            torch.save(content, part)
        except RuntimeError as error:  # torch's zip writer turns a full disk into one
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Any]:
    """Read what `write_tensors` wrote; runs no code.

    Raises
    ------
    UserError
        If the file is missing or is not one of ours.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no checkpoint to go on from; start again with --overwrite")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: is not a checkpoint of ours, or is damaged: {error}") from error
    return content


class Checkpoint(Callback):
    """Write the whole state each `every` epochs and at the end, and the best weights when they are best.

    Parameters
    ----------
    folder
        Where `last.pt` and `best.pt` go.
    every
        Epochs between two writings of the whole state.
    """

    order = 58  # after the epoch's row is kept, before fastai's early stopping may end the run

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every

    def after_epoch(self) -> None:
        """Write what is due."""
        rows = self.learn.epoch_log.rows
        before = [row["valid_loss"] for row in rows[:-1]]
        if not before or rows[-1]["valid_loss"] < min(before):
            write_tensors(self.folder / BEST, {"weights": weights_to_keep(self.learn), "row": rows[-1]})
        if (self.epoch + 1) % self.every == 0 or self.epoch + 1 == self.n_epoch:
            write_tensors(self.folder / LAST, self._state())

    def _state(self) -> dict[str, Any]:
        stopping = _early_stopping(self.learn)
        averaging = getattr(self.learn, "average_weights", None)
        finding = getattr(self.learn, "find_label_shift", None)
        return {
            "epoch": self.epoch + 1,
            "train_iter": self.train_iter,
            "model": self.model.state_dict(),
            "average": None if averaging is None else averaging.average,
            "optimizer": self.opt.state_dict(),
            "label_shift": None if finding is None else finding.augment.label_shift,
            "rows": self.learn.epoch_log.rows,
            "stopping": None if stopping is None else {"best": float(stopping.best), "wait": stopping.wait},
            "random": random_state(),
        }


class Resume(Callback):
    """Put a checkpoint's state into a learner, after every other callback has prepared the fit."""

    order = 95

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def before_fit(self) -> None:
        """Restore all that the checkpoint kept."""
        state, learn = self.state, self.learn
        learn.model.load_state_dict(state["model"])
        learn.opt.load_state_dict(state["optimizer"])
        learn.train_iter = state["train_iter"]
        learn.epoch_log.rows = list(state["rows"])
        if state["average"] is not None:
            learn.average_weights.average = {k: v.to(self.dls.device) for k, v in state["average"].items()}
        if state["label_shift"] is not None:
            learn.find_label_shift.augment.label_shift = state["label_shift"]
        stopping = _early_stopping(learn)
        if stopping is not None and state["stopping"] is not None:
            stopping.best, stopping.wait = state["stopping"]["best"], state["stopping"]["wait"]
        set_random_state(state["random"])


@contextmanager
def epochs_from(learn: Learner, start: int) -> Iterator[None]:
    """Within the block, `learn.fit(n)` runs the epochs from `start` to n alone.

    fastai's fit(start_epoch) runs every callback's after_epoch for the epochs that it skips, and those
    have no numbers.
    """

    def remaining() -> None:
        for epoch in range(start, learn.n_epoch):
            learn.epoch = epoch
            learn._with_events(learn._do_epoch, "epoch", CancelEpochException)

    learn._do_fit = remaining
    try:
        yield
    finally:
        del learn._do_fit


def _early_stopping(learn: Learner) -> EarlyStoppingCallback | None:
    return next((callback for callback in learn.cbs if isinstance(callback, EarlyStoppingCallback)), None)
