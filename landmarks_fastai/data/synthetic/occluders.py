"""Objects in front of synthetic faces: a bar, a hand, a mask or sunglasses, with the landmarks they cover."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from landmarks_fastai.data.synthetic.head_model import EYE_LEVEL, Color, Face, Floats, View, surface
from landmarks_fastai.data.synthetic.rendering import OVERSAMPLE, Brush, ellipse, jitter, mix

MASK_COLORS: tuple[Color, ...] = ((168, 200, 222), (236, 238, 240), (40, 42, 48))
"""A mask has a color near one of these."""

FINGERS = ((-0.27, 0.62), (-0.09, 0.74), (0.09, 0.7), (0.27, 0.55))
"""Offset across the palm and length of each finger but the thumb, in head units."""


def draw_occluder(face: Face, view: View, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Draw a random object in front of a face.

    Parameters
    ----------
    face, view
        The face and its projection.
    size
        Width and height of the image in pixels.
    rng
        Source of the kind, place, size and color of the object.

    Returns
    -------
    Image.Image
        RGBA, `OVERSAMPLE` times as large as the image, opaque where the object is.
    """
    layer = Image.new("RGBA", (size[0] * OVERSAMPLE, size[1] * OVERSAMPLE))
    paint = Brush(layer, view, OVERSAMPLE)
    OCCLUDERS[int(rng.integers(len(OCCLUDERS)))](face, paint, rng)
    return layer


def covered_points(occluder: Image.Image, points: Floats) -> NDArray[np.bool_]:
    """Return which of the (K, 2) points, in pixels of the image, an object covers.

    Parameters
    ----------
    occluder
        Returned by `draw_occluder`.
    points
        (K, 2) x, y; outside the image, no point is covered.
    """
    alpha = np.asarray(occluder.getchannel("A"))
    # pixel x of the image is the mean of `OVERSAMPLE` pixels of the layer, which begin at OVERSAMPLE * x
    x, y = np.floor((points + 0.5) * OVERSAMPLE).astype(np.int64).T
    inside = (x >= 0) & (y >= 0) & (x < alpha.shape[1]) & (y < alpha.shape[0])
    covered = np.zeros(len(points), bool)
    covered[inside] = alpha[y[inside], x[inside]] >= 128
    return covered


def _bar(face: Face, paint: Brush, rng: np.random.Generator) -> None:
    """Draw a straight object, such as a pole or the edge of a door, at any angle."""
    middle, angle = _place(face, paint, rng, 0.35), rng.uniform(0, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    half_length = rng.uniform(0.5, 3.0) * direction
    _line(paint, middle - half_length, middle + half_length, rng.uniform(0.14, 0.42), _any_color(rng))


def _hand(face: Face, paint: Brush, rng: np.random.Generator) -> None:
    """Draw a hand of the color of the face, with the arm coming from any side but above."""
    skin = jitter(face.skin, rng, 8)
    edge = mix(skin, (30, 12, 8), 0.45)
    tip = _place(face, paint, rng, 0.3)
    angle = rng.uniform(-0.75, 0.75) * np.pi
    along = np.array([np.sin(angle), -np.cos(angle)])  # of the fingers; up at an angle of 0
    across = np.array([-along[1], along[0]])
    palm = tip - 0.45 * along
    _line(paint, palm - 0.3 * along, palm - 3.0 * along, 0.42, jitter((110, 110, 120), rng, 95))
    _line(paint, palm - 0.12 * along, palm + 0.05 * along, 0.62, skin)
    thumb = palm + rng.choice([-1.0, 1.0]) * 0.3 * across
    for start, end in [
        (thumb - 0.1 * along, thumb * 2 - palm + 0.2 * along),
        *((palm + offset * across, palm + offset * across + length * along) for offset, length in FINGERS),
    ]:
        _line(paint, start, end, 0.19, edge)
        _line(paint, start, end, 0.155, skin)


def _mask(face: Face, paint: Brush, rng: np.random.Generator) -> None:
    """Draw a mask over nose, mouth and chin."""
    color = jitter(MASK_COLORS[int(rng.integers(len(MASK_COLORS)))], rng, 12)
    top = EYE_LEVEL + rng.uniform(0.2, 0.3)
    across = np.linspace(-1, 1, 21)
    half = 0.72 * face.width
    bulge = (face.nose_height + 0.05) * (1 - across**2)
    upper = surface(face, half * across, top + 0.16 * np.abs(across) ** 1.5, bulge)
    lower = surface(face, 0.8 * half * across[::-1], 1.16 - 0.3 * across**2, 0.05)
    for side in (0, -1):
        ear = np.array([(1 if side else -1) * face.width, EYE_LEVEL + 0.15, 0.0])
        strap = np.stack([upper[side], ear, lower[-1 if side == 0 else 0]])
        paint.outline(strap, 0.025, mix(color, (255, 255, 255), 0.3), closed=False)
    paint(np.concatenate([upper, lower]), color)
    for fraction in (0.35, 0.6):  # two folds
        fold = upper + fraction * (lower[::-1] - upper)
        paint.outline(fold[2:-2], 0.018, mix(color, (0, 0, 0), 0.2), closed=False)


def _sunglasses(face: Face, paint: Brush, rng: np.random.Generator) -> None:
    """Draw glasses with opaque lenses."""
    color = jitter((28, 26, 30), rng, 22)
    width, height = rng.uniform(0.25, 0.32), rng.uniform(0.17, 0.25)
    for side in (1, -1):
        center = surface(face, np.array(side * face.eye_spread), np.array(EYE_LEVEL + 0.02), 0.12)
        paint(ellipse(center, width, height), color)
        hinge = np.array([side * face.width * 1.02, EYE_LEVEL - 0.02, 0.0])
        corner = center + np.array([side * width, -0.03, 0])
        paint.outline(np.stack([corner, hinge]), 0.045, color, closed=False)
    bridge = surface(face, np.array([-0.14, 0.14]), np.array([EYE_LEVEL - 0.03, EYE_LEVEL - 0.03]), 0.14)
    paint.outline(bridge, 0.045, color, closed=False)


OCCLUDERS: tuple[Callable[[Face, Brush, np.random.Generator], None], ...] = (_bar, _hand, _mask, _sunglasses)


def _place(face: Face, paint: Brush, rng: np.random.Generator, spread: float) -> Floats:
    """Return a random place on the face, (2,) head units in the plane of the image, around its center."""
    place = np.array([rng.uniform(-0.55, 0.55) * face.width, EYE_LEVEL + rng.uniform(-0.25, 0.85), 0.8])
    projected = (paint.view(place[None])[0] - paint.view.center) / paint.view.scale
    return np.asarray(projected + rng.uniform(-spread, spread, 2) / 2)


def _line(paint: Brush, start: Floats, end: Floats, width: float, color: Color) -> None:
    """Draw a line with round ends between (2,) places in the plane of the image, in head units."""
    factor = paint.view.scale * paint.factor
    origin = np.array(paint.view.center) * paint.factor + paint.factor / 2
    pen, radius = ImageDraw.Draw(paint.layer), width * factor / 2
    ends = [tuple((place * factor + origin).tolist()) for place in (start, end)]
    pen.line([ends[0], ends[1]], fill=color, width=max(1, round(2 * radius)))
    for x, y in ends:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _any_color(rng: np.random.Generator) -> Color:
    return jitter((int(rng.uniform(15, 240)),) * 3, rng, 45)
