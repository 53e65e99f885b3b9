"""Drawn photos of a teapot with nine landmarks, in front of clutter: an object that is not a face."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from landmarks_fastai.geometry import rotate_points

Floats = NDArray[np.float64]
Color = tuple[int, int, int]

NAMES = (
    "spout_tip",
    "spout_base",
    "lid_knob",
    "rim_front",
    "rim_back",
    "handle_top",
    "handle_bottom",
    "base_front",
    "base_back",
)

WIDTH, HEIGHT = 480, 360
OVERSAMPLING = 3
MAX_ROLL = 20.0
"""Maximum rotation of the object, ± degrees."""


@dataclass(frozen=True, eq=False)
class TeapotPhoto:
    """A photo of one teapot.

    Parameters
    ----------
    image
        (`HEIGHT`, `WIDTH`, 3) uint8.
    points
        (9, 2) landmarks `NAMES`, pixels.
    """

    image: NDArray[np.uint8]
    points: Floats

    @property
    def size(self) -> float:
        """Longer side of the bounding box of the landmarks, pixels."""
        return float(np.ptp(self.points, axis=0).max())


def draw_teapot_photo(rng: np.random.Generator, size: float) -> TeapotPhoto:
    """Draw a teapot at a random place; `size` is its size as a fraction of the image's shorter side."""
    points, parts = _teapot(rng)
    roll = rng.uniform(-MAX_ROLL, MAX_ROLL)
    points = rotate_points(points, roll, (0.0, 0.0))
    parts = [(rotate_points(part, roll, (0.0, 0.0)), color) for part, color in parts]
    scale = size * HEIGHT / np.ptp(points, axis=0).max()
    outline = scale * np.concatenate([part for part, _ in parts])
    low, high = outline.min(axis=0), outline.max(axis=0)
    # the object is inside the image, if it fits
    free = np.array([WIDTH, HEIGHT]) - (high - low)
    offset = np.where(free > 0, rng.uniform(0, 1, 2) * free, free / 2) - low
    canvas = _clutter(rng)
    draw = ImageDraw.Draw(canvas)
    for part, color in parts:
        draw.polygon([tuple(point) for point in OVERSAMPLING * (scale * part + offset)], fill=color)
    image = np.asarray(canvas.resize((WIDTH, HEIGHT), Image.Resampling.BOX), np.float64)
    image = image * rng.uniform(0.7, 1.1) + rng.normal(0, rng.uniform(2, 8), image.shape)
    return TeapotPhoto(image.clip(0, 255).astype(np.uint8), scale * points + offset - 0.5)


def write_teapots(folder: Path, photos: Iterable[TeapotPhoto]) -> Path:
    """Write photos and their labels as a CSV data set; return the path of the CSV."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    path = folder / "landmarks.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *(f"{name}_{axis}" for name in NAMES for axis in "xy")])
        for index, photo in enumerate(photos):
            name = f"{index:04d}.png"
            Image.fromarray(photo.image).save(folder / "images" / name)
            rows.writerow([name, *(f"{value:.3f}" for value in photo.points.ravel())])
    return path


def _teapot(rng: np.random.Generator) -> tuple[Floats, list[tuple[Floats, Color]]]:
    """Return the landmarks of a teapot one unit wide without spout and handle, and its parts as polygons."""
    width, height = 0.5 * rng.uniform(0.85, 1.15), 0.4 * rng.uniform(0.8, 1.25)
    rim, base = 0.45 * width * rng.uniform(0.8, 1.2), 0.6 * width * rng.uniform(0.8, 1.2)
    top, bottom = -0.85 * height, 0.95 * height
    tip = np.array([-width - rng.uniform(0.2, 0.4), -height * rng.uniform(0.6, 1.0)])
    spout = np.array([-0.9 * width, height * rng.uniform(0.05, 0.35)])
    knob = np.array([0.0, top - height * rng.uniform(0.35, 0.55)])
    upper = np.array([0.82 * width, -0.5 * height])
    lower = np.array([0.85 * width, 0.45 * height])
    reach = width + rng.uniform(0.25, 0.5)
    points = np.array(
        [tip, spout, knob, (-rim, top), (rim, top), upper, lower, (-base, bottom), (base, bottom)]
    )
    color, trim = _color(rng), _color(rng)
    dark: Color = (color[0] * 3 // 4, color[1] * 3 // 4, color[2] * 3 // 4)
    bend = (upper + lower) / 2 + (2 * (reach - width), -0.1 * height)
    parts = [
        (_stroke(_bezier(upper, bend, lower), 0.06, 0.06), dark),
        (_stroke(_bezier(spout, spout + np.array([-0.25, 0.0]), tip), 0.12, 0.035), dark),
        (_ellipse((0.0, 0.0), (width, height)), color),
        (np.array([(-base, 0.8 * height), (base, 0.8 * height), (base, bottom), (-base, bottom)]), trim),
        (
            np.array(
                [(-rim, top), (-0.5 * rim, (top + knob[1]) / 2), (0.5 * rim, (top + knob[1]) / 2), (rim, top)]
            ),
            trim,
        ),
        (_ellipse(knob, (0.06, 0.06)), dark),
        (_ellipse((-0.4 * width, -0.3 * height), (0.12 * width, 0.2 * height)), (240, 240, 240)),
    ]
    return points, parts


def _clutter(rng: np.random.Generator) -> Image.Image:
    """Return an oversampled background of smooth texture, with ellipses, polygons and strokes."""
    grid = int(rng.integers(4, 40))
    texture = rng.integers(0, 256, (grid * 3 // 4 + 1, grid, 3)).astype(np.float64)
    texture = texture.mean() + rng.uniform(0.2, 0.6) * (texture - texture.mean()) + rng.uniform(-50, 50, 3)
    size = OVERSAMPLING * WIDTH, OVERSAMPLING * HEIGHT
    canvas = Image.fromarray(texture.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    canvas = canvas.filter(ImageFilter.GaussianBlur(2))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(10, 40))):
        radius = size[1] * math.exp(rng.uniform(math.log(0.01), math.log(0.2)))
        center = rng.uniform(0, 1, 2) * size
        kind = int(rng.integers(3))
        if kind == 0:
            shape = _ellipse(center, radius * rng.uniform(0.4, 1.0, 2))
        elif kind == 1:
            angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 7))))
            shape = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        else:
            ends = center + radius * rng.normal(0, 1, (3, 2))
            shape = _stroke(_bezier(*ends), 0.12 * radius, 0.06 * radius)
        draw.polygon([tuple(point) for point in shape], fill=_color(rng))
    return canvas


def _color(rng: np.random.Generator) -> Color:
    red, green, blue = rng.integers(20, 236, 3).tolist()
    return red, green, blue


def _ellipse(center: Iterable[float], radii: Iterable[float]) -> Floats:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(np.array([*center]) + circle * [*radii])


def _bezier(start: Floats, control: Floats, end: Floats) -> Floats:
    """Return 24 points of a quadratic Bézier curve."""
    t = np.linspace(0, 1, 24)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end)


def _stroke(line: Floats, first: float, last: float) -> Floats:
    """Return the outline of a line whose half width changes from `first` to `last`."""
    tangent = np.gradient(line, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = np.linspace(first, last, len(line))[:, None]
    return np.concatenate([line + half * normal, (line - half * normal)[::-1]])
