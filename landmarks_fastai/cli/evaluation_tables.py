"""Tables of the command `evaluate`: confidence intervals, slices, and the comparison of two models."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from landmarks_fastai.cli.tables import make_table

if TYPE_CHECKING:
    from landmarks_fastai.evaluation.analysis import Analysis, SliceScores
    from landmarks_fastai.evaluation.bootstrap import Interval
    from landmarks_fastai.evaluation.comparison import Comparison, MetricComparison
    from landmarks_fastai.evaluation.row_metrics import RowMetric

UNKNOWN = "–"

MAX_WIDTH = 1000
"""Width of the widest table in characters."""

SLICE_METRICS = ("rmse", "nme", "failure_rate_8")
"""Metrics of the table of slices; metrics.json has all."""


def print_analysis(analysis: Analysis) -> None:
    """Print each metric with its interval, COCO's scores and the scores of each slice."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("")
    table = make_table("metric", "value", "95% interval")
    for metric in analysis.row_metrics:
        measured = analysis.metrics[metric.name]
        table.add_row(
            metric.label, _format(metric, measured.value), _format_interval(metric, measured.interval)
        )
    _print_table(console, table)
    if analysis.coco is not None:
        coco = analysis.coco
        console.print(
            f"COCO AP {coco.ap:.3f}, AP50 {coco.ap_50:.3f}, AP75 {coco.ap_75:.3f}, AR {coco.ar:.3f} of"
            f" {coco.objects:,} objects, one detection each"
        )
    _print_notes(console, analysis)
    if analysis.slices:
        _print_slices(console, analysis)


def print_comparison(comparison: Comparison, analysis: Analysis) -> None:
    """Print the metrics of two models, their differences and the verdict.

    Parameters
    ----------
    comparison
        The comparison.
    analysis
        Analysis of the first model, for its notes.
    """
    console = Console(highlight=False, soft_wrap=True)
    for label, name in zip(("first", "second"), comparison.models, strict=True):
        console.print(f"{label}: {name}", markup=False)
    console.print("")
    table = make_table("metric", "first", "second", "second - first", "95% interval", "p")
    for entry in comparison.metrics:
        metric = entry.metric
        table.add_row(
            metric.label,
            _format(metric, entry.first),
            _format(metric, entry.second),
            _format(metric, entry.difference, sign=True),
            _format_interval(metric, entry.interval, sign=True),
            format_p_value(entry.p_value),
        )
    _print_table(console, table)
    console.print(
        f"the NME of the first model is lower in {comparison.first_wins:,} and that of the second in"
        f" {comparison.second_wins:,} of {comparison.groups:,} groups (sign test: p ="
        f" {format_p_value(comparison.sign_p_value)})"
    )
    _print_notes(console, analysis)
    console.print(verdict(comparison), markup=False)


def verdict(comparison: Comparison) -> str:
    """Return the conclusion from the NME in one sentence."""
    primary = comparison.primary
    if math.isnan(primary.p_value):
        return "no verdict: fewer than two groups have an NME"
    p_value = f"p = {format_p_value(primary.p_value)}"
    if not primary.is_significant:
        return f"no significant difference of the NME ({p_value})"
    better = comparison.models[1 if primary.second_is_better else 0]
    return f"{better} is better: its NME is {_difference(primary)} lower ({p_value})"


def format_p_value(p_value: float) -> str:
    """Return a p-value with two significant digits; "–" if it is undefined."""
    return UNKNOWN if math.isnan(p_value) else f"{p_value:.2g}"


def _difference(entry: MetricComparison) -> str:
    """Return the size of a difference, and its interval, in percentage points."""
    size = abs(entry.difference)
    ends = sorted((entry.interval.low, entry.interval.high))
    low, high = ends if entry.difference > 0 else (-ends[1], -ends[0])
    return f"{100 * size:.2f} percentage points (95% interval {100 * low:.2f} to {100 * high:.2f})"


def _print_notes(console: Console, analysis: Analysis) -> None:
    for note in analysis.notes:
        console.print(note, markup=False)


def _print_table(console: Console, table: Table) -> None:
    """Print a table at its full width, even if the terminal is narrower, so that no number is cut off."""
    options = console.options.update(width=MAX_WIDTH)
    console.print(table, width=console.measure(table, options=options).maximum, crop=False)


def _print_slices(console: Console, analysis: Analysis) -> None:
    console.print("")
    metrics = [metric for metric in analysis.row_metrics if metric.name in SLICE_METRICS]
    table = make_table("slice", "faces", "RMSE px", "NME", "fail 8%", "95% interval of NME")
    for by, group in groupby(analysis.slices, key=lambda scores: scores.by):
        for index, scores in enumerate(group):
            name = f"{by}: {scores.value}" if index == 0 else f"{' ' * len(by)}  {scores.value}"
            table.add_row(Text(name), *_slice_cells(scores, metrics))
    _print_table(console, table)


def _slice_cells(scores: SliceScores, metrics: list[RowMetric]) -> list[str]:
    values = [_format(metric, scores.metrics[metric.name].value) for metric in metrics]
    nme = next(metric for metric in metrics if metric.name == "nme")
    interval = _format_interval(nme, scores.metrics["nme"].interval)
    return [f"{scores.faces:,}", *values, interval]


def _format(metric: RowMetric, value: float, sign: bool = False) -> str:
    """Return a value of a metric; "–" if it is undefined."""
    if math.isnan(value):
        return UNKNOWN
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.2f}%" if metric.percent else f"{value:{plus}.3f}"


def _format_interval(metric: RowMetric, interval: Interval, sign: bool = False) -> str:
    if math.isnan(interval.low):
        return UNKNOWN
    return f"{_format(metric, interval.low, sign)} to {_format(metric, interval.high, sign)}"
