"""Reliability diagrams: predicted probabilities against observed fractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from landmarks_fastai.evaluation.visibility import VisibilityPrediction
from landmarks_fastai.visualization.figures import legend_below, new_figure, style_axes
from landmarks_fastai.visualization.style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

DASHED = (0, (4, 3))
"""Line style of reference lines: matplotlib's offset and lengths of dash and gap."""


def plot_visibility(prediction: VisibilityPrediction) -> Figure:
    """Plot the predicted probability that a landmark is visible against the observed fraction.

    Parameters
    ----------
    prediction
        Each of its bins is plotted as a dot.

    Returns
    -------
    Figure
        A calibrated model has its dots on the dashed diagonal.
    """
    figure = new_figure(4.7, 4.9)
    axes = figure.add_subplot()
    dots = [(100 * one.mean_predicted, 100 * one.observed) for one in prediction.bins]
    diagonal, curve = draw_reliability(axes, dots, 100.0)
    diagonal.set_label("predicted = observed")
    curve.set_label(f"{prediction.landmarks:,} landmarks in {len(dots)} bins of equal size")
    style_axes(
        axes,
        f"Visibility: calibration error {100 * prediction.ece:.1f} %",
        "predicted probability of being visible (%)",
        "observed: visible (%)",
    )
    legend_below(figure, 1)
    return figure


def draw_reliability(axes: Axes, dots: Sequence[tuple[float, float]], end: float) -> tuple[Line2D, Line2D]:
    """Draw (predicted, observed) dots and the diagonal in square axes from 0 to `end`; return both lines."""
    (diagonal,) = axes.plot([0, end], [0, end], color=STYLE.soft_ink, linewidth=1.0, linestyle=DASHED)
    (curve,) = axes.plot(
        *np.transpose(dots),
        color=STYLE.series[0],
        linewidth=STYLE.line_width,
        marker="o",
        markersize=5,
        clip_on=False,
    )
    axes.set_xlim(0, end)
    axes.set_ylim(0, end)
    axes.set_box_aspect(1)
    return diagonal, curve
