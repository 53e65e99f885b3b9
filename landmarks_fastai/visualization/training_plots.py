"""Plots of training histories, schedules and the learning rate finder, as matplotlib figures.

Write a figure with `landmarks_fastai.visualization.saving.save_png`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.visualization.figures import new_figure, style_axes
from landmarks_fastai.visualization.reliability import DASHED
from landmarks_fastai.visualization.style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Floats = NDArray[np.float64]

MAX_MARKED = 12
"""Curves with fewer values than this are drawn with markers."""

MIN_INTERVALS = 4000
"""A long curve is divided into at least this many intervals, of which two steps each are plotted."""


@dataclass(frozen=True)
class _Panel:
    """A panel of `plot_history`: title, y label, label of each column, and factor of the values."""

    title: str
    y_label: str
    labels: Mapping[str, str]
    factor: float = 1.0


_HISTORY_PANELS = (
    _Panel("Loss", "loss", {"train_loss": "training", "valid_loss": "validation"}),
    _Panel("Further terms of the training loss", "loss", {"head_loss": "training"}),
    _Panel("Validation RMSE", "RMSE (px)", {"rmse": "px"}),
    _Panel("Validation NME", "NME (%)", {"nme": "%"}, 100.0),
    _Panel("Learning rate", "learning rate", {"lr": "learning rate"}),
)


_MARKED = ("valid_loss", "rmse", "nme")
"""Columns that were measured with the weights that are kept; those of the training are others."""


def plot_history(history: DataFrame) -> Figure:
    """Plot the losses, RMSE, NME and learning rate of a training run.

    Parameters
    ----------
    history
        One row for each epoch: ``epoch``, ``train_loss``, ``valid_loss``, ``rmse`` (pixels), ``nme``
        (fraction) and optionally ``head_loss`` and ``lr``. NaN where a value was not measured. A panel whose
        columns are all missing or NaN is omitted.

    Returns
    -------
    Figure
        Up to five panels. The epoch whose weights a run keeps is marked: the first with the lowest validation
        loss.

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
    kept = int(np.nanargmin(columns["valid_loss"])) if "valid_loss" in columns else None

    across = 2 if len(panels) == 4 else min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    figure = new_figure(4.2 * across, 3.0 * down)
    for number, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(down, across, number), panel, epochs, columns, kept)
    return figure


def _draw_panel(
    axes: Axes, panel: _Panel, epochs: Floats, columns: Mapping[str, Floats], kept: int | None
) -> None:
    """Draw one panel of `plot_history`; `kept` is the index of the epoch to mark."""
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
        if kept is not None and key in _MARKED and measured[kept]:
            if key != "valid_loss":
                title += f": {values[kept]:.2f} {label} at epoch {epochs[kept]:g}"
            name = f"epoch {epochs[kept]:g}, kept"
            axes.plot(epochs[kept], values[kept], "o", color=STYLE.ink, markersize=6, zorder=4, label=name)
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
