"""A simple 3-D head: where its 15 points lie, and how to paint it under a pose and a light.

Knows nothing about chance or tables: `synthetic.py` chooses the faces and collects them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]

# One head unit is about 9 cm. Head coordinates: x to the subject's left (right in the image), y down, z
# towards the viewer; the origin is the middle of the head, between the temples and a little below the eyes.
HEAD_HALF_HEIGHT = 1.27
HEAD_HALF_DEPTH = 0.95
EYE_LEVEL = -0.10
FEATURE_LIFT = 0.03  # brows and eyes are painted so far above the skin
DIRECTIONS = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 64, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 64, endpoint=False)),
    ],
    axis=1,
)
CIRCLE = DIRECTIONS[::2]
OVERSAMPLE = 4  # faces are drawn so many times larger and averaged down


@dataclass(frozen=True)
class Face:
    """One face: who it is, what it shows, how it is lit. Lengths in head units."""

    skin: Colour
    hair: Colour
    iris: Colour
    cloth: Colour
    width: float  # half the head's width
    jaw: float  # 0 round … 0.4 pointed
    eye_spread: float  # half the distance between the eyes' centres
    eye_half_width: float
    eye_open: float
    eye_slant: float
    brow_lift: float
    brow_arch: float
    brow_tilt: float  # inner end up (worried) or down (angry)
    brow_thickness: float
    nose_length: float
    nose_width: float
    nose_height: float
    mouth_half_width: float
    mouth_open: float
    smile: float
    lips: float
    lip_red: float
    hair_style: str  # "bald", "short" or "long"
    hairline: float
    hair_arch: float  # how far the hairline falls to the sides
    beard: float
    glasses: bool
    light: tuple[float, float, float]  # unit vector towards the light
    ambient: float
    exposure: float
    blur: float  # of the finished image, parts of the distance between the eyes
    noise: float  # standard deviation in gray levels


@dataclass(frozen=True)
class View:
    """Weak perspective: turn the head, scale it, put its origin at `centre` (pixels)."""

    rotation: Floats  # (3, 3)
    scale: float  # pixels a head unit
    centre: tuple[float, float]

    def __call__(self, points: Floats) -> Floats:
        """(…, 3) head coordinates to (…, 2) pixels, x then y."""
        seen: Floats = points @ (self.rotation[:2].T * self.scale) + self.centre
        return seen

    @property
    def upright(self) -> View:
        """The same view of a head that faces the viewer."""
        return View(np.eye(3), self.scale, self.centre)


def _surface(face: Face, x: Floats, y: Floats, lift: Floats | float = 0.0) -> Floats:
    """Put (x, y) of the frontal view onto the head, `lift` above its skin: (…, 3)."""
    head = np.empty((*np.shape(x + y), 3))
    left = 1 - (x / (face.width * 1.08)) ** 2 - (y / (HEAD_HALF_HEIGHT * 1.15)) ** 2
    head[..., 0], head[..., 1] = x, y
    head[..., 2] = HEAD_HALF_DEPTH * np.sqrt(np.maximum(left, 0.02)) + lift
    return head


def landmarks(face: Face) -> Floats:
    """(15, 3) head coordinates in the order of `KAGGLE15`."""
    left, right = (_eye_curve(face, side, np.array([0.0, -1.0, 1.0]), 0.0) for side in (1, -1))
    brows = (_brow_curve(face, side, np.array([0.0, 1.0])) for side in (1, -1))
    flat = np.concatenate([np.stack(curve, axis=1) for curve in (left, right, *brows)])
    flat = flat[[0, 3, 1, 2, 4, 5, 6, 7, 8, 9]]  # both centres come before the corners
    return np.concatenate(
        [
            _surface(face, flat[:, 0], flat[:, 1], FEATURE_LIFT),
            _nose_tip(face)[None],
            _mouth_curve(face, np.array([1.0, -1.0]), 0.0),
            _mouth_curve(face, np.array([0.0]), -1.0),
            _mouth_curve(face, np.array([0.0]), 1.0),
        ]
    )


def _eye_curve(face: Face, side: int, along: Floats, lid: Floats | float) -> tuple[Floats, Floats]:
    """Frontal (x, y): `along` from -1 (inner corner) to 1 (outer); `lid` -1 upper, 0 middle, 1 lower."""
    height = 0.088 * face.eye_open * np.where(np.asarray(lid) < 0, 1.0, 0.85)
    x = side * (face.eye_spread + face.eye_half_width * along)
    y = EYE_LEVEL - face.eye_slant * along + lid * height * (1 - np.abs(along) ** 2.2)
    return x, y


def _brow_curve(face: Face, side: int, along: Floats) -> tuple[Floats, Floats]:
    """Frontal (x, y) of the brow's middle line, `along` from 0 (inner end) to 1 (outer end)."""
    x = side * (face.eye_spread + 1.35 * face.eye_half_width * (2.1 * along - 1.0))
    arch = face.brow_arch * np.sin(np.pi * along**1.3)
    y = EYE_LEVEL - face.brow_lift - face.brow_tilt * (1 - along) - arch + 0.04 * along
    return x, y


def _mouth_curve(face: Face, along: Floats, edge: float) -> Floats:
    """Head coordinates (…, 3): `along` from -1 (subject's right corner) to 1 (left).

    `edge` is -1 for the upper lip's upper edge, -0.5 its lower edge, 0.5 the lower lip's upper edge, 1 its
    lower edge and 0 the line on which the lips meet when closed. All edges meet in the corners.
    """
    bulge = 1 - along**2
    y = EYE_LEVEL + 0.77 - 0.08 * face.smile * along**2
    if edge == -1:
        bow = 1 - np.abs(along) ** 1.6 - 0.28 * np.exp(-((along / 0.16) ** 2))
        y = y - face.lips * bow - 0.15 * face.mouth_open * bulge
    elif edge == -0.5:
        y = y - 0.15 * face.mouth_open * bulge
    elif edge > 0:
        y = y + face.mouth_open * bulge + (1.25 * face.lips * bulge**0.8 if edge == 1 else 0.0)
    return _surface(face, along * face.mouth_half_width, y, lift=0.05 * bulge)


def _nose_tip(face: Face) -> Floats:
    return _surface(face, np.array(0.0), np.array(EYE_LEVEL + face.nose_length), lift=face.nose_height)


def _head(face: Face) -> Floats:
    """(n, 3) points all over the head; the hull of their images is its outline."""
    t = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 19))[:, None]
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)[None]
    ring = np.sqrt(np.maximum(1 - np.abs(t) ** 2.4, 0)) * (1 - face.jaw * np.maximum(t, 0) ** 1.5)
    y = t * HEAD_HALF_HEIGHT + face.mouth_open * 0.6 * np.maximum(t - 0.3, 0)
    x, z = face.width * ring * np.cos(angle), HEAD_HALF_DEPTH * ring * np.sin(angle)
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).reshape(-1, 3)


def _hull_corners(seen: Floats) -> NDArray[np.int64]:
    """Rows of (n, 2) points on their convex hull: the farthest point in each of 72 directions."""
    return np.asarray(np.argmax(seen @ DIRECTIONS.T, axis=0), np.int64)


def _ellipse(centre: Floats, radius_x: float, radius_y: float) -> Floats:
    """(32, 3): a small ellipse round `centre` that faces the viewer's side of the head."""
    ring = np.zeros((len(CIRCLE), 3))
    ring[:, :2] = CIRCLE * [radius_x, radius_y]
    return ring + centre


def mix(first: Colour, second: Colour, part: float) -> Colour:
    """Return the colour that lies `part` (0 to 1) of the way from the first to the second."""
    r, g, b = (round(p + (q - p) * part) for p, q in zip(first, second, strict=True))
    return r, g, b


def jitter(colour: Colour, rng: np.random.Generator, spread: float) -> Colour:
    """Return a colour near to `colour`, each channel up to `spread` away."""
    r, g, b = (int(np.clip(c + rng.uniform(-spread, spread), 0, 255)) for c in colour)
    return r, g, b


def draw(face: Face, view: View, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Paint person over background, light both, then blur and noise: an RGB picture of `size`."""
    pixels: NDArray[np.float32] = np.asarray(_background(size, rng), np.float32)
    person = np.asarray(_person(face, view, size), np.float32)
    alpha = person[..., 3:] / 255
    light = _light(face, view, size)[..., None]
    pixels = np.asarray(pixels * (1 - alpha) + person[..., :3] * light * alpha, np.float32)
    picture = Image.fromarray(np.clip(pixels * face.exposure, 0, 255).astype(np.uint8))
    # a touch of blur always: no lens draws polygons
    radius = max(0.35, (0.008 + face.blur) * 2 * face.eye_spread * view.scale)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    grain = rng.standard_normal((size[1], size[0], 1), np.float32) * face.noise
    return Image.fromarray(np.clip(pixels + grain + 0.5, 0, 255).astype(np.uint8))


def _background(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Soft clouds of colour with a few straight-edged things in front."""
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


def _light(face: Face, view: View, size: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) brightness: Lambert's law on an ellipsoid, times the soft shadows of the features."""
    outline = view(_head(face))
    middle, radii = (outline.min(0) + outline.max(0)) / 2, (outline.max(0) - outline.min(0)) / 2 * 1.02
    x = (np.arange(size[0])[None] - middle[0]) / radii[0]
    y = (np.arange(size[1])[:, None] - middle[1]) / radii[1]
    r = np.sqrt(x * x + y * y)
    inside = np.minimum(1.0, 0.97 / np.maximum(r, 1e-6))
    x, y = x * inside, y * inside
    z = np.sqrt(1 - np.minimum(x * x + y * y, 0.97))
    lambert = np.maximum(x * face.light[0] + y * face.light[1] + z * face.light[2], 0)
    lit = face.ambient + (1.08 - face.ambient) * lambert
    return np.asarray(lit * np.asarray(_shadows(face, view, size), np.float32) / 200, np.float32)


def _shadows(face: Face, view: View, size: tuple[int, int]) -> Image.Image:
    """Soft features that darken (below 200) or brighten (above) the skin: sockets, nose, beard, folds."""
    k = 2 if max(size) < 256 else 1
    layer = Image.new("L", (size[0] * k, size[1] * k), 200)
    paint = Brush(layer, view, k)
    nose, base = _nose_tip(face), EYE_LEVEL + face.nose_length
    toward = 1 if face.light[0] > 0 else -1
    if face.beard:
        across = np.linspace(-1, 1, 24)
        top = _surface(face, across * 0.8 * face.width, base + 0.16 - 0.35 * np.abs(across) ** 3)
        low = _surface(face, across[::-1] * 0.75 * face.width, 1.36 - 0.8 * np.abs(across) ** 2)
        paint(np.concatenate([top, low]), int(200 * (1 - face.beard)))
    for side in (1, -1):
        x, y = _eye_curve(face, side, np.array(-0.15), -0.9)
        paint(_ellipse(_surface(face, x, y), 1.25 * face.eye_half_width, 0.13), 172)
        cheek = _surface(face, np.array(side * 0.48), np.array(EYE_LEVEL + 0.42))
        paint(_ellipse(cheek, 0.16, 0.12), 208)
        if face.smile > 0.25:
            fold = np.array([[0.2, 0.48], [0.34, 0.66], [0.37, 0.8], [0.33, 0.68]])
            paint(_surface(face, side * fold[:, 0], EYE_LEVEL + fold[:, 1]), 165)
        flank = np.array([[0.05, 0.0], [face.nose_width, 0.06], [face.nose_width * 0.5, 0.1]])
        wall = _surface(
            face, side * flank[:, 0], np.array([EYE_LEVEL + 0.02, base + 0.02, base + 0.09]), FEATURE_LIFT
        )
        ridge = _surface(face, np.array(0.0), np.array(EYE_LEVEL), 0.1)
        paint(np.concatenate([wall, nose[None], ridge[None]]), 206 if side == toward else 150)
    under = _surface(
        face, np.array([-1.1, 0.0, 1.1, 0.0]) * face.nose_width, base + np.array([0.06, 0.0, 0.06, 0.19])
    )
    paint(under + np.array([0, 0, 0.05]), 140)
    bridge = _surface(
        face, np.array([-0.035, 0.035, 0.05, -0.05]), np.array([EYE_LEVEL, EYE_LEVEL, base, base])
    )
    paint(bridge + np.array([[0, 0, 0.1], [0, 0, 0.1], [0, 0, 0.22], [0, 0, 0.22]]), 216)
    paint(_ellipse(nose, 0.06, 0.06), 255)
    chin = _surface(
        face, np.array(0.0), np.array(EYE_LEVEL + 0.77 + 1.5 * face.lips + face.mouth_open + 0.05)
    )
    paint(_ellipse(chin, 0.18, 0.04), 175)
    layer = layer.filter(ImageFilter.BoxBlur(0.05 * view.scale * k))
    return layer.reduce(k) if k > 1 else layer


def _person(face: Face, view: View, size: tuple[int, int]) -> Image.Image:
    """Everything with edges, unlit, on nothing: an RGBA picture of `size`."""
    k = OVERSAMPLE if max(size) < 256 else 2
    layer = Image.new("RGBA", (size[0] * k, size[1] * k))
    paint = Brush(layer, view, k)
    _hair_and_skin(face, paint)
    for side in (1, -1):
        paint_eyeball(face, paint, side)
        _lids(face, paint, side)
        along = np.linspace(0, 1, 14)
        x, y = _brow_curve(face, side, along)
        half = face.brow_thickness * 0.5 * (1 - 0.75 * along**1.5)
        _strip(face, paint, x, y - half, y + half, mix(face.hair, (0, 0, 0), 0.35))
    _nose(face, paint)
    _mouth(face, paint)
    if face.glasses:
        _glasses(face, paint)
    return layer.reduce(k)


def _hair_and_skin(face: Face, paint: Brush) -> None:
    """Paint from the back to the front: long hair, body, short hair, ears, skin."""
    head, long_hair = _head(face), face.hair_style == "long"
    shade = mix(face.skin, (60, 25, 15), 0.15)
    if long_hair:
        mane = head[head[:, 2] < 0.3] * [1.22, 1.1, 1.15]
        paint.hull(
            np.concatenate([mane, mane * [1.05, 0.0, 0.6] + [0, 1.35, -0.2]]), mix(face.hair, (0, 0, 0), 0.3)
        )
    neck = np.array(
        [[-0.5, 0.7, -0.1], [0.5, 0.7, -0.1], [0.62, 1.7, -0.25], [0.0, 1.95, -0.1], [-0.62, 1.7, -0.25]]
    )
    slope = np.array(
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
    paint.upright(np.insert(slope, 2, -0.3, axis=1), face.cloth)
    paint.upright(neck, shade)
    cap = head[head[:, 1] < (0.5 if long_hair else 0.05)] * (1.09 if long_hair else 1.05)
    if face.hair_style == "short":
        paint.hull(cap, face.hair)
    if not long_hair:
        for side in (1, -1):
            paint(_ellipse(np.array([side * face.width, EYE_LEVEL + 0.2, -0.05]), 0.1, 0.2), shade)
    front = (head[:, 2] > -0.1) & (head[:, 1] > face.hairline + face.hair_arch * head[:, 0] ** 2)
    if long_hair:
        paint.hull(cap, face.hair)
    paint.hull(head if face.hair_style == "bald" else head[front | (head[:, 1] > 0.2)], face.skin)


def _strip(face: Face, paint: Brush, x: Floats, upper: Floats, lower: Floats, colour: Colour) -> None:
    """Fill what lies between two curves over the same x."""
    paint(
        np.concatenate(
            [_surface(face, x, upper, FEATURE_LIFT), _surface(face, x, lower, FEATURE_LIFT)[::-1]]
        ),
        colour,
    )


def paint_eyeball(face: Face, paint: Brush, side: int) -> None:
    """White, iris and pupil of the subject's left (1) or right (-1) eye, cut by the lids."""
    along = np.linspace(-1, 1, 21)
    x, upper = _eye_curve(face, side, along, -1.0)
    _, lower = _eye_curve(face, side, along, 1.0)
    _strip(face, paint, x, upper, lower, mix((238, 234, 230), face.skin, 0.12))
    middle_x, middle_y = _eye_curve(face, side, np.array(0.0), 0.0)
    for radius, colour in ((0.088, face.iris), (0.042, (12, 10, 10))):
        ball_x = middle_x + radius * CIRCLE[:, 0]
        place = side * (ball_x - middle_x) / face.eye_half_width
        # the outline may not leave the opening between the lids
        top, bottom = (_eye_curve(face, side, place, lid)[1] for lid in (-1.0, 1.0))
        ball_y = np.clip(middle_y + radius * CIRCLE[:, 1], top, bottom)
        paint(_surface(face, ball_x, ball_y, FEATURE_LIFT), colour)


def _lids(face: Face, paint: Brush, side: int) -> None:
    """Dark edge of the upper lid, a lighter one of the lower, and the crease above."""
    along = np.linspace(-1, 1, 21)
    x, upper = _eye_curve(face, side, along, -1.0)
    _, lower = _eye_curve(face, side, along, 1.0)
    dark = mix(face.skin, (30, 12, 8), 0.75)
    _strip(face, paint, x, upper - 0.034, upper + 0.006, dark)
    _strip(face, paint, x, lower - 0.004, lower + 0.012, mix(face.skin, dark, 0.5))
    crease = upper - 0.055 - 0.02 * (1 - along**2)
    _strip(face, paint, x, crease - 0.014, crease, mix(face.skin, dark, 0.35))


def _nose(face: Face, paint: Brush) -> None:
    """Nostrils below the tip, wings beside it; its light and shadow are in `_shadows`."""
    tip = _nose_tip(face)
    for side in (1, -1):
        nostril = tip + np.array([side * 0.5 * face.nose_width, 0.1, -0.55 * face.nose_height])
        paint(_ellipse(nostril, 0.3 * face.nose_width, 0.028), mix(face.skin, (35, 10, 8), 0.7))
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
    """Lips, and between them a line or, in an open mouth, the dark and the upper teeth."""
    along = np.linspace(-1, 1, 25)
    edges = {edge: _mouth_curve(face, along, edge) for edge in (-1.0, -0.5, 0.5, 1.0)}
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
    """Thin dark frames a little before the eyes."""
    for side in (1, -1):
        middle = _surface(face, np.array(side * face.eye_spread), np.array(EYE_LEVEL + 0.02), 0.12)
        rim = _ellipse(middle, 0.27, 0.2)
        paint.outline(rim, 0.03, (30, 28, 30))
        hinge = np.array([side * face.width * 1.02, EYE_LEVEL - 0.02, 0.0])
        paint.outline(
            np.stack([middle + np.array([side * 0.26, -0.03, 0]), hinge]), 0.03, (30, 28, 30), closed=False
        )
    bridge = _surface(face, np.array([-0.1, 0.1]), np.array([EYE_LEVEL, EYE_LEVEL]), 0.14)
    paint.outline(bridge, 0.03, (30, 28, 30), closed=False)


class Brush:
    """Fills shapes given in head coordinates on a layer that is `k` times larger than the picture."""

    def __init__(self, layer: Image.Image, view: View, k: int) -> None:
        self.layer, self.pen, self.view, self.k = layer, ImageDraw.Draw(layer), view, k

    def _pixels(self, shape: Floats) -> list[tuple[float, float]]:
        # Pixel x of the picture is the mean of the layer's pixels k x … k x + k - 1, so its centre lies at
        # k x + (k - 1) / 2. Pillow cuts the fraction of a polygon's corners off: half a pixel more rounds it.
        return [(x, y) for x, y in (self.view(shape) * self.k + self.k / 2).tolist()]

    def __call__(self, shape: Floats, colour: Colour | int) -> None:
        """Fill a polygon, (n, 3)."""
        self.pen.polygon(self._pixels(shape), fill=colour)

    def upright(self, shape: Floats, colour: Colour) -> None:
        """Fill a polygon, (n, 3), of the body, which does not turn with the head."""
        Brush(self.layer, self.view.upright, self.k)(shape, colour)

    def hull(self, points: Floats, colour: Colour) -> None:
        """Fill the outline of a solid of which `points`, (n, 3), are the surface."""
        self(points[_hull_corners(self.view(points))], colour)

    def outline(self, shape: Floats, width: float, colour: Colour, closed: bool = True) -> None:
        """Draw a line of `width` head units along (n, 3) points."""
        pixels = self._pixels(shape)
        self.pen.line(
            pixels + pixels[:1] if closed else pixels,
            fill=colour,
            width=max(1, round(width * self.view.scale * self.k)),
        )
