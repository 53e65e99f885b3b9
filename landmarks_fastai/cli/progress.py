"""Progress of long operations: bars in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from landmarks_fastai.training.reporting import RunSummary
    from landmarks_fastai.utils import progress


class TrainingProgress:
    """The `Reporter` of the command line: a summary, one line per epoch, and a bar in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.summary: list[str] = []

    def __enter__(self) -> TrainingProgress:
        """Return the reporter; the bar appears with the first iteration."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()

    def start(self, summary: RunSummary) -> None:
        """Print data, model and device; for later folds, only the lines that have changed."""
        lines = summary_lines(summary)
        for line in lines:
            if line not in self.summary:
                self.note(line)
        self.note("")
        self.summary = lines

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        """Update the bar in a terminal."""
        if not self.console.is_terminal:
            return
        if self.bar is None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
            )
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task("", total=total, completed=done - 1)
        if self.task is not None:
            if done == 1:  # the first iteration of the next fold
                self.bar.reset(self.task, total=total)
            self.bar.update(self.task, completed=done, description=f"loss {loss:.4f}  lr {lr:.2e}")

    def epoch(self, row: dict[str, float]) -> None:
        """Print the metrics of an epoch."""
        self.note(
            f"epoch {row['epoch']:3.0f}  train loss {row['train_loss']:.4f}"
            f"  valid loss {row['valid_loss']:.4f}  rmse {row['rmse']:.3f} px  nme {row['nme']:.2%}"
            f"  lr {row['lr']:.2e}  {row['seconds']:.1f} s"
        )


def summary_lines(summary: RunSummary) -> list[str]:
    """Return the summary of a run as aligned lines."""
    color = "gray" if summary.channels == 1 else "RGB"
    groups = f"{summary.groups:,} groups, " if summary.groups < summary.rows else ""
    done = f" ({summary.epochs_done:,} done)" if summary.epochs_done else ""
    entries = {
        "data": f"{summary.source}, {summary.rows:,} rows, {summary.landmarks} landmarks",
        "fold": None if summary.fold is None else f"{summary.fold} of {summary.folds}",
        "split": f"{summary.train_rows:,} training rows, {summary.valid_rows:,} validation rows"
        f" ({groups}{summary.split} split)",
        "model": f"{summary.arch}, {summary.head} head, {summary.parameters / 1e6:.1f} million parameters,"
        f" {summary.input_size} px {color} input",
        "init from": summary.init_from,
        "device": f"{summary.device}, {summary.precision}",
        "epochs": f"{_describe_length(summary)}{done}, batch size {summary.batch_size:,}",
        "processes": None if summary.processes == 1 else _describe_processes(summary),
        "results": str(summary.folder),
    }
    return [f"{label:<11}{value}" for label, value in entries.items() if value is not None]


def _describe_length(summary: RunSummary) -> str:
    """Return the number of epochs of a run, or its time."""
    if summary.minutes is None:
        return f"{summary.epochs:,}"
    return f"as many as {summary.minutes:g} minutes allow"


def _describe_processes(summary: RunSummary) -> str:
    """Return how several processes share an iteration."""
    rows = summary.batch_size / summary.processes
    return (
        f"{summary.processes}, which share the {summary.batch_size:,} rows of a batch ({rows:.3g} each);"
        " the learning rate is that of one process"
    )


def _columns(unit: str) -> list[ProgressColumn]:
    """Return the parts of the bar of a unit of `utils.progress.Progress`."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    if unit == "bytes":
        amounts: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()]
        return [TextColumn("downloading"), BarColumn(), *amounts, TimeRemainingColumn()]
    return [TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]


class _DataProgress:
    """Shows bars for downloading a data set and decoding its images; each appears with its first call."""

    def __init__(self) -> None:
        self._bars: dict[str, tuple[Progress, TaskID]] = {}

    def __call__(self, done: int, total: int | None, unit: str = "bytes") -> None:
        """Update the bar of a unit."""
        if unit not in self._bars:
            # rich takes as long to import as a face to be detected, and most commands show no bar
            from rich.console import Console
            from rich.progress import Progress

            console = Console(stderr=True)
            hidden = not console.is_terminal
            bar = Progress(*_columns(unit), console=console, transient=True, disable=hidden)
            bar.start()
            self._bars[unit] = bar, bar.add_task("", total=total)
        bar, task = self._bars[unit]
        bar.update(task, completed=done, total=total)
        if total is not None and done >= total:
            bar.stop()

    def announce(self, text: str) -> None:
        """Print a sentence, also if stderr is not a terminal."""
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Remove all bars."""
        for bar, _ in self._bars.values():
            bar.stop()


@contextmanager
def data_progress() -> Iterator[progress.Progress]:
    """Yield a progress callback for downloading a data set and decoding its images."""
    shown = _DataProgress()
    try:
        yield shown
    finally:
        shown.stop()


@contextmanager
def frame_progress() -> Iterator[progress.Progress]:
    """Yield a progress callback for the frames of a video; the bar shows frames per second and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.fields[rate]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, rate="")
        started = time.monotonic()

        def show(done: int, total: int | None, unit: str = "frames") -> None:
            rate = f"{done / max(time.monotonic() - started, 1e-6):.1f} frames/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
