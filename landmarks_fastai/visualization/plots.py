"""Plots of errors and calibration, as matplotlib figures; those of a training are in `training_plots`.

Write a figure with `landmarks_fastai.visualization.saving.save_png`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import Calibration
from landmarks_fastai.evaluation.metrics import auc, ced, failure_rate
from landmarks_fastai.evaluation.report import LandmarkScores
from landmarks_fastai.visualization.figures import legend_below, new_figure, style_axes
from landmarks_fastai.visualization.reliability import DASHED, draw_reliability
from landmarks_fastai.visualization.style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LARGE_ROWS = 30
"""A plot with more landmarks than this has smaller rows."""


def plot_ced(nmes: Mapping[str, ArrayLike], normalizer: str, threshold: float = 0.08) -> Figure:
    """Plot the cumulative error distribution of one or more models.

    Parameters
    ----------
    nmes
        Name of each model and its (N,) NMEs as fractions; NaN is left out.
    normalizer
        The distance by which the errors were divided, in words (`Report.normalizer_name`).
    threshold
        NME above which a face is a failure, as a fraction; the AUC and failure rate in the legend refer to
        it.

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
