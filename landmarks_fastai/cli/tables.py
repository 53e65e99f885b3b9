"""Tables of the command line: the report of an evaluation and the summary of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from landmarks_fastai.data.summary import DatasetSummary
    from landmarks_fastai.evaluation.calibration import Calibration
    from landmarks_fastai.evaluation.report import Report, Scores

ISSUES_SHOWN = 10
"""Number of rows with suspicious labels that are printed."""

PAIRS_SHOWN = 50
"""Number of flip pairs that are printed."""

REASONS_SHOWN = 2
"""Number of reasons printed for each of them."""


def print_report(report: Report) -> None:
    """Print the scores of all, complete and partial rows and of each landmark, and the calibration."""
    console = Console(highlight=False)
    console.print(
        f"errors in pixels of {report.image_size} px images; NME normalized by {report.normalizer_name}"
    )
    groups = make_table(
        "rows", "faces", "RMSE px", "L1 px", "NME", "fail 8%", "fail 10%", "AUC 8%", "AUC 10%"
    )
    for name, scores in (("all", report.overall), ("complete", report.complete), ("partial", report.partial)):
        if scores.faces:
            groups.add_row(name, f"{scores.faces:,}", *_score_cells(scores, report.mean_nme(scores)))
    console.print(groups, "")
    landmarks = make_table("landmark", "labeled", "mean px", "RMSE px", "p95 px")
    for landmark in report.landmarks:
        numbers = (landmark.mean_distance, landmark.rmse, landmark.p95)
        landmarks.add_row(
            Text(landmark.name), f"{landmark.labeled:,}", *(f"{number:.2f}" for number in numbers)
        )
    console.print(landmarks)
    _print_calibration(console, report.calibration)


def print_summary(summary: DatasetSummary, source: str) -> None:
    """Print the counts of a data set and the rows with suspicious labels."""
    console = Console(highlight=False, soft_wrap=True)
    kind = "gray" if summary.channels == 1 else "RGB"
    size = f"{summary.size} × {summary.size} px"
    console.print(f"{source}: {summary.rows:,} rows of {size}, {kind}", markup=False)
    console.print(f"complete: {summary.complete:,} rows   exact duplicates: {summary.duplicates:,} images")
    landmarks = make_table("landmark", "labeled", "missing")
    for name, count in summary.labeled.items():
        landmarks.add_row(Text(name), f"{count:,}", f"{summary.rows - count:,}")
    console.print(landmarks)
    console.print(f"flip pairs: {_pairs_text(summary.flip_pairs)}", markup=False)
    for note in summary.notes:
        console.print(note, markup=False)
    rows: dict[str, list[str]] = {}
    for issue in summary.issues:  # sorted by score, so the rows are too
        rows.setdefault(issue.row, []).append(issue.reason)
    if not rows:
        console.print("suspicious labels: none")
        return
    console.print("suspicious labels, the most suspicious first:")
    for row, reasons in list(rows.items())[:ISSUES_SHOWN]:
        others = len(reasons) - REASONS_SHOWN
        more = f"; and {others} more" if others > 0 else ""
        console.print(f"  {row}: {'; '.join(reasons[:REASONS_SHOWN])}{more}", markup=False)
    if len(rows) > ISSUES_SHOWN:
        console.print(f"  and {len(rows) - ISSUES_SHOWN:,} more rows")


def _pairs_text(pairs: tuple[tuple[str, str], ...]) -> str:
    """Return the flip pairs in one line."""
    if not pairs:
        return "none"
    shown = ", ".join(f"{first} ↔ {second}" for first, second in pairs[:PAIRS_SHOWN])
    more = len(pairs) - PAIRS_SHOWN
    return shown if more <= 0 else f"{shown} and {more:,} more"


def _print_calibration(console: Console, calibration: Calibration | None) -> None:
    if calibration is None:
        console.print("", "calibration: none, because this model does not estimate confidence", sep="\n")
        return
    console.print(
        "",
        f"confidence that a landmark is within {calibration.radius:.2g} px of its label:"
        f" {calibration.mean_confidence:.1%} on average, observed {calibration.observed:.1%} of"
        f" {calibration.landmarks:,} landmarks; expected calibration error {calibration.ece:.1%}",
        f"rank correlation of confidence and accuracy {calibration.rank_correlation:.2f};"
        f" observed errors are {calibration.scale_factor:.2f} times the expected errors",
        sep="\n",
        soft_wrap=True,
    )


def make_table(*columns: str) -> Table:
    """Return a table whose first column is text and whose other columns are numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _score_cells(scores: Scores, nme: float) -> list[str]:
    rates = (nme, scores.failure_rate_8, scores.failure_rate_10)
    return [
        *(f"{error:.3f}" for error in (scores.rmse, scores.l1)),
        *(f"{rate:.1%}" for rate in rates),
        *(f"{auc:.3f}" for auc in (scores.auc_8, scores.auc_10)),
    ]
