"""Rendering of the faces of `head_model`: background, person, lighting, blur and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from landmarks_fastai.data.synthetic.head_model import (
    EYE_LEVEL,
    FEATURE_LIFT,
    MOUTH_DROP,
    Color,
    Face,
    Floats,
    View,
    brow_curve,
    eye_curve,
    head_surface,
    mouth_curve,
    nose_tip,
    surface,
)

DIRECTIONS: Floats = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 64, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 64, endpoint=False)),
    ],
    axis=1,
)
"""(64, 2) unit vectors, evenly spaced on a circle."""

CIRCLE = DIRECTIONS[::2]
"""(32, 2) points, evenly spaced on the unit circle."""

OVERSAMPLE = 4
"""Faces are drawn larger by this factor, then reduced by averaging."""

LARGE_SIDE = 256
"""Images with a longer side of at least this many pixels need less oversampling."""

UNSHADED = 200
"""Gray value in the layer of shadows that leaves the brightness unchanged; lower values darken."""

GLASSES_COLOR: Color = (30, 28, 30)


def _hull_indices(points: Floats) -> NDArray[np.int64]:
    """Return the indices of the (n, 2) points on their convex hull: the extreme point in each direction."""
    return np.asarray(np.argmax(points @ DIRECTIONS.T, axis=0), np.int64)


def ellipse(center: Floats, radius_x: float, radius_y: float) -> Floats:
    """Return an ellipse around `center` parallel to the frontal plane, (32, 3)."""
    ring = np.zeros((len(CIRCLE), 3))
    ring[:, :2] = CIRCLE * [radius_x, radius_y]
    return ring + center


def mix(first: Color, second: Color, fraction: float) -> Color:
    """Interpolate between two colors; fraction 0 is the first, 1 the second."""
    r, g, b = (round(p + (q - p) * fraction) for p, q in zip(first, second, strict=True))
    return r, g, b


def jitter(color: Color, rng: np.random.Generator, spread: float) -> Color:
    """Return a random color near `color`: each channel differs by at most `spread`."""
    r, g, b = (int(np.clip(c + rng.uniform(-spread, spread), 0, 255)) for c in color)
    return r, g, b


def render(
    face: Face,
    view: View,
    size: tuple[int, int],
    rng: np.random.Generator,
    occluder: Image.Image | None = None,
) -> Image.Image:
    """Render a face on a random background as an RGB image of `size` (width, height).

    `occluder` is an RGBA layer in front of the face, `OVERSAMPLE` times as large as the image.
    """
    pixels: NDArray[np.float32] = np.asarray(_background(size, rng), np.float32)
    person = np.asarray(_person(face, view, size), np.float32)
    alpha = person[..., 3:] / 255
    light = _shading(face, view, size)[..., None]
    pixels = np.asarray(pixels * (1 - alpha) + person[..., :3] * light * alpha, np.float32)
    if occluder is not None:
        front = np.asarray(occluder.reduce(OVERSAMPLE), np.float32)
        alpha = front[..., 3:] / 255
        pixels = np.asarray(pixels * (1 - alpha) + front[..., :3] * alpha, np.float32)
    image = Image.fromarray(np.clip(pixels * face.exposure, 0, 255).astype(np.uint8))
    # a slight blur, as of a lens, is always applied
    radius = max(0.35, (0.008 + face.blur) * 2 * face.eye_spread * view.scale)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    grain = rng.standard_normal((size[1], size[0], 1), np.float32) * face.noise
    return Image.fromarray(np.clip(pixels + grain + 0.5, 0, 255).astype(np.uint8))


def _background(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a smooth random color gradient with a few blurred rectangles in front."""
    base = rng.uniform(20, 230)
    coarse = np.clip(
        base + rng.normal(0, rng.uniform(4, 40), (5, 6, 1)) + rng.normal(0, 6, (5, 6, 3)), 0, 255
    )
    scene = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(scene)
    for _ in range(int(rng.integers(0, 5))):
        corner = rng.uniform(-0.2, 1.0, 2) * size
        extent = rng.uniform(0.05, 0.5, 2) * size
        pen.rectangle((*corner, *(corner + extent)), fill=jitter((int(base),) * 3, rng, 50))
    return scene.filter(ImageFilter.BoxBlur(float(rng.uniform(0.0, 0.03)) * max(size)))


def _shading(face: Face, view: View, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the brightness (H, W): Lambert's law on an ellipsoid, times the shadows of the features."""
    outline = view(head_surface(face))
    low, high = outline.min(axis=0), outline.max(axis=0)
    center, radii = (low + high) / 2, (high - low) / 2 * 1.02
    x = (np.arange(size[0])[None] - center[0]) / radii[0]
    y = (np.arange(size[1])[:, None] - center[1]) / radii[1]
    r = np.sqrt(x * x + y * y)
    inside = np.minimum(1.0, 0.97 / np.maximum(r, 1e-6))
    x, y = x * inside, y * inside
    z = np.sqrt(1 - np.minimum(x * x + y * y, 0.97))
    lambert = np.maximum(x * face.light[0] + y * face.light[1] + z * face.light[2], 0)
    lit = face.ambient + (1.08 - face.ambient) * lambert
    return np.asarray(lit * np.asarray(_shadows(face, view, size), np.float32) / UNSHADED, np.float32)


def _shadows(face: Face, view: View, size: tuple[int, int]) -> Image.Image:
    """Return a layer that darkens or brightens the skin (see `UNSHADED`): eye sockets, nose, beard, folds."""
    factor = 2 if max(size) < LARGE_SIDE else 1
    layer = Image.new("L", (size[0] * factor, size[1] * factor), UNSHADED)
    paint = Brush(layer, view, factor)
    nose, base = nose_tip(face), EYE_LEVEL + face.nose_length
    lit_side = 1 if face.light[0] > 0 else -1
    if face.beard:
        across = np.linspace(-1, 1, 24)
        top = surface(face, across * 0.8 * face.width, base + 0.16 - 0.35 * np.abs(across) ** 3)
        low = surface(face, across[::-1] * 0.75 * face.width, 1.36 - 0.8 * np.abs(across) ** 2)
        paint(np.concatenate([top, low]), int(UNSHADED * (1 - face.beard)))
    for side in (1, -1):
        x, y = eye_curve(face, side, np.array(-0.15), -0.9)
        paint(ellipse(surface(face, x, y), 1.25 * face.eye_half_width, 0.13), 172)
        cheek = surface(face, np.array(side * 0.48), np.array(EYE_LEVEL + 0.42))
        paint(ellipse(cheek, 0.16, 0.12), 208)
        if face.smile > 0.25:
            fold = np.array([[0.2, 0.48], [0.34, 0.66], [0.37, 0.8], [0.33, 0.68]])
            paint(surface(face, side * fold[:, 0], EYE_LEVEL + fold[:, 1]), 165)
        flank = np.array([[0.05, 0.0], [face.nose_width, 0.06], [face.nose_width * 0.5, 0.1]])
        wall = surface(
            face, side * flank[:, 0], np.array([EYE_LEVEL + 0.02, base + 0.02, base + 0.09]), FEATURE_LIFT
        )
        ridge = surface(face, np.array(0.0), np.array(EYE_LEVEL), 0.1)
        paint(np.concatenate([wall, nose[None], ridge[None]]), 206 if side == lit_side else 150)
    under = surface(
        face, np.array([-1.1, 0.0, 1.1, 0.0]) * face.nose_width, base + np.array([0.06, 0.0, 0.06, 0.19])
    )
    paint(under + np.array([0, 0, 0.05]), 140)
    bridge = surface(
        face, np.array([-0.035, 0.035, 0.05, -0.05]), np.array([EYE_LEVEL, EYE_LEVEL, base, base])
    )
    paint(bridge + np.array([[0, 0, 0.1], [0, 0, 0.1], [0, 0, 0.22], [0, 0, 0.22]]), 216)
    paint(ellipse(nose, 0.06, 0.06), 255)
    chin = surface(
        face, np.array(0.0), np.array(EYE_LEVEL + MOUTH_DROP + 1.5 * face.lips + face.mouth_open + 0.05)
    )
    paint(ellipse(chin, 0.18, 0.04), 175)
    layer = layer.filter(ImageFilter.BoxBlur(0.05 * view.scale * factor))
    return layer.reduce(factor) if factor > 1 else layer


def _person(face: Face, view: View, size: tuple[int, int]) -> Image.Image:
    """Return the person without lighting, blur and background, as an RGBA image of `size`."""
    factor = OVERSAMPLE if max(size) < LARGE_SIDE else 2
    layer = Image.new("RGBA", (size[0] * factor, size[1] * factor))
    paint = Brush(layer, view, factor)
    _hair_and_skin(face, paint)
    for side in (1, -1):
        paint_eyeball(face, paint, side)
        _lids(face, paint, side)
        along = np.linspace(0, 1, 14)
        x, y = brow_curve(face, side, along)
        half = face.brow_thickness * 0.5 * (1 - 0.75 * along**1.5)
        _strip(face, paint, x, y - half, y + half, mix(face.hair, (0, 0, 0), 0.35))
    _nose(face, paint)
    _mouth(face, paint)
    if face.glasses:
        _glasses(face, paint)
    return layer.reduce(factor)


def _hair_and_skin(face: Face, paint: Brush) -> None:
    """Draw from back to front: long hair, body, short hair, ears, skin."""
    head, long_hair = head_surface(face), face.hair_style == "long"
    shade = mix(face.skin, (60, 25, 15), 0.15)
    if long_hair:
        mane = head[head[:, 2] < 0.3] * [1.22, 1.1, 1.15]
        paint.hull(
            np.concatenate([mane, mane * [1.05, 0.0, 0.6] + [0, 1.35, -0.2]]), mix(face.hair, (0, 0, 0), 0.3)
        )
    neck = np.array(
        [[-0.5, 0.7, -0.1], [0.5, 0.7, -0.1], [0.62, 1.7, -0.25], [0.0, 1.95, -0.1], [-0.62, 1.7, -0.25]]
    )
    shoulders = np.array(
        [
            [-0.55, 1.5],
            [-1.5, 1.85],
            [-2.1, 2.6],
            [-2.4, 9.0],
            [2.4, 9.0],
            [2.1, 2.6],
            [1.5, 1.85],
            [0.55, 1.5],
        ]
    )
    paint.upright(np.insert(shoulders, 2, -0.3, axis=1), face.clothing)
    paint.upright(neck, shade)
    cap = head[head[:, 1] < (0.5 if long_hair else 0.05)] * (1.09 if long_hair else 1.05)
    if face.hair_style == "short":
        paint.hull(cap, face.hair)
    if not long_hair:
        for side in (1, -1):
            paint(ellipse(np.array([side * face.width, EYE_LEVEL + 0.2, -0.05]), 0.1, 0.2), shade)
    front = (head[:, 2] > -0.1) & (head[:, 1] > face.hairline + face.hair_arch * head[:, 0] ** 2)
    if long_hair:
        paint.hull(cap, face.hair)
    paint.hull(head if face.hair_style == "bald" else head[front | (head[:, 1] > 0.2)], face.skin)


def _strip(face: Face, paint: Brush, x: Floats, upper: Floats, lower: Floats, color: Color) -> None:
    """Fill the area between two curves with the same x."""
    paint(
        np.concatenate([surface(face, x, upper, FEATURE_LIFT), surface(face, x, lower, FEATURE_LIFT)[::-1]]),
        color,
    )


def paint_eyeball(face: Face, paint: Brush, side: int) -> None:
    """Draw white, iris and pupil of the subject's left (1) or right (-1) eye, clipped by the lids."""
    along = np.linspace(-1, 1, 21)
    x, upper = eye_curve(face, side, along, -1.0)
    _, lower = eye_curve(face, side, along, 1.0)
    _strip(face, paint, x, upper, lower, mix((238, 234, 230), face.skin, 0.12))
    center_x, center_y = eye_curve(face, side, np.array(0.0), 0.0)
    for radius, color in ((0.088, face.iris), (0.042, (12, 10, 10))):
        ring_x = center_x + radius * CIRCLE[:, 0]
        position = side * (ring_x - center_x) / face.eye_half_width
        # clipped to the opening between the lids
        top, bottom = (eye_curve(face, side, position, lid)[1] for lid in (-1.0, 1.0))
        ring_y = np.clip(center_y + radius * CIRCLE[:, 1], top, bottom)
        paint(surface(face, ring_x, ring_y, FEATURE_LIFT), color)


def _lids(face: Face, paint: Brush, side: int) -> None:
    """Draw the dark edge of the upper lid, the lighter edge of the lower lid, and the crease above."""
    along = np.linspace(-1, 1, 21)
    x, upper = eye_curve(face, side, along, -1.0)
    _, lower = eye_curve(face, side, along, 1.0)
    dark = mix(face.skin, (30, 12, 8), 0.75)
    _strip(face, paint, x, upper - 0.034, upper + 0.006, dark)
    _strip(face, paint, x, lower - 0.004, lower + 0.012, mix(face.skin, dark, 0.5))
    crease = upper - 0.055 - 0.02 * (1 - along**2)
    _strip(face, paint, x, crease - 0.014, crease, mix(face.skin, dark, 0.35))


def _nose(face: Face, paint: Brush) -> None:
    """Draw the nostrils below the tip and the wings next to it; light and shadow are in `_shadows`."""
    tip = nose_tip(face)
    for side in (1, -1):
        nostril = tip + np.array([side * 0.5 * face.nose_width, 0.1, -0.55 * face.nose_height])
        paint(ellipse(nostril, 0.3 * face.nose_width, 0.028), mix(face.skin, (35, 10, 8), 0.7))
        wing = np.array(
            [
                [0.8, 0.11, -0.6],
                [1.02, 0.06, -0.75],
                [1.0, -0.03, -0.8],
                [0.94, -0.02, -0.8],
                [0.95, 0.05, -0.75],
            ]
        )
        paint(
            tip + wing * [side * face.nose_width, 1.0, face.nose_height], mix(face.skin, (50, 20, 10), 0.45)
        )


def _mouth(face: Face, paint: Brush) -> None:
    """Draw the lips, and between them a line or, in an open mouth, a dark area and the upper teeth."""
    along = np.linspace(-1, 1, 25)
    edges = {edge: mouth_curve(face, along, edge) for edge in (-1.0, -0.5, 0.5, 1.0)}
    red = mix(face.skin, (165, 50, 55), face.lip_red)
    dark = mix(face.skin, (40, 8, 8), 0.8)
    paint(np.concatenate([edges[-1.0], edges[-0.5][::-1]]), mix(red, (40, 10, 10), 0.22))
    paint(np.concatenate([edges[0.5], edges[1.0][::-1]]), mix(red, (255, 255, 255), 0.06))
    seam = np.concatenate([edges[-0.5] - np.array([0, 0.008, 0]), edges[0.5][::-1] + np.array([0, 0.014, 0])])
    paint(seam, (45, 14, 16) if face.mouth_open else dark)
    if face.mouth_open > 0.05:
        inner = slice(3, -3)
        lower = edges[-0.5][inner] + 0.38 * (edges[0.5] - edges[-0.5])[inner]
        paint(np.concatenate([edges[-0.5][inner], lower[::-1]]), (226, 220, 210))


def _glasses(face: Face, paint: Brush) -> None:
    """Draw thin dark rims in front of the eyes, their temples and the bridge."""
    for side in (1, -1):
        center = surface(face, np.array(side * face.eye_spread), np.array(EYE_LEVEL + 0.02), 0.12)
        rim = ellipse(center, 0.27, 0.2)
        paint.outline(rim, 0.03, GLASSES_COLOR)
        hinge = np.array([side * face.width * 1.02, EYE_LEVEL - 0.02, 0.0])
        paint.outline(
            np.stack([center + np.array([side * 0.26, -0.03, 0]), hinge]), 0.03, GLASSES_COLOR, closed=False
        )
    bridge = surface(face, np.array([-0.1, 0.1]), np.array([EYE_LEVEL, EYE_LEVEL]), 0.14)
    paint.outline(bridge, 0.03, GLASSES_COLOR, closed=False)


class Brush:
    """Draws shapes given in head coordinates on a layer that is `factor` times as large as the image."""

    def __init__(self, layer: Image.Image, view: View, factor: int) -> None:
        self.layer, self.pen, self.view, self.factor = layer, ImageDraw.Draw(layer), view, factor

    def _pixels(self, shape: Floats) -> list[tuple[float, float]]:
        # With k = factor, pixel x of the image is the mean of the layer's pixels k x … k x + k - 1, so its
        # center is at k x + (k - 1) / 2. Pillow truncates the coordinates of a polygon; adding another 0.5
        # rounds them instead.
        return [(x, y) for x, y in (self.view(shape) * self.factor + self.factor / 2).tolist()]

    def __call__(self, shape: Floats, color: Color | int) -> None:
        """Fill a polygon with (n, 3) vertices."""
        self.pen.polygon(self._pixels(shape), fill=color)

    def upright(self, shape: Floats, color: Color) -> None:
        """Fill a polygon with (n, 3) vertices of the body, which does not rotate with the head."""
        Brush(self.layer, self.view.upright, self.factor)(shape, color)

    def hull(self, points: Floats, color: Color) -> None:
        """Fill the outline of a convex body, given (n, 3) points of its surface."""
        self(points[_hull_indices(self.view(points))], color)

    def outline(self, shape: Floats, width: float, color: Color, closed: bool = True) -> None:
        """Draw a line of `width` head units through (n, 3) points."""
        pixels = self._pixels(shape)
        self.pen.line(
            pixels + pixels[:1] if closed else pixels,
            fill=color,
            width=max(1, round(width * self.view.scale * self.factor)),
        )
