"""Points on pictures, contact sheets and curves: every picture that the project makes.

Knows arrays, the schema and one style; nothing about models or runs. Returns RGB arrays or matplotlib
figures, opens no window and touches no pyplot state; `save_png` alone writes a file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.calibration import Calibration
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import PointScores, auc, ced, failure_rate
from landmarks_fastai.files import replacing
from landmarks_fastai.schema import Schema

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from PIL.ImageFont import FreeTypeFont

    from landmarks_fastai.data.table import FaceTable

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Style:
    """The one look of all pictures. Hues by Okabe & Ito 2008, "Color Universal Design".

    Sizes are in typographic points in figures and in px on pictures.
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
    """Longer side of a sheet's pictures, px."""
    gap: int = 10
    caption: int = 13


STYLE = Style()

UNSURE = 0.5
"""A point of less confidence is drawn hollow: more likely than not it lies farther off than is near."""

HOLLOW = 0.6
"""How much of a hollow point's radius is dark."""


def draw_points(
    image: Picture,
    points: ArrayLike,
    schema: Schema,
    *,
    truth: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    names: bool = False,
    lines: bool = True,
    label: str | None = None,
) -> Picture:
    """Draw landmarks on a copy of a picture, in its own size.

    Filled dots are the points, in one hue for the subject's left, one for the right and one for what
    lies between; rings are the true points, each joined to its prediction. Widths follow the spread of
    the points, so that a face looks the same in 96 px and in 4,000. All strokes are antialiased and
    exact to the part of a pixel: a dot at (x, y) is centred on the centre of pixel (x, y).

    Parameters
    ----------
    image
        (H, W), (H, W, 1) or (H, W, 3) uint8, gray or RGB.
    points
        (K, 2), x then y, px of `image`; a point that is NaN is left out.
    schema
        Names the K points, their lines and their sides.
    truth
        (K, 2) true points, if they are known.
    confidence
        (K,) as `Landmarks.confidence`: a point of less than `UNSURE` is hollow. None or NaN: all are filled.
    names
        Write each point's name beside it. A name for which there is no free room is left out.
    lines
        Draw the schema's lines.
    label
        A word about the face, such as its number, above its points.

    Returns
    -------
    NDArray[np.uint8]
        (H, W, 3) RGB.

    Raises
    ------
    UserError
        If the picture or the points do not have these shapes.
    """
    canvas = _rgb(image)
    found = _checked(points, schema)
    wanted = None if truth is None else _checked(truth, schema)
    spread = _spread(found if wanted is None else wanted, canvas)
    # more points stand closer together: their area, not their number, is what stays the same
    radius = max(1.15, 0.07 * spread / math.sqrt(len(schema)))
    rim = max(0.6, 0.35 * radius)
    thin = max(0.4, 0.3 * radius)
    hues = _hues(schema)

    if lines:
        joined = [
            (found[a], found[b], hues[b] if hues[a] == STYLE.middle else hues[a])
            for line in schema.lines
            for a, b in zip(schema.indices(line), schema.indices(line[1:]), strict=False)
        ]
        for start, end, _ in joined:
            _stroke(canvas, start, end, thin + 0.7 * rim, STYLE.outline, 0.45)
        for start, end, hue in joined:
            _stroke(canvas, start, end, thin, hue)
    if wanted is not None:
        for start, end in zip(found, wanted, strict=True):
            _stroke(canvas, start, end, thin + 0.7 * rim, STYLE.outline, 0.6)
        for start, end in zip(found, wanted, strict=True):
            _stroke(canvas, start, end, thin, STYLE.truth)
        ring = radius + rim  # round the dot of a point that was met
        for at in wanted:
            _stroke(canvas, at, at, ring + 2 * rim, STYLE.outline, inner=ring - rim)
        for at in wanted:
            _stroke(canvas, at, at, ring + rim, STYLE.truth, inner=ring)
    for at in found:
        _stroke(canvas, at, at, radius + rim, STYLE.outline)
    sure = np.full(len(found), np.nan) if confidence is None else np.asarray(confidence, np.float64)
    for at, hue, chance in zip(found, hues, sure, strict=True):
        _stroke(canvas, at, at, radius, hue, inner=HOLLOW * radius if chance < UNSURE else 0.0)
    if names:
        rings = np.empty((0, 2)) if wanted is None else wanted
        _write_names(canvas, found, rings, schema, hues, radius + rim)
    if label is not None:
        _write_label(canvas, found, label, radius + rim)
    return canvas


def sheet(
    images: Sequence[Picture] | Picture,
    points: Sequence[ArrayLike] | NDArray[Any],
    schema: Schema,
    *,
    truth: Sequence[ArrayLike] | NDArray[Any] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    scale: int | None = None,
) -> Picture:
    """Lay faces with their landmarks out in rows, each with a caption, and a legend below.

    Parameters
    ----------
    images
        (N, H, W, C) uint8, or N pictures of any sizes, each as `draw_points` takes it.
    points
        N times (K, 2), x then y, px of the image it belongs to; NaN points are left out.
    schema
        Names the K points.
    truth
        N times (K, 2) true points, if they are known.
    titles
        N captions; one too long for its picture ends in "…".
    columns
        How many faces stand in a row.
    scale
        How many times each picture is enlarged. None: its longer side becomes 256 px.

    Returns
    -------
    NDArray[np.uint8]
        (H', W', 3) RGB.

    Raises
    ------
    UserError
        If there is no image, or not as many points and titles as images.
    """
    count = len(images)
    if not count:
        raise UserError("there is no face to draw on a sheet")
    for what, given in (("points", points), ("truth", truth), ("titles", titles)):
        if given is not None and len(given) != count:
            raise UserError(f"a sheet of {count} images needs {count} {what}, not {len(given)}")
    if columns < 1 or (scale is not None and scale < 1):
        raise UserError(f"a sheet needs at least 1 column and scale 1, not {columns} and {scale}")

    rows_of_points = [_checked(row, schema) for row in points]
    rows_of_truth = [None] * count if truth is None else [_checked(row, schema) for row in truth]
    cells = []
    for image, found, wanted in zip(images, rows_of_points, rows_of_truth, strict=True):
        large, factor = _scaled(_rgb(image), scale)
        cells.append(
            draw_points(
                large,
                (found + 0.5) * factor - 0.5,
                schema,
                truth=None if wanted is None else (wanted + 0.5) * factor - 0.5,
            )
        )

    columns = min(columns, count)
    width = max(cell.shape[1] for cell in cells)
    caption = 0 if titles is None else _text_box("", STYLE.caption)[1] + 4
    bands = [max(cell.shape[0] for cell in cells[row : row + columns]) for row in range(0, count, columns)]
    tops = np.cumsum([STYLE.gap, *(band + caption + STYLE.gap for band in bands)])
    page = np.empty((tops[-1], columns * (width + STYLE.gap) + STYLE.gap, 3), np.uint8)
    page[:] = _colour(STYLE.paper)
    for index, cell in enumerate(cells):
        x, y = STYLE.gap + index % columns * (width + STYLE.gap), tops[index // columns]
        page[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
        if titles is not None:
            text = _shortened(titles[index], width, STYLE.caption)
            write_text_line(page, x, y + bands[index // columns] + 2, text, STYLE.caption, STYLE.ink)
    return np.concatenate([page, _legend(schema, truth is not None, page.shape[1])])


def judged_sheet(
    faces: FaceTable, points: ArrayLike, nme: ArrayLike, rows: NDArray[np.int64], *, columns: int = 4
) -> Picture:
    """Lay some of the judged faces out, truth beside prediction, each under its NME.

    Parameters
    ----------
    faces
        N faces with their true points.
    points
        (N, K, 2) predicted points, px of the faces.
    nme
        (N,) NME of each face, as a fraction.
    rows
        Which faces, in this order.
    columns
        How many stand in a row.
    """
    shown = faces.rows(rows)
    errors = np.asarray(nme)[rows]
    titles = [f"{name}: {error:.1%}" for name, error in zip(shown.names, errors, strict=True)]
    found = np.asarray(points)[rows]
    return sheet(shown.images, found, faces.schema, truth=shown.points, titles=titles, columns=columns)


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
    figure = _figure(4.2 * across, 3.0 * down)
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
        _dress(axes, title, "epoch", unit)
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
    figure = _figure(6.0, 4.2)
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
    _dress(axes, f"Cumulative error, AUC and failures at {100 * threshold:g} %", "", "faces (%)")
    axes.set_xlabel(f"NME at most (% of {normaliser})", fontsize=STYLE.text_size, color=STYLE.ink)
    axes.set_xlim(0, 100 * end)
    axes.set_ylim(0, 102)
    _legend_below(figure, 1)
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
    figure = _figure(6.4, 1.3 + (0.24 if len(table) <= 30 else 0.16) * len(table))
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
    _dress(axes, "Error by landmark", "distance to the true point (px)", "")
    axes.set_yticks(rows, [f"{point.name} ({point.labelled})" for point in table])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=STYLE.text_size if len(table) <= 30 else 7)
    _legend_below(figure, 2)
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
    figure = _figure(8.4, 4.7)
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
        _dress(axes, title, claimed, true)
        axes.set_xlim(0, end)
        axes.set_ylim(0, end)
        axes.set_box_aspect(1)
        if number == 1:  # the lines mean the same in both
            diagonal.set_label("claimed and true agree")
            line.set_label(f"{calibration.points:,} points in {len(bins)} bins, equally many in each")
    _legend_below(figure, 2)
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
    figure = _figure(6.4, 2.8 * len(panels))
    for number, (title, unit, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, number)
        axes.plot(*_thinned(values), color=STYLE.series[number - 1], linewidth=STYLE.line_width)
        _dress(axes, title, "step" if number == len(panels) else "", unit)
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
    figure = _figure(6.4, 3.8)
    axes = figure.add_subplot()
    axes.plot(rates, values, color=STYLE.series[0], linewidth=STYLE.line_width)
    _dress(axes, "Learning rate finder", "learning rate", "loss")
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


def save_png(path: str | Path, picture: Picture | Figure) -> None:
    """Write a picture or a figure as PNG: whole, or not at all.

    Parameters
    ----------
    path
        Where to; an existing file is replaced.
    picture
        (H, W, 3) or (H, W) uint8, or a figure.

    Raises
    ------
    UserError, RunError
        If it can't be written: a file stands where its folder should be; no permission, no room.
    """
    from PIL import Image

    target = Path(path)
    memory = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(memory, "png")
    else:
        picture.savefig(memory, format="png", dpi=STYLE.dpi, facecolor=STYLE.paper)
    with replacing(target) as part:
        part.write_bytes(memory.getbuffer())


def _rgb(image: Picture) -> Picture:
    """Copy a gray or RGB picture into a fresh RGB one."""
    picture = np.asarray(image)
    shape = picture.shape
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3) or not picture.size:
        raise UserError(
            f"a picture must be (H, W), (H, W, 1) or (H, W, 3) uint8, not {shape} {picture.dtype}"
        )
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3))).copy()


def _checked(points: ArrayLike, schema: Schema) -> Floats:
    array = np.asarray(points, np.float64)
    if array.shape != (len(schema), 2):
        raise UserError(f"schema {schema.name} needs points ({len(schema)}, 2), not {array.shape}")
    return array


def _spread(points: Floats, canvas: Picture) -> float:
    """Side of the square as large as the points' box, px: what widths on a picture are relative to."""
    height, width = canvas.shape[:2]
    inside = np.clip(points[np.isfinite(points).all(axis=1)], 0, (width - 1, height - 1))
    spread = float(np.hypot(*np.ptp(inside, axis=0))) / math.sqrt(2) if len(inside) else 0.0
    return spread if spread >= 1 else min(width, height) / 4


def _hues(schema: Schema) -> list[str]:
    """Return each point's hue: by its side, or all alike where the schema knows no sides."""
    hues = [STYLE.middle] * len(schema)
    # a pair is (left, right) unless the eyes, which are (left, right), say the contrary
    right_eye = schema.inter_ocular[1] if schema.inter_ocular else ()
    sides = (STYLE.left, STYLE.right)
    if any(first in right_eye for first, _ in schema.flip_pairs):
        sides = (STYLE.right, STYLE.left)
    for pair in schema.flip_pairs:
        for index, hue in zip(schema.indices(pair), sides, strict=True):
            hues[index] = hue
    return hues


def _colour(hue: str) -> tuple[int, int, int]:
    return int(hue[1:3], 16), int(hue[3:5], 16), int(hue[5:7], 16)


def _stroke(
    canvas: Picture,
    start: Floats,
    end: Floats,
    radius: float,
    hue: str,
    opacity: float = 1.0,
    inner: float = 0.0,
) -> None:
    """Paint all that lies within `radius` of the segment from `start` to `end`, but not within `inner`.

    A dot where both ends are one, a ring where it has an inner radius. A pixel is covered by how far its
    centre lies inside the edge: antialiased, and exact at any size. Long segments are painted slab by
    slab, so that no more than their surroundings is touched.
    """
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        return
    if abs(end[0] - start[0]) > abs(end[1] - start[1]):  # so that the slabs go along the segment
        canvas, start, end = canvas.swapaxes(0, 1), start[::-1], end[::-1]
    (x0, y0), (x1, y1) = start.tolist(), end.tolist()
    height, width = canvas.shape[:2]
    reach, length = radius + 0.5, math.hypot(x1 - x0, y1 - y0)
    along = ((x1 - x0) / length, (y1 - y0) / length) if length else (0.0, 0.0)
    colour = np.array(_colour(hue), np.float32)
    first, last = max(0, math.floor(min(y0, y1) - reach)), min(height - 1, math.ceil(max(y0, y1) + reach))
    for top in range(first, last + 1, 64):
        bottom = min(top + 63, last)
        near = [0.0, 0.0]
        if y1 != y0:
            near = [min(1.0, max(0.0, (y - y0) / (y1 - y0))) for y in (top - reach, bottom + reach)]
        across = [x0 + share * (x1 - x0) for share in near]
        left, right = max(0, math.floor(min(across) - reach)), min(width - 1, math.ceil(max(across) + reach))
        if left > right:
            continue
        x = np.arange(left, right + 1)[None] - x0
        y = np.arange(top, bottom + 1)[:, None] - y0
        at = np.clip(x * along[0] + y * along[1], 0, length)
        distance = np.hypot(x - at * along[0], y - at * along[1])
        cover = opacity * np.clip(reach - distance, 0, 1)
        if inner > 0:
            cover *= np.clip(distance - inner + 0.5, 0, 1)
        patch = canvas[top : bottom + 1, left : right + 1]
        patch[:] = patch + cover[..., None].astype(np.float32) * (colour - patch) + 0.5


@lru_cache(maxsize=8)
def _font(size: int) -> FreeTypeFont:
    """Return matplotlib's own font, so that text on pictures and in figures is alike."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _text_box(text: str, size: int) -> tuple[int, int]:
    """Width and height of a line of text in px, the same height for every text."""
    ascent, descent = _font(size).getmetrics()
    return math.ceil(_font(size).getlength(text)), ascent + descent


def write_text_line(
    canvas: Picture, left: int, top: int, text: str, size: int, hue: str, outline: str | None = None
) -> None:
    """Write a line of text into a picture, in place; what would lie outside of it is left out.

    Parameters
    ----------
    canvas
        (H, W, 3) uint8 RGB.
    left, top
        Where the text's box begins, px.
    text, size, hue, outline
        What, how large in px, and in which colours: "#RRGGBB".
    """
    from PIL import Image, ImageDraw

    rim = 0 if outline is None else max(1, size // 8)
    width, height = _text_box(text, size)
    y, x = max(0, top - rim), max(0, left - rim)
    patch = canvas[y : top + height + rim, x : left + width + rim]
    if not patch.size:
        return
    picture = Image.fromarray(patch)
    ImageDraw.Draw(picture).text(
        (left - x, top - y), text, _colour(hue), _font(size), stroke_width=rim, stroke_fill=outline
    )
    patch[:] = np.asarray(picture)


def _write_names(
    canvas: Picture, points: Floats, rings: Floats, schema: Schema, hues: Sequence[str], radius: float
) -> None:
    """Write each point's name in the nearest free room, outward from the middle of the face."""
    size = round(min(max(9.0, 0.045 * _spread(points, canvas)), 64.0))
    seen: list[int] = np.flatnonzero(np.isfinite(points).all(axis=1)).tolist()
    height, width = canvas.shape[:2]
    dots = np.concatenate([points[seen], rings[np.isfinite(rings).all(axis=1)]])
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in dots.tolist()]
    found = []
    for index in seen:
        at, outward = points[index], points[index] - points[seen].mean(axis=0)
        room = _text_box(schema.points[index], size)
        for box, anchor in _rooms(at, outward, room, radius + 0.25 * size, size):
            inside = min(box) >= 0 and box[2] <= width and box[3] <= height
            if inside and not any(_overlap(box, other) for other in taken):
                found.append((index, box, anchor))
                taken.append((box[0] - 0.4 * size, box[1], box[2] + 0.4 * size, box[3]))
                break
    for index, _, anchor in found:
        if np.hypot(*(anchor - points[index])) > radius + 0.5 * size:
            _stroke(canvas, points[index], anchor, max(0.5, size / 24), hues[index])
    for index, box, _ in found:  # after all the lines, so that none crosses a name
        write_text_line(
            canvas, round(box[0]), round(box[1]), schema.points[index], size, hues[index], STYLE.outline
        )


def _write_label(canvas: Picture, points: Floats, label: str, radius: float) -> None:
    """Write a word above the middle of the points, or below them where there is no room above."""
    seen = points[np.isfinite(points).all(axis=1)]
    if not len(seen):
        return
    size = round(min(max(11.0, 0.16 * _spread(points, canvas)), 96.0))
    width, height = _text_box(label, size)
    low, high = seen.min(axis=0), seen.max(axis=0)
    top = low[1] - radius - 0.5 * size - height
    if top < 0:
        top = min(high[1] + radius + 0.5 * size, canvas.shape[0] - height)
    left = min(max((low[0] + high[0] - width) / 2, 0), max(canvas.shape[1] - width, 0))
    write_text_line(canvas, round(left), round(max(top, 0)), label, size, STYLE.truth, STYLE.outline)


def _rooms(
    at: Floats, outward: Floats, text: tuple[int, int], nearest: float, step: float
) -> Iterator[tuple[Box, Floats]]:
    """Yield boxes of a text round a point, the nearest first, and the side that faces the point."""
    width, height = text
    turns = np.deg2rad(np.arange(0, 360, 30))
    ways = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    ways = ways[np.argsort(-(ways @ outward), kind="stable")]
    for ring in range(12):
        for way in ways:
            anchor = at + (nearest + ring * step) * way
            x = anchor[0] - width * (1 - way[0]) / 2
            y = anchor[1] - height * (1 - way[1]) / 2
            yield (x, y, x + width, y + height), anchor


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _scaled(picture: Picture, scale: int | None) -> tuple[Picture, Floats]:
    """Resize a picture for a sheet; return it and how many times wider and higher it became."""
    from PIL import Image

    height, width = picture.shape[:2]
    factor = STYLE.cell / max(height, width) if scale is None else scale
    size = max(1, round(factor * width)), max(1, round(factor * height))
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    return resized, np.array(size) / (width, height)


def _shortened(text: str, width: int, size: int) -> str:
    """Make a caption one line that fits, ending in an ellipsis where something was cut."""
    line = " ".join(text.split())
    if _text_box(line, size)[0] <= width:
        return line
    while line and _text_box(line + "…", size)[0] > width:
        line = line[:-1]
    return line.rstrip() + "…"


def _legend(schema: Schema, truth: bool, width: int) -> Picture:
    """Make the strip below a sheet that says what the hues mean, in as many lines as it takes."""
    hues = _hues(schema)
    labels = {STYLE.left: "subject's left", STYLE.right: "subject's right", STYLE.middle: "middle"}
    entries = [(hue, label) for hue, label in labels.items() if hue in hues] if schema.flip_pairs else []
    if truth:
        entries = [*(entries or [(STYLE.middle, "prediction")]), (STYLE.truth, "truth")]
    line = STYLE.caption + 12
    places, x, y = [], STYLE.gap, 0
    for hue, label in entries:
        needed = 20 + _text_box(label, STYLE.caption)[0]
        if x > STYLE.gap and x + needed > width:
            x, y = STYLE.gap, y + line
        places.append((x, y, hue, label))
        x += needed + 18
    strip = np.empty((y + line if entries else 0, width, 3), np.uint8)
    strip[:] = _colour(STYLE.paper)
    for x, y, hue, label in places:
        at = np.array([x + 7.0, y + 8.0])
        _stroke(strip, at, at, 6.0, STYLE.outline)
        _stroke(strip, at, at, 4.5, hue)
        if hue == STYLE.truth:
            _stroke(strip, at, at, 2.5, STYLE.outline)
        write_text_line(strip, x + 20, y, label, STYLE.caption, STYLE.ink)
    return strip


def _figure(width: float, height: float) -> Figure:
    """Make an empty figure, in inches, that no pyplot knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=STYLE.dpi, layout="constrained", facecolor=STYLE.paper)
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
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


def _legend_below(figure: Figure, columns: int) -> None:
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
