"""How the command line shows things: bars in a terminal, plain lines in a log, tables in both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from landmarks_fastai.calibration import Calibration
from landmarks_fastai.data.summary import Summary
from landmarks_fastai.evaluation import Report, Scores


class TrainingBar:
    """Loss, rate and time left in a terminal; an epoch a line, there and in a log."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.started = time.monotonic()

    def __enter__(self) -> TrainingBar:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        """Move the bar, in a terminal."""
        if not self.console.is_terminal:
            return
        if self.bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
            )
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task("", total=total, completed=done - 1)
        if self.task is not None:
            if done == 1:  # the next fold's run
                self.bar.reset(self.task, total=total)
            numbers = f"loss {loss:.4f}  lr {lr:.2e}"
            self.bar.update(self.task, completed=done, description=numbers)

    def epoch(self, row: dict[str, float]) -> None:
        """Print an epoch's numbers."""
        self.note(
            f"epoch {row['epoch']:3.0f}  train loss {row['train_loss']:.4f}"
            f"  valid loss {row['valid_loss']:.4f}  rmse {row['rmse']:.3f} px  nme {row['nme']:.2%}"
            f"  lr {row['lr']:.2e}  {row['seconds']:.1f} s"
        )


@contextmanager
def download_bar() -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that is told of bytes done and in all, and shows a bar from the first on."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    task = None

    def show(done: int, total: int | None) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task("", total=total)
        bar.update(task, completed=done, total=total)
        if total is not None and done >= total:
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()


@contextmanager
def frame_bar() -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that is told of frames done and expected, and shows their rate and the time left."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.fields[rate]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, rate="")
        started = time.monotonic()

        def show(done: int, total: int | None) -> None:
            rate = f"{done / max(time.monotonic() - started, 1e-6):.1f} frames/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield show


def print_report(report: Report) -> None:
    """Print the scores over all, complete and partial rows, and by point."""
    console = Console(highlight=False)
    console.print(f"px of {report.image_size} px images; NME and what follows from it by {report.divided_by}")
    table = _table("rows", "faces", "RMSE px", "L1 px", "NME", "fail 8%", "fail 10%", "AUC 8%", "AUC 10%")
    for name, scores in (("all", report.overall), ("complete", report.complete), ("partial", report.partial)):
        if scores.faces:
            table.add_row(name, f"{scores.faces:,}", *_cells(scores, report.mean_nme(scores)))
    console.print(table, "")
    points = _table("point", "labelled", "mean px", "RMSE px", "95% below px")
    for point in report.points:
        numbers = (point.mean_distance, point.rmse, point.p95)
        points.add_row(point.name, f"{point.labelled:,}", *(f"{number:.2f}" for number in numbers))
    console.print(points)
    _print_calibration(console, report.calibration)


def _print_calibration(console: Console, calibration: Calibration | None) -> None:
    if calibration is None:
        console.print("", "calibration: none, since this model knows no confidence", sep="\n")
        return
    near = f"within {calibration.near:.2g} px of the truth"
    console.print(
        "",
        f"confidence: {calibration.claimed:.1%} of {calibration.points:,} points claimed {near},"
        f" {calibration.true:.1%} are; calibration error {calibration.ece:.1%}",
        f"rank correlation of confidence and nearness {calibration.rank_correlation:.2f};"
        f" errors are {calibration.factor:.2f} times what is claimed",
        sep="\n",
        soft_wrap=True,
    )


def _table(*columns: str) -> Table:
    """Make a table whose first column holds words, and the others numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _cells(scores: Scores, nme: float) -> list[str]:
    shares = (nme, scores.failure_rate_8, scores.failure_rate_10)
    areas = (scores.auc_8, scores.auc_10)
    return [
        *(f"{error:.3f}" for error in (scores.rmse, scores.l1)),
        *(f"{share:.1%}" for share in shares),
        *(f"{area:.3f}" for area in areas),
    ]


def print_summary(summary: Summary, source: str) -> None:
    """Print what `data` found out."""
    console = Console(highlight=False, soft_wrap=True)
    kind = "gray" if summary.channels == 1 else "RGB"
    size = f"{summary.size} × {summary.size} px"
    console.print(f"{source}: {summary.rows:,} rows of {size}, {kind}", markup=False)
    console.print(f"complete: {summary.complete:,} rows   exact duplicates: {summary.duplicates:,} images")
    points = _table("point", "labelled", "missing")
    for name, count in summary.labelled.items():
        points.add_row(Text(name), f"{count:,}", f"{summary.rows - count:,}")
    console.print(points)
    rows: dict[str, list[str]] = {}
    for suspicion in summary.suspicions:  # the worst first, and so the rows too
        rows.setdefault(suspicion.row, []).append(suspicion.reason)
    if not rows:
        console.print("suspicious labels: none")
        return
    console.print("suspicious labels, the worst first:")
    for row, reasons in list(rows.items())[:10]:
        more = f"; and {len(reasons) - 2} more" if len(reasons) > 2 else ""
        console.print(f"  {row}: {'; '.join(reasons[:2])}{more}", markup=False)
    if len(rows) > 10:
        console.print(f"  and {len(rows) - 10:,} more rows")
