"""Points on pictures and contact sheets, in the one style of all that the project draws.

Knows arrays, the schema and one style; nothing about models or runs. Returns RGB arrays; `save_png` alone
writes a file, of a picture or of a figure (figures.py).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.files import replacing
from landmarks_fastai.schema import Schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure
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
