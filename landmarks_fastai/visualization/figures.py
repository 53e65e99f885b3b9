"""Matplotlib figures and axes in the common style, without pyplot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from landmarks_fastai.visualization.style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, `width` x `height` inches, that is not registered with pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=STYLE.dpi, layout="constrained", facecolor=STYLE.paper)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Apply the common style: title on the left, axis labels with units, a light grid, two spines."""
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
    """Add the legend in `columns` columns below the axes, where it cannot cover a curve."""
    figure.legend(
        loc="outside lower center",
        frameon=False,
        fontsize=STYLE.text_size,
        labelcolor=STYLE.ink,
        ncols=columns,
    )
