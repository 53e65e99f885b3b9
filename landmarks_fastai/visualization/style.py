"""Colors and sizes of drawings and plots."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """Colors as "#RRGGBB" (palette of Okabe & Ito 2008, "Color Universal Design"), sizes in points or pixels.

    Parameters
    ----------
    left, right, middle
        Landmarks on the subject's left, on the subject's right, and in the middle.
    truth, outline
        Labels drawn with predictions; the dark outline of dots and text.
    series
        Curves of a plot, in order.
    ink, soft_ink, grid, paper
        Text, ticks and other secondary elements, grid lines, and the background of plots and sheets.
    line_width, title_size, text_size
        Sizes in plots, points.
    dpi
        Resolution of plots.
    cell
        Longer side of the images of a sheet, pixels.
    gap, caption
        Space between the images of a sheet and font size of its captions, pixels.
    """

    left: str = "#56B4E9"
    right: str = "#E69F00"
    middle: str = "#F0E442"
    truth: str = "#FFFFFF"
    outline: str = "#101418"
    series: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    ink: str = "#22272E"
    soft_ink: str = "#5B6470"
    grid: str = "#DFE3E8"
    paper: str = "#FFFFFF"
    line_width: float = 1.6
    title_size: float = 11.0
    text_size: float = 9.0
    dpi: int = 120
    cell: int = 256
    gap: int = 10
    caption: int = 13


STYLE = Style()


def rgb(color: str) -> tuple[int, int, int]:
    """Return the red, green and blue components of "#RRGGBB", from 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
