"""Plots of training histories, learning rates, errors and calibration, as matplotlib figures.

Write a figure with `landmarks_fastai.visualization.saving.save_png`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import Calibration
from landmarks_fastai.evaluation.metrics import auc, ced, failure_rate
from landmarks_fastai.evaluation.report import LandmarkScores
from landmarks_fastai.visualization.figures import legend_below, new_figure, style_axes
from landmarks_fastai.visualization.reliability import DASHED, draw_reliability
from landmarks_fastai.visualization.style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Floats = NDArray[np.float64]

MAX_MARKED = 12
"""Curves with fewer values than this are drawn with markers."""

MAX_LARGE_ROWS = 30
"""A plot with more landmarks than this has smaller rows."""

MIN_INTERVALS = 4000
"""A long curve is divided into at least this many intervals, of which two steps each are plotted."""


# --- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    """A panel of `plot_history`: title, y label, label of each column, and factor of the values."""

    title: str
    y_label: str
    labels: Mapping[str, str]
    factor: float = 1.0


_HISTORY_PANELS = (
    _Panel("Loss", "loss", {"train_loss": "training", "valid_loss": "validation"}),
    _Panel("Validation RMSE", "RMSE (px)", {"rmse": "px"}),
    _Panel("Validation NME", "NME (%)", {"nme": "%"}, 100.0),
    _Panel("Learning rate", "learning rate", {"lr": "learning rate"}),
)


def plot_history(history: DataFrame) -> Figure:
    """Plot the loss, RMSE, NME and learning rate of a training run.

    Parameters
    ----------
    history
        One row for each epoch: ``epoch``, ``train_loss``, ``valid_loss``, ``rmse`` (pixels), ``nme``
        (fraction) and optionally ``lr``. NaN where a value was not measured. A panel whose columns are all
        missing or NaN is omitted.

    Returns
    -------
    Figure
        Up to four panels; the epoch with the lowest RMSE is marked.

    Raises
    ------
    UserError
        If there is no epoch.
    """
    keys = [key for panel in _HISTORY_PANELS for key in panel.labels if key in history]
    columns = {key: np.asarray(history[key], np.float64) for key in keys}
    columns = {key: values for key, values in columns.items() if np.isfinite(values).any()}
    panels = [panel for panel in _HISTORY_PANELS if panel.labels.keys() & columns.keys()]
    if not panels:
        raise UserError("the history has no epoch, so there is no curve to plot")
    epochs = np.asarray(history["epoch"], np.float64)
    best = int(np.nanargmin(columns["rmse"])) if "rmse" in columns else None

    across = 2 if len(panels) == 4 else len(panels)
    down = math.ceil(len(panels) / across)
    figure = new_figure(4.2 * across, 3.0 * down)
    for number, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(down, across, number), panel, epochs, columns, best)
    return figure


def _draw_panel(
    axes: Axes, panel: _Panel, epochs: Floats, columns: Mapping[str, Floats], best: int | None
) -> None:
    """Draw one panel of `plot_history`; `best` is the index of the epoch to mark."""
    from matplotlib.ticker import MaxNLocator

    title = panel.title
    for color, (key, label) in zip(STYLE.series, panel.labels.items(), strict=False):
        if key not in columns:
            continue
        values = panel.factor * columns[key]
        measured = np.isfinite(values)
        axes.plot(
            epochs[measured],
            values[measured],
            color=color,
            linewidth=STYLE.line_width,
            marker="o" if measured.sum() < MAX_MARKED else None,
            markersize=4,
            label=label,
        )
        if best is not None and key in ("rmse", "nme"):
            title += f": {values[best]:.2f} {label} at epoch {epochs[best]:g}"
            axes.plot(epochs[best], values[best], "o", color=STYLE.series[1], markersize=6, zorder=4)
    style_axes(axes, title, "epoch", panel.y_label)
    axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if "lr" in panel.labels:
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        _log_scale_if_wide(axes)
    if len(panel.labels.keys() & columns.keys()) > 1:
        axes.legend(frameon=False, fontsize=STYLE.text_size, labelcolor=STYLE.ink)


def plot_schedule(lrs: ArrayLike, momenta: ArrayLike | None = None) -> Figure:
    """Plot the learning rate of each step of a schedule.

    Parameters
    ----------
    lrs
        (steps,) learning rates.
    momenta
        (steps,) momenta; None if the schedule does not change them.

    Returns
    -------
    Figure
        The learning rate, and below it the momentum.

    Raises
    ------
    UserError
        If there is no step.
    """
    panels = [("Learning rate", "learning rate", np.asarray(lrs, np.float64))]
    if momenta is not None:
        panels.append(("Momentum", "momentum", np.asarray(momenta, np.float64)))
    if not len(panels[0][2]):
        raise UserError("the schedule has no step, so there is no curve to plot")
    figure = new_figure(6.4, 2.8 * len(panels))
    for number, (title, y_label, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, number)
        axes.plot(*_decimate(values), color=STYLE.series[number - 1], linewidth=STYLE.line_width)
        style_axes(axes, title, "step" if number == len(panels) else "", y_label)
        axes.set_xlim(0, len(values))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        if values.min() >= 0:
            axes.set_ylim(bottom=0 if number == 1 else None)
    return figure


def plot_lr_finder(lrs: ArrayLike, losses: ArrayLike, suggestion: float | None = None) -> Figure:
    """Plot the loss against the learning rate, as measured by the learning rate finder.

    Parameters
    ----------
    lrs, losses
        (steps,) each; losses that are not finite are left out.
    suggestion
        The suggested learning rate.

    Returns
    -------
    Figure
        Loss over learning rate with a logarithmic x axis; the part where the loss diverges is cut off.

    Raises
    ------
    UserError
        If no loss is finite.
    """
    rates, values = np.asarray(lrs, np.float64), np.asarray(losses, np.float64)
    usable = np.isfinite(values) & (rates > 0)
    if not usable.any():
        raise UserError("the learning rate finder measured no finite loss; start it at a lower learning rate")
    rates, values = rates[usable], values[usable]
    figure = new_figure(6.4, 3.8)
    axes = figure.add_subplot()
    axes.plot(rates, values, color=STYLE.series[0], linewidth=STYLE.line_width)
    style_axes(axes, "Learning rate finder", "learning rate", "loss")
    axes.set_xscale("log")
    low, start = values.min(), values[: max(1, len(values) // 10)].max()
    margin = 0.08 * (start - low) or 1.0
    ceiling = start + 3 * margin
    if values.max() > ceiling:
        axes.set_ylim(low - margin, ceiling)
        end = np.flatnonzero(values <= ceiling)[-1] + 1
        axes.set_xlim(rates[0] / 1.5, rates[min(end, len(rates) - 1)] * 1.5)
    if suggestion is not None:
        loss = float(np.interp(np.log(suggestion), np.log(rates), values))
        axes.axvline(suggestion, color=STYLE.series[1], linewidth=1.0, linestyle=DASHED)
        axes.plot(suggestion, loss, "o", color=STYLE.series[1], markersize=7)
        axes.set_title(
            f"Learning rate finder: {suggestion:.2g} suggested", fontsize=STYLE.title_size, loc="left"
        )
    return figure


# --- evaluation ----------------------------------------------------------------------------------


def plot_ced(
    nmes: Mapping[str, ArrayLike], threshold: float = 0.08, normalizer: str = "inter-ocular distance"
) -> Figure:
    """Plot the cumulative error distribution of one or more models.

    Parameters
    ----------
    nmes
        Name of each model and its (N,) NMEs as fractions; NaN is left out.
    threshold
        NME above which a face is a failure, as a fraction; the AUC and failure rate in the legend refer to
        it.
    normalizer
        The normalizer of the NMEs in words (`Report.normalizer_name`).

    Returns
    -------
    Figure
        One step curve for each model.

    Raises
    ------
    UserError
        If there is no model.
    """
    if not nmes:
        raise UserError("no NME is given, so there is no curve to plot")
    figure = new_figure(6.0, 4.2)
    axes = figure.add_subplot()
    end = 1.25 * threshold
    axes.axvline(100 * threshold, color=STYLE.soft_ink, linewidth=1.0, linestyle=DASHED)
    for number, (name, values) in enumerate(nmes.items()):
        errors = np.asarray(values, np.float64)
        steps = np.unique(np.append(errors[errors < end], [0.0, end]))
        label = (
            f"{name}: AUC {100 * auc(errors, threshold):.1f} %, "
            f"failures {100 * failure_rate(errors, threshold):.1f} %"
        )
        axes.step(
            100 * steps,
            100 * ced(errors, steps),
            where="post",
            color=STYLE.series[number % len(STYLE.series)],
            linestyle="-" if number < len(STYLE.series) else "--",
            linewidth=STYLE.line_width,
            label=label,
        )
    title = f"Cumulative error distribution, AUC and failures at {100 * threshold:g} %"
    style_axes(axes, title, f"NME (% of the {normalizer})", "faces with at most this NME (%)")
    axes.set_xlim(0, 100 * end)
    axes.set_ylim(0, 102)
    legend_below(figure, 1)
    return figure


def plot_landmark_errors(scores: Sequence[LandmarkScores]) -> Figure:
    """Plot the error of each landmark: its mean distance as a bar and its 95th percentile as a mark.

    Parameters
    ----------
    scores
        `Report.landmarks`. A landmark that is labeled in no face has no bar.

    Returns
    -------
    Figure
        One row for each landmark, in the given order, with the number of faces in which it is labeled.

    Raises
    ------
    UserError
        If there is no landmark.
    """
    if not scores:
        raise UserError("no landmark is given, so there is no error to plot")
    large = len(scores) <= MAX_LARGE_ROWS
    figure = new_figure(6.4, 1.3 + (0.24 if large else 0.16) * len(scores))
    axes = figure.add_subplot()
    rows = np.arange(len(scores))
    means = np.nan_to_num([landmark.mean_distance for landmark in scores])
    axes.barh(rows, means, height=0.62, color=STYLE.series[0], label="mean")
    axes.plot(
        [landmark.p95 for landmark in scores],
        rows,
        linestyle="",
        marker="|",
        markersize=9,
        markeredgewidth=2,
        color=STYLE.series[1],
        label="95th percentile",
    )
    style_axes(axes, "Error by landmark", "distance from the label (px)", "")
    axes.set_yticks(rows, [f"{landmark.name} ({landmark.labeled})" for landmark in scores])
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=STYLE.text_size if large else 7)
    legend_below(figure, 2)
    return figure


def plot_calibration(calibration: Calibration) -> Figure:
    """Plot predicted against observed accuracy and error of the landmarks: a reliability diagram.

    Parameters
    ----------
    calibration
        Each of its bins is plotted as a dot.

    Returns
    -------
    Figure
        Left: confidence and the observed fraction of accurate landmarks. Right: expected and observed error
        of a coordinate. A calibrated model has its dots on the dashed diagonals.
    """
    bins, within = calibration.bins, f"within {calibration.radius:.2g} px"
    figure = new_figure(8.4, 4.7)
    confidence, errors = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    diagonal, curve = draw_reliability(
        confidence, [(100 * one.mean_confidence, 100 * one.observed) for one in bins], 100.0
    )
    diagonal.set_label("predicted = observed")
    curve.set_label(f"{calibration.landmarks:,} landmarks in {len(bins)} bins of equal size")
    style_axes(
        confidence,
        f"Confidence: calibration error {100 * calibration.ece:.1f} %",
        f"confidence: {within} (%)",
        f"observed: {within} of the label (%)",
    )
    draw_reliability(
        errors,
        [(one.expected_error, one.observed_error) for one in bins],
        1.08 * max(max(one.expected_error, one.observed_error) for one in bins),
    )
    style_axes(
        errors,
        f"Error: rank correlation {calibration.rank_correlation:.2f}",
        "expected error of a coordinate (px)",
        "observed error (px)",
    )
    legend_below(figure, 2)
    return figure


# --- parts of plots ------------------------------------------------------------------------------


def _log_scale_if_wide(axes: Axes) -> None:
    """Use a logarithmic y axis with plain numbers if the curves span nearly a decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    if values.min() > 0 and values.max() > 8 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


def _decimate(values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Reduce a curve with more steps than can be seen to the lowest and highest value of each interval.

    Returns
    -------
    tuple of NDArray
        The steps that are kept, and their values.
    """
    steps = np.arange(len(values))
    interval = len(values) // MIN_INTERVALS
    if interval < 2:
        return steps, values
    intervals = values[: len(values) // interval * interval].reshape(-1, interval)
    first = np.arange(len(intervals)) * interval
    kept = np.unique(
        np.concatenate([first + intervals.argmin(axis=1), first + intervals.argmax(axis=1), steps[[0, -1]]])
    )
    return kept, values[kept]
