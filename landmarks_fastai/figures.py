"""Curves and bars: how a training went, how large the errors are, how far a confidence can be believed.

Knows arrays, the scores' types and `drawing`'s style; nothing about models or runs. Returns matplotlib
figures, opens no window and touches no pyplot state; `drawing.save_png` writes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.calibration import Calibration
from landmarks_fastai.drawing import STYLE
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import PointScores, auc, ced, failure_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Floats = NDArray[np.float64]


def history_figure(history: DataFrame) -> Figure:
    """Draw how a training went: loss, RMSE, NME and, where it was kept, the learning rate.

    Parameters
    ----------
    history
        One row an epoch: ``epoch``, ``train_loss``, ``valid_loss``, ``rmse`` (px), ``nme`` (a fraction)
        and optionally ``lr``. NaN where a value was not measured; a column that is missing or all NaN
        has no panel.

    Returns
    -------
    Figure
        Up to four panels; the best epoch by RMSE is marked in each.

    Raises
    ------
    UserError
        If there is no epoch yet.
    """
    from matplotlib.ticker import MaxNLocator

    panels = [
        ("Loss", "loss", {"train_loss": "train", "valid_loss": "valid"}, 1.0),
        ("Validation RMSE", "RMSE (px)", {"rmse": "px"}, 1.0),
        ("Validation NME", "NME (%)", {"nme": "%"}, 100.0),
        ("Learning rate", "learning rate", {"lr": "learning rate"}, 1.0),
    ]
    columns = {
        key: np.asarray(history[key], np.float64)
        for key in ("train_loss", "valid_loss", "rmse", "nme", "lr")
        if key in history and np.isfinite(np.asarray(history[key], np.float64)).any()
    }
    panels = [panel for panel in panels if panel[2].keys() & columns.keys()]
    if not panels:
        raise UserError("the history holds no epoch yet: there is no curve to draw")
    epochs = np.asarray(history["epoch"], np.float64)
    best = int(np.nanargmin(columns["rmse"])) if "rmse" in columns else None

    across = 2 if len(panels) == 4 else len(panels)
    down = math.ceil(len(panels) / across)
    figure = new_figure(4.2 * across, 3.0 * down)
    for number, (title, unit, labels, factor) in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, number)
        for hue, (key, label) in zip(STYLE.series, labels.items(), strict=False):
            if key not in columns:
                continue
            values = factor * columns[key]
            measured = np.isfinite(values)
            marker = "o" if measured.sum() < 12 else None
            axes.plot(
                epochs[measured],
                values[measured],
                color=hue,
                linewidth=STYLE.line_width,
                marker=marker,
                markersize=4,
                label=label,
            )
            if best is not None and key in ("rmse", "nme"):
                title += f": {values[best]:.2f} {label} at epoch {epochs[best]:g}"
                axes.plot(epochs[best], values[best], "o", color=STYLE.series[1], markersize=6, zorder=4)
        dress(axes, title, "epoch", unit)
        axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        if "lr" in labels:
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            _log_where_wide(axes)
        if len(labels.keys() & columns.keys()) > 1:
            axes.legend(frameon=False, fontsize=STYLE.text_size, labelcolor=STYLE.ink)
    return figure


def ced_figure(
    nmes: Mapping[str, ArrayLike], threshold: float = 0.08, normaliser: str = "inter-ocular distance"
) -> Figure:
    """Draw the cumulative error distribution of one model or of several.

    Parameters
    ----------
    nmes
        Name of each model and its (N,) NMEs as fractions; NaN is left out.
    threshold
        Where a face counts as failed, as a fraction; AUC and failure rate in the legend are at it.
    normaliser
        What the NMEs were divided by, in words.

    Returns
    -------
    Figure
        One step curve a model.
    """
    if not nmes:
        raise UserError("there is no NME to draw a curve of")
    figure = new_figure(6.0, 4.2)
    axes = figure.add_subplot()
    end = 1.25 * threshold
    axes.axvline(100 * threshold, color=STYLE.soft_ink, linewidth=1.0, linestyle=(0, (4, 3)))
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
    dress(axes, f"Cumulative error, AUC and failures at {100 * threshold:g} %", "", "faces (%)")
    axes.set_xlabel(f"NME at most (% of {normaliser})", fontsize=STYLE.text_size, color=STYLE.ink)
    axes.set_xlim(0, 100 * end)
    axes.set_ylim(0, 102)
    legend_below(figure, 1)
    return figure


def point_error_figure(table: Sequence[PointScores]) -> Figure:
    """Draw how far each landmark lies off: its mean distance as a bar, its 95th percentile as a mark.

    Parameters
    ----------
    table
        A report's `points`, in the order they shall stand in. A point labelled nowhere has no bar.

    Returns
    -------
    Figure
        One row a landmark.
    """
    if not table:
        raise UserError("there is no point to draw the error of")
    figure = new_figure(6.4, 1.3 + (0.24 if len(table) <= 30 else 0.16) * len(table))
    axes = figure.add_subplot()
    rows = np.arange(len(table))
    means = np.nan_to_num([point.mean_distance for point in table])
    axes.barh(rows, means, height=0.62, color=STYLE.series[0], label="mean")
    axes.plot(
        [point.p95 for point in table],
        rows,
        linestyle="",
        marker="|",
        markersize=9,
        markeredgewidth=2,
        color=STYLE.series[1],
        label="95 % of faces are within",
    )
    dress(axes, "Error by landmark", "distance to the true point (px)", "")
    axes.set_yticks(rows, [f"{point.name} ({point.labelled})" for point in table])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=STYLE.text_size if len(table) <= 30 else 7)
    legend_below(figure, 2)
    return figure


def calibration_figure(calibration: Calibration) -> Figure:
    """Draw what a model claims of its points against what is true of them: a reliability diagram.

    Parameters
    ----------
    calibration
        Its bins are the dots.

    Returns
    -------
    Figure
        Left the share of points near the truth, right the error of a coordinate; a model that is right
        about itself has all its dots on the dashed lines.
    """
    bins, near = calibration.bins, f"within {calibration.near:.2g} px of the truth (%)"
    panels = [
        (
            f"Confidence: ECE {100 * calibration.ece:.1f} points",
            ("claimed to lie " + near, "lie " + near),
            [(100 * one.claimed, 100 * one.true) for one in bins],
            100.0,
        ),
        (
            f"Error: rank correlation {calibration.rank_correlation:.2f}",
            ("claimed mean error of a coordinate (px)", "true mean error (px)"),
            [(one.claimed_error, one.true_error) for one in bins],
            1.08 * max(max(one.claimed_error, one.true_error) for one in bins),
        ),
    ]
    figure = new_figure(8.4, 4.7)
    for number, (title, (claimed, true), dots, end) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, number)
        (diagonal,) = axes.plot(
            [0, end], [0, end], color=STYLE.soft_ink, linewidth=1.0, linestyle=(0, (4, 3))
        )
        (line,) = axes.plot(
            *np.transpose(dots),
            color=STYLE.series[0],
            linewidth=STYLE.line_width,
            marker="o",
            markersize=5,
            clip_on=False,
        )
        dress(axes, title, claimed, true)
        axes.set_xlim(0, end)
        axes.set_ylim(0, end)
        axes.set_box_aspect(1)
        if number == 1:  # the lines mean the same in both
            diagonal.set_label("claimed and true agree")
            line.set_label(f"{calibration.points:,} points in {len(bins)} bins, equally many in each")
    legend_below(figure, 2)
    return figure


def schedule_figure(lrs: ArrayLike, momenta: ArrayLike | None = None) -> Figure:
    """Draw a schedule as it is applied, step by step.

    Parameters
    ----------
    lrs
        (steps,) learning rates.
    momenta
        (steps,) momenta, if the schedule moves them.

    Returns
    -------
    Figure
        The learning rate, and the momentum below it.
    """
    panels = [("Learning rate", "learning rate", np.asarray(lrs, np.float64))]
    if momenta is not None:
        panels.append(("Momentum", "momentum", np.asarray(momenta, np.float64)))
    if not len(panels[0][2]):
        raise UserError("the schedule has no step to draw")
    figure = new_figure(6.4, 2.8 * len(panels))
    for number, (title, unit, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, number)
        axes.plot(*_thinned(values), color=STYLE.series[number - 1], linewidth=STYLE.line_width)
        dress(axes, title, "step" if number == len(panels) else "", unit)
        axes.set_xlim(0, len(values))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        if values.min() >= 0:
            axes.set_ylim(bottom=0 if number == 1 else None)
    return figure


def lr_find_figure(lrs: ArrayLike, losses: ArrayLike, suggestion: float | None = None) -> Figure:
    """Draw the loss against the learning rate, as the LR finder tried it.

    Parameters
    ----------
    lrs, losses
        (steps,) each; losses that are not numbers are left out.
    suggestion
        The learning rate that the finder suggests.

    Returns
    -------
    Figure
        Learning rate on a log axis; the diverging end is cut off.
    """
    rates, values = np.asarray(lrs, np.float64), np.asarray(losses, np.float64)
    usable = np.isfinite(values) & (rates > 0)
    if not usable.any():
        raise UserError("the LR finder measured no loss that is a number: start it at a lower learning rate")
    rates, values = rates[usable], values[usable]
    figure = new_figure(6.4, 3.8)
    axes = figure.add_subplot()
    axes.plot(rates, values, color=STYLE.series[0], linewidth=STYLE.line_width)
    dress(axes, "Learning rate finder", "learning rate", "loss")
    axes.set_xscale("log")
    low, start = values.min(), values[: max(1, len(values) // 10)].max()
    room = 0.08 * (start - low) or 1.0
    ceiling = start + 3 * room
    if values.max() > ceiling:
        axes.set_ylim(low - room, ceiling)
        end = np.flatnonzero(values <= ceiling)[-1] + 1
        axes.set_xlim(rates[0] / 1.5, rates[min(end, len(rates) - 1)] * 1.5)
    if suggestion is not None:
        loss = float(np.interp(np.log(suggestion), np.log(rates), values))
        axes.axvline(suggestion, color=STYLE.series[1], linewidth=1.0, linestyle=(0, (4, 3)))
        axes.plot(suggestion, loss, "o", color=STYLE.series[1], markersize=7)
        axes.set_title(
            f"Learning rate finder: {suggestion:.2g} suggested", fontsize=STYLE.title_size, loc="left"
        )
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, in inches, that no pyplot knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=STYLE.dpi, layout="constrained", facecolor=STYLE.paper)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    """Give axes the one style: title at the left, labels with units, a light grid, two spines."""
    axes.set_facecolor(STYLE.paper)
    axes.set_title(title, fontsize=STYLE.title_size, loc="left", color=STYLE.ink)
    axes.set_xlabel(x, fontsize=STYLE.text_size, color=STYLE.ink)
    axes.set_ylabel(y, fontsize=STYLE.text_size, color=STYLE.ink)
    axes.tick_params(which="both", labelsize=STYLE.text_size, colors=STYLE.soft_ink)
    axes.grid(True, color=STYLE.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(STYLE.soft_ink)


def legend_below(figure: Figure, columns: int) -> None:
    """Put the legend below the axes: inside, it would lie on somebody's curve."""
    figure.legend(
        loc="outside lower center",
        frameon=False,
        fontsize=STYLE.text_size,
        labelcolor=STYLE.ink,
        ncols=columns,
    )


def _log_where_wide(axes: Axes) -> None:
    """Use a log axis with plain numbers where the curves span nearly a decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    if values.min() > 0 and values.max() > 8 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


def _thinned(values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Keep each stretch's lowest and highest value of a curve with more steps than a figure has dots."""
    steps = np.arange(len(values))
    stretch = len(values) // 4000
    if stretch < 2:
        return steps, values
    whole = values[: len(values) // stretch * stretch].reshape(-1, stretch)
    first = np.arange(len(whole)) * stretch
    kept = np.concatenate([first + whole.argmin(axis=1), first + whole.argmax(axis=1), steps[[0, -1]]])
    kept = np.unique(kept)
    return kept, values[kept]
