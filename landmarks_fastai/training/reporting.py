"""Reporting the progress of a run to a `Reporter` and to history.csv."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd
from fastai.callback.core import Callback

from landmarks_fastai.training.time_budget import planned_iterations
from landmarks_fastai.utils.files import write_text


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run, known before its first epoch.

    Parameters
    ----------
    folder
        The run folder.
    source
        The data set, as given in the config.
    rows, landmarks
        Number of rows and of landmarks.
    train_rows, valid_rows
        Number of training and of validation rows.
    split
        "grouped" or "random".
    groups
        Number of groups of rows that the split keeps on the same side; equal to `rows` if it is random.
    fold, folds
        The fold that is trained, from 1, and the number of folds; None without cross-validation.
    arch, head
        Names of the backbone and the head.
    input_size, channels
        Side of the network input in pixels; 1 for gray, 3 for RGB.
    parameters
        Number of trained parameters.
    init_from
        The model from whose weights the run is initialized, as given in the config; None if there is none.
    device, precision
        Names in torch of the device and of the dtype of the forward pass: "cuda:0", "bfloat16".
    epochs, epochs_done
        Number of epochs, and how many of them a resumed run has already done.
    minutes
        The time budget, which then determines the number of epochs; None without one.
    batch_size
        Rows per iteration, of all processes together.
    processes
        Number of processes that train together.
    """

    folder: Path
    source: str
    rows: int
    landmarks: int
    train_rows: int
    valid_rows: int
    split: str
    groups: int
    fold: int | None
    folds: int | None
    arch: str
    head: str
    input_size: int
    channels: int
    parameters: int
    init_from: str | None
    device: str
    precision: str
    epochs: int
    epochs_done: int
    batch_size: int
    processes: int = 1
    minutes: float | None = None


class Reporter(Protocol):
    """Receives the progress of a run: the command line displays it, tests record it."""

    def start(self, summary: RunSummary) -> None:
        """Receive the summary of a run before it trains; in a cross-validation, of each fold."""

    def note(self, text: str) -> None:
        """Receive a message about the run."""

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        """Receive the number of iterations done and in total, and the last one's loss and learning rate."""

    def epoch(self, row: dict[str, float]) -> None:
        """Receive the row of history.csv after an epoch."""


class SilentReporter:
    """A `Reporter` that discards everything."""

    def start(self, summary: RunSummary) -> None:
        """Discard the summary."""

    def note(self, text: str) -> None:
        """Discard the message."""

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        """Discard the loss."""

    def epoch(self, row: dict[str, float]) -> None:
        """Discard the row."""


class EpochLog(Callback):
    """Keep the row of each epoch in `rows`, and report every training batch and epoch.

    Parameters
    ----------
    reporter
        Receives batches and epochs.

    Attributes
    ----------
    rows
        The rows of history.csv.
    last_loss
        Loss of the last training batch.
    """

    order = 55  # after fastai's Recorder, before the callbacks that write the rows

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.rows: list[dict[str, float]] = []
        self.last_loss = 0.0

    def before_epoch(self) -> None:
        """Reset the timer and the losses of the batches."""
        self.started = time.perf_counter()
        self.losses: list[float] = []
        self.evaluated_losses: list[float] = []

    def after_batch(self) -> None:
        """Add the loss of a training batch and report it."""
        if self.training:
            loss, lr = float(self.loss.detach()), float(self.opt.hypers[-1]["lr"])
            self.last_loss = loss
            self.losses.append(loss)
            if self.model[1].has_training_output:
                evaluated = self.learn.loss_func.of_evaluated(self.model[1], self.pred, self.y)
                self.evaluated_losses += [] if evaluated is None else [float(evaluated)]
            self.reporter.batch(self.train_iter, planned_iterations(self.learn), loss, lr)

    def after_epoch(self) -> None:
        """Append the row and report the epoch."""
        row = {
            "epoch": self.epoch + 1,
            **self._training_losses(),
            "valid_loss": float(self.recorder.loss.value),
            **{metric.name: float(metric.value) for metric in self.metrics},
            "lr": float(self.opt.hypers[-1]["lr"]),
            "seconds": round(time.perf_counter() - self.started, 2),
        }
        self.rows.append(row)
        self.reporter.epoch(row)

    def _training_losses(self) -> dict[str, float]:
        """Return the mean loss of the batches: the quantity that validation measures, and the rest of it."""
        loss = sum(self.losses) / max(len(self.losses), 1)
        if not self.model[1].has_training_output:
            return {"train_loss": loss}
        evaluated = sum(self.evaluated_losses) / max(len(self.evaluated_losses), 1)
        return {"train_loss": evaluated, "head_loss": loss - evaluated}


class WriteHistory(Callback):
    """Write the rows of the `EpochLog` to a CSV after each epoch.

    Parameters
    ----------
    log
        Source of the rows.
    path
        The CSV file.
    """

    order = 57

    def __init__(self, log: EpochLog, path: Path) -> None:
        self.log, self.path = log, path

    def after_epoch(self) -> None:
        """Write the whole file, so that it never ends with an incomplete row."""
        write_text(self.path, pd.DataFrame(self.log.rows).to_csv(index=False))
