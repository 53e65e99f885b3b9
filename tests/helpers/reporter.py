"""A reporter for training runs in tests, which records every call and can call functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from landmarks_fastai.training.reporting import RunSummary


class RecordingReporter:
    """Implements the `Reporter` protocol by appending to lists.

    Parameters
    ----------
    on_epoch
        Called with the row of each epoch after it is recorded.
    on_batch
        Called with the number of iterations done after each batch is recorded.

    Attributes
    ----------
    summaries
        The `RunSummary` of each run that was started.
    notes
        Messages.
    batches
        Tuples (done, total, loss, lr).
    epochs
        Rows of history.csv.
    """

    def __init__(
        self,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.on_epoch, self.on_batch = on_epoch, on_batch
        self.summaries: list[RunSummary] = []
        self.notes: list[str] = []
        self.batches: list[tuple[int, int, float, float]] = []
        self.epochs: list[dict[str, float]] = []

    def start(self, summary: RunSummary) -> None:
        self.summaries.append(summary)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        self.batches.append((done, total, loss, lr))
        if self.on_batch is not None:
            self.on_batch(done)

    def epoch(self, row: dict[str, float]) -> None:
        self.epochs.append(row)
        if self.on_epoch is not None:
            self.on_epoch(row)
