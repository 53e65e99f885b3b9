"""Drawing landmarks on an image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.visualization.canvas import (
    Floats,
    Image8,
    Layer,
    draw_stroke,
    draw_strokes,
    draw_text,
    text_size,
    to_rgb,
)
from landmarks_fastai.visualization.style import STYLE

Box = tuple[float, float, float, float]

MIN_FILLED_CONFIDENCE = 0.5
"""A landmark with lower confidence is drawn hollow."""

HOLLOW_FRACTION = 0.6
"""Inner radius of a hollow dot, as a fraction of its radius."""


CROSS_ARM, CROSS_STROKE = 0.9, 0.4
"""Half the side of a cross and half the width of its strokes, as fractions of the radius of a dot."""


def draw_landmarks(
    image: Image8,
    landmarks: Landmarks,
    *,
    truth: Landmarks | None = None,
    names: bool = False,
    skeleton: bool = True,
    captions: Sequence[str] | None = None,
    in_place: bool = False,
) -> Image8:
    """Draw the landmarks of all faces on a copy of an image.

    Landmarks are filled dots, in one color each for the subject's left, the subject's right and the middle;
    dots with low confidence are hollow, and occluded landmarks (`Landmarks.occluded`) are crosses. Labels are
    rings, each connected to its prediction. Dots and lines
    scale with the face, so that drawings of 96 and of 4,000 pixels look alike. All strokes are antialiased
    and exact to a fraction of a pixel: a dot at (x, y) is centered on the center of pixel (x, y).

    Parameters
    ----------
    image
        (H, W), (H, W, 1) or (H, W, 3) uint8, gray or RGB.
    landmarks
        N faces, in pixels of `image`; NaN points are not drawn.
    truth
        Labels of the same N faces.
    names
        Draw the name of each landmark next to it; names for which there is no space are omitted.
    skeleton
        Draw the skeleton of the schema.
    captions
        N texts, such as track IDs, drawn above the faces.
    in_place
        Draw on the image itself, which must be a (H, W, 3) array that can be written to.

    Returns
    -------
    NDArray[np.uint8]
        (H, W, 3) RGB.

    Raises
    ------
    UserError
        If the image has another shape, or the numbers of faces do not agree.
    """
    canvas = image if in_place else to_rgb(image)
    for what, given in (("labeled faces", truth), ("captions", captions)):
        if given is not None and len(given) != len(landmarks):
            raise UserError(f"{len(landmarks)} faces need {len(landmarks)} {what}, not {len(given)}")
    for face in range(len(landmarks)):
        caption = None if captions is None else captions[face]
        _draw_face(
            canvas, landmarks[[face]], None if truth is None else truth[[face]], names, skeleton, caption
        )
    return canvas


def number_faces(landmarks: Landmarks) -> list[str] | None:
    """Return a caption for each face of an image: its track ID or index; None for fewer than two faces."""
    if len(landmarks) < 2:
        return None
    return [str(number) for number in landmarks.track_ids or range(len(landmarks))]


def _draw_face(
    canvas: Image8,
    face: Landmarks,
    truth: Landmarks | None,
    names: bool,
    skeleton: bool,
    caption: str | None,
) -> None:
    """Draw one face, in place."""
    schema, points = face.schema, face.points[0].astype(np.float64)
    true_points = np.full_like(points, np.nan) if truth is None else truth.points[0].astype(np.float64)
    size = _face_size(points if truth is None else true_points, canvas)
    # with more landmarks, which are closer together, the total area of the dots stays the same
    radius = max(1.15, 0.07 * size / math.sqrt(len(schema)))
    rim = max(0.6, 0.35 * radius)
    thin = max(0.4, 0.3 * radius)
    colors = landmark_colors(schema)
    if skeleton:
        _draw_skeleton(canvas, points, schema, thin, rim)
    if truth is not None:
        _draw_truth(canvas, points, true_points, radius, thin, rim)
    _draw_markers(canvas, face, colors, radius, rim)
    if names:
        _draw_names(canvas, points, true_points, schema, radius + rim)
    if caption is not None:
        _draw_caption(canvas, points, caption, radius + rim)


def _draw_markers(canvas: Image8, face: Landmarks, colors: Sequence[str], radius: float, rim: float) -> None:
    """Draw the dots, and crosses in place of those of occluded landmarks."""
    points, occluded = face.points[0].astype(np.float64), face.occluded[0]
    dots, crosses = np.flatnonzero(~occluded), np.flatnonzero(occluded)
    arms = _cross_arms(radius)
    centers = np.repeat(points[crosses], 2, axis=0)
    offsets = np.tile(arms, (len(crosses), 1))
    starts = np.concatenate([points[dots], centers - offsets])
    ends = np.concatenate([points[dots], centers + offsets])
    radii = np.repeat([radius, CROSS_STROKE * radius], [len(dots), len(offsets)])
    is_hollow = face.confidence[0, dots] < MIN_FILLED_CONFIDENCE
    inner = np.concatenate([np.where(is_hollow, HOLLOW_FRACTION * radius, 0.0), np.zeros(len(offsets))])
    shown = [colors[index] for index in (*dots, *np.repeat(crosses, 2))]
    outline = Layer(radii + rim, [STYLE.outline] * len(shown))
    draw_strokes(canvas, starts, ends, [outline, Layer(radii, shown, inner=inner)])


def draw_cross(canvas: Image8, point: Floats, radius: float, rim: float, color: str) -> None:
    """Draw a diagonal cross slightly larger than a dot of `radius`, extended on all sides by `rim`."""
    arms = _cross_arms(radius)
    draw_strokes(canvas, point - arms, point + arms, [Layer(CROSS_STROKE * radius + rim, [color] * 2)])


def _cross_arms(radius: float) -> Floats:
    """Return the (2, 2) x, y from the center of a cross to an end of each stroke."""
    return CROSS_ARM * radius * np.array([[1.0, 1.0], [1.0, -1.0]])


def _draw_skeleton(canvas: Image8, points: Floats, schema: LandmarkSchema, thin: float, rim: float) -> None:
    segments, colors = _skeleton_segments(schema)
    outline = Layer(thin + 0.7 * rim, [STYLE.outline] * len(segments), 0.45)
    starts, ends = points[segments[:, 0]], points[segments[:, 1]]
    draw_strokes(canvas, starts, ends, [outline, Layer(thin, colors)])


@lru_cache(maxsize=32)
def _skeleton_segments(schema: LandmarkSchema) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the (N, 2) indices of the landmarks that the skeleton connects, and the color of each line."""
    colors = landmark_colors(schema)
    segments = [
        pair
        for chain in schema.skeleton
        for pair in zip(schema.indices(chain), schema.indices(chain[1:]), strict=False)
    ]
    line_colors = tuple(colors[b] if colors[a] == STYLE.middle else colors[a] for a, b in segments)
    return np.array(segments, np.intp).reshape(-1, 2), line_colors


def _draw_truth(
    canvas: Image8, points: Floats, true_points: Floats, radius: float, thin: float, rim: float
) -> None:
    """Draw labels as rings, each connected to its prediction."""
    outline, white = [STYLE.outline] * len(points), [STYLE.truth] * len(points)
    lines = [Layer(thin + 0.7 * rim, outline, 0.6), Layer(thin, white)]
    draw_strokes(canvas, points, true_points, lines)
    ring = radius + rim  # surrounds the dot of an exact prediction
    rings = [Layer(ring + 2 * rim, outline, inner=ring - rim), Layer(ring + rim, white, inner=ring)]
    draw_strokes(canvas, true_points, true_points, rings)


@lru_cache(maxsize=32)
def landmark_colors(schema: LandmarkSchema) -> tuple[str, ...]:
    """Return the color of each landmark: by side, or all alike if the schema has no flip pairs."""
    colors = [STYLE.middle] * len(schema)
    # flip pairs are (left, right), unless the eyes, whose order is known, show that they are (right, left)
    right_eye = schema.eyes[1] if schema.eyes else ()
    sides = (STYLE.left, STYLE.right)
    if any(first in right_eye for first, _ in schema.flip_pairs):
        sides = (STYLE.right, STYLE.left)
    for pair in schema.flip_pairs:
        for index, color in zip(schema.indices(pair), sides, strict=True):
            colors[index] = color
    return tuple(colors)


def _face_size(points: Floats, canvas: Image8) -> float:
    """Return the side of a square with the diagonal of the landmarks' box, in pixels; sizes scale with it."""
    height, width = canvas.shape[:2]
    inside = np.clip(points[np.isfinite(points).all(axis=1)], 0, (width - 1, height - 1))
    size = float(np.hypot(*np.ptp(inside, axis=0))) / math.sqrt(2) if len(inside) else 0.0
    return size if size >= 1 else min(width, height) / 4


def _draw_names(
    canvas: Image8, points: Floats, true_points: Floats, schema: LandmarkSchema, radius: float
) -> None:
    """Draw the name of each landmark in the nearest free space, away from the center of the face."""
    size = round(min(max(9.0, 0.045 * _face_size(points, canvas)), 64.0))
    colors = landmark_colors(schema)
    known: list[int] = np.flatnonzero(np.isfinite(points).all(axis=1)).tolist()
    height, width = canvas.shape[:2]
    dots = np.concatenate([points[known], true_points[np.isfinite(true_points).all(axis=1)]])
    occupied = [(x - radius, y - radius, x + radius, y + radius) for x, y in dots.tolist()]
    placed = []
    for index in known:
        point, outward = points[index], points[index] - points[known].mean(axis=0)
        extent = text_size(schema.names[index], size)
        for box, anchor in _name_boxes(point, outward, extent, radius + 0.25 * size, size):
            inside = min(box) >= 0 and box[2] <= width and box[3] <= height
            if inside and not any(_overlap(box, other) for other in occupied):
                placed.append((index, box, anchor))
                occupied.append((box[0] - 0.4 * size, box[1], box[2] + 0.4 * size, box[3]))
                break
    for index, _, anchor in placed:
        if np.hypot(*(anchor - points[index])) > radius + 0.5 * size:
            draw_stroke(canvas, points[index], anchor, max(0.5, size / 24), colors[index])
    for index, box, _ in placed:  # after all lines, so that none crosses a name
        draw_text(
            canvas, round(box[0]), round(box[1]), schema.names[index], size, colors[index], STYLE.outline
        )


def _draw_caption(canvas: Image8, points: Floats, caption: str, radius: float) -> None:
    """Draw a text centered above the landmarks, or below them if there is no space above."""
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        return
    size = round(min(max(11.0, 0.16 * _face_size(points, canvas)), 96.0))
    width, height = text_size(caption, size)
    low, high = known.min(axis=0), known.max(axis=0)
    top = low[1] - radius - 0.5 * size - height
    if top < 0:
        top = min(high[1] + radius + 0.5 * size, canvas.shape[0] - height)
    left = min(max((low[0] + high[0] - width) / 2, 0), max(canvas.shape[1] - width, 0))
    draw_text(canvas, round(left), round(max(top, 0)), caption, size, STYLE.truth, STYLE.outline)


def _name_boxes(
    point: Floats, outward: Floats, extent: tuple[int, int], nearest: float, step: float
) -> Iterator[tuple[Box, Floats]]:
    """Yield candidate boxes of a text around a point, nearest first, each with its place nearest to it."""
    width, height = extent
    angles = np.deg2rad(np.arange(0, 360, 30))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    directions = directions[np.argsort(-(directions @ outward), kind="stable")]
    for ring in range(12):
        for direction in directions:
            anchor = point + (nearest + ring * step) * direction
            x = anchor[0] - width * (1 - direction[0]) / 2
            y = anchor[1] - height * (1 - direction[1]) / 2
            yield (x, y, x + width, y + height), anchor


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
