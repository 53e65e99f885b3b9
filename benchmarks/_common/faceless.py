"""200 pictures without a face: photos that come with Python packages, varied, and drawn pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from _common.teapots import draw_teapot_photo

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]
Draw = Callable[[np.random.Generator], Picture]

WIDTH, HEIGHT = 480, 360


@dataclass(frozen=True, eq=False)
class FacelessPicture:
    """A picture in which a face detector must find nothing.

    Parameters
    ----------
    kind
        textures, scenery, text, drawings, animals or patches.
    source
        The photo that it was made from, or a name of its own if it was drawn.
    drawn
        Whether it was drawn.
    image
        (H, W, 3) uint8.
    """

    kind: str
    source: str
    drawn: bool
    image: Picture


PHOTOS: dict[str, tuple[int, tuple[str, ...]]] = {
    "textures": (
        3,
        (
            "skimage/data/brick.png",
            "skimage/data/cell.png",
            "skimage/data/grass.png",
            "skimage/data/gravel.png",
            "skimage/data/hubble_deep_field.jpg",
            "skimage/data/ihc.png",
            "skimage/data/microaneurysms.png",
            "skimage/data/moon.png",
            "skimage/data/retina.jpg",
        ),
    ),
    "scenery": (
        4,
        (
            "gradio/media_assets/images/tower.jpg",
            "skimage/data/clock_motion.png",
            "skimage/data/coffee.png",
            "skimage/data/motorcycle_left.png",
            "skimage/data/rocket.jpg",
            "sklearn/datasets/images/china.jpg",
            "sklearn/datasets/images/flower.jpg",
        ),
    ),
    "text": (5, ("skimage/data/page.png", "skimage/data/text.png")),
    "drawings": (
        3,
        (
            "matplotlib/mpl-data/sample_data/logo2.png",
            "skimage/data/color.png",
            "skimage/data/horse.png",
            "skimage/data/logo.png",
            "skimage/data/phantom.png",
        ),
    ),
    "animals": (
        6,
        (
            "gradio/media_assets/images/cheetah.jpg",
            "gradio/media_assets/images/cheetah1.jpg",
            "gradio/media_assets/images/lion.jpg",
            "gradio/test_data/cheetah2.jpg",
            "skimage/data/chelsea.png",
        ),
    ),
}
"""Number of variants of each photo, and the photos of each kind. Left out, because they show a face or
something like one: the astronaut, the cameraman, ancient coins with heads, and an emoji."""

PATCHES = 20
"""Number of patches of 25 x 25 px without a face in skimage's subset of Labeled Faces in the Wild."""


def faceless_pictures() -> Iterator[FacelessPicture]:
    """Yield the 200 pictures, the same in every run.

    Raises
    ------
    SystemExit
        If a package that a photo comes with is not installed.
    """
    for kind, (variants, names) in PHOTOS.items():
        for name, variant in product(names, range(variants)):
            photo = Image.open(_packaged_file(name)).convert("RGBA")
            white = Image.new("RGBA", photo.size, "white")
            image = np.asarray(Image.alpha_composite(white, photo).convert("RGB"))
            rng = np.random.default_rng([variant, len(name), *name.encode()])
            yield FacelessPicture(kind, name, False, _vary(image, rng) if variant else image)
    for kind, count, draw in DRAWN:
        for index in range(count):
            name = f"{draw.__name__.removeprefix('_draw_')} {index}"
            image = draw(np.random.default_rng([index, *name.encode()]))
            yield FacelessPicture(kind, name, True, image)
    patches = np.load(_packaged_file("skimage/data/lfw_subset.npy"))[-PATCHES:]  # the second half has no face
    for index, patch in enumerate(patches):
        gray = Image.fromarray((255 * patch / patch.max()).astype(np.uint8))
        enlarged = gray.resize((200, 200), Image.Resampling.BICUBIC).convert("RGB")
        yield FacelessPicture("patches", f"patch {index}", False, np.asarray(enlarged))


def _packaged_file(name: str) -> Path:
    """Return a file of an installed package."""
    package, _, rest = name.partition("/")
    spec = find_spec(package)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / rest
    if path is None or not path.is_file():
        raise SystemExit(
            f"{name}: not installed; pip install scikit-image scikit-learn, and the extra web of this project"
        )
    return path


def _vary(image: Picture, rng: np.random.Generator) -> Picture:
    """Return a part of a photo, at another size, possibly mirrored, in other colors or gray."""
    height, width = image.shape[:2]
    rows, columns = (round(length * rng.uniform(0.5, 1.0)) for length in (height, width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    part = image[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    colors = part[..., rng.permutation(3)] * rng.uniform(0.6, 1.2) + rng.uniform(-20, 20)
    if rng.random() < 0.3:
        colors = np.repeat(colors.mean(axis=2, keepdims=True), 3, axis=2)
    scale = rng.uniform(200, 640) / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    varied = Image.fromarray(colors.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(varied)


# --- drawn pictures ------------------------------------------------------------------------------


def _draw_texture(rng: np.random.Generator) -> Picture:
    """Draw smooth noise of a random scale, stripes, or cells around random points."""
    kind = int(rng.integers(3))
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    if kind == 0:
        grid = int(rng.integers(4, 90))
        small = Image.fromarray(rng.integers(0, 256, (grid, grid, 3), dtype=np.uint8))
        return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    if kind == 1:
        angle, period = rng.uniform(0, math.pi), rng.uniform(6, 60)
        phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period)
        waves = np.sin(phase) * np.sin(phase * rng.uniform(0.2, 2) + y / rng.uniform(5, 40))
        return _blend((waves + 1) / 2, _color(rng), _color(rng))
    centers = rng.uniform(0, 1, (int(rng.integers(20, 120)), 2)) * (WIDTH, HEIGHT)
    distances = np.hypot(x[..., None] - centers[:, 0], y[..., None] - centers[:, 1])
    distances.sort(axis=2)
    edges = (distances[..., 1] - distances[..., 0]).clip(0, 12) / 12
    return _blend(edges, _color(rng), _color(rng))


def _draw_landscape(rng: np.random.Generator) -> Picture:
    """Draw a sky, a sun, ridges and houses with lit windows."""
    sky = np.linspace(0, 1, HEIGHT)[:, None].repeat(WIDTH, axis=1)
    canvas = Image.fromarray(_blend(sky, _color(rng), _color(rng)))
    draw = ImageDraw.Draw(canvas)
    x, y, radius = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT / 2), rng.uniform(10, 40)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_color(rng))
    for level in (0.45, 0.6, 0.75):
        steps = np.cumsum(rng.normal(0, 0.02, WIDTH // 8 + 1)) + level
        ridge = [(8.0 * index, HEIGHT * float(height)) for index, height in enumerate(steps)]
        draw.polygon([*ridge, (WIDTH, HEIGHT), (0, HEIGHT)], fill=_color(rng))
    for _ in range(int(rng.integers(0, 5))):
        left, width, height = rng.uniform(0, WIDTH - 60), rng.uniform(30, 90), rng.uniform(40, 160)
        draw.rectangle((left, HEIGHT - height, left + width, HEIGHT), fill=_color(rng))
        window = _color(rng)
        for row, column in product(range(int(height // 25)), range(int(width // 20))):
            corner = left + 6 + 20 * column, HEIGHT - height + 8 + 25 * row
            draw.rectangle((*corner, corner[0] + 9, corner[1] + 12), fill=window)
    return _with_noise(canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5))), rng)


def _draw_page(rng: np.random.Generator) -> Picture:
    """Draw lines of random words in one of matplotlib's fonts."""
    folder = _packaged_file("matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf").parent
    fonts = [path for path in sorted(folder.glob("DejaVu*.ttf")) if "Display" not in path.name]
    paper, ink = (255, 255, 255), (20, 20, 20)
    if rng.random() < 0.4:
        paper, ink = _color(rng), _color(rng)
    canvas = Image.new("RGB", (WIDTH, HEIGHT), paper)
    draw = ImageDraw.Draw(canvas)
    size = int(rng.integers(9, 72))
    font = ImageFont.truetype(fonts[int(rng.integers(len(fonts)))], size)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:;()8&@oO"))
    for top in range(5, HEIGHT, round(1.3 * size)):
        words = ["".join(rng.choice(letters, int(rng.integers(1, 11)))) for _ in range(25)]
        draw.text((10, top), " ".join(words), fill=ink, font=font)
    rotated = canvas.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR, fillcolor=paper)
    return _with_noise(rotated, rng)


def _draw_shapes(rng: np.random.Generator) -> Picture:
    """Draw circles, rings, rectangles and lines, as in logos and diagrams; two like eyes are likely."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), _color(rng))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(6, 40))):
        x, y, radius = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(5, 70)
        box = (x - radius, y - radius * rng.uniform(0.3, 1), x + radius, y + radius)
        kind = int(rng.integers(4))
        if kind == 0:
            draw.ellipse(box, fill=_color(rng))
        elif kind == 1:
            draw.ellipse(box, outline=_color(rng), width=int(rng.integers(1, 12)))
        elif kind == 2:
            draw.rectangle(box, fill=_color(rng))
        else:
            draw.line(box, fill=_color(rng), width=int(rng.integers(1, 12)))
    return np.asarray(canvas)


def _draw_teapot(rng: np.random.Generator) -> Picture:
    """Draw a teapot in front of clutter."""
    return draw_teapot_photo(rng, rng.uniform(0.3, 0.9)).image


def _draw_dog(rng: np.random.Generator) -> Picture:
    """Draw the head of a dog: ears, eyes, a muzzle with a nose, and a tongue, in front of a texture."""
    canvas = Image.fromarray(_draw_texture(rng)).resize((2 * WIDTH, 2 * HEIGHT))
    layer = Image.new("RGBA", canvas.size)
    draw = ImageDraw.Draw(layer)
    size = HEIGHT * rng.uniform(0.4, 0.95)
    x, y = WIDTH + rng.uniform(-80, 80), HEIGHT + rng.uniform(-40, 40)
    fur, dark, muzzle = _color(rng), _color(rng), _color(rng)

    def ellipse(dx: float, dy: float, width: float, height: float, color: Color) -> None:
        left, top = x + size * (dx - width), y + size * (dy - height)
        draw.ellipse((left, top, left + 2 * size * width, top + 2 * size * height), fill=color)

    ear, eye = rng.uniform(0.3, 0.55), rng.uniform(0.18, 0.3)
    for side in (-1, 1):
        ellipse(side * 0.62, rng.uniform(-0.3, 0.1), 0.22, ear, dark)
    ellipse(0, 0, 0.6, 0.7, fur)
    for side in (-1, 1):
        ellipse(side * eye, -0.15, 0.1, 0.1, (245, 245, 240))
        ellipse(side * eye, -0.14, 0.065, 0.075, (40, 25, 15))
        ellipse(side * eye + 0.02, -0.17, 0.02, 0.02, (255, 255, 255))
    ellipse(0, 0.3, 0.32, 0.3, muzzle)
    if rng.random() < 0.5:
        ellipse(0, 0.6, 0.1, 0.16, (220, 110, 120))
    ellipse(0, 0.16, 0.13, 0.09, (25, 20, 20))
    rotated = layer.rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC, center=(x, y))
    canvas.paste(rotated, (0, 0), rotated)
    return _with_noise(canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), rng)


DRAWN: tuple[tuple[str, int, Draw], ...] = (
    ("textures", 8, _draw_texture),
    ("scenery", 7, _draw_landscape),
    ("text", 20, _draw_page),
    ("drawings", 10, _draw_shapes),
    ("drawings", 5, _draw_teapot),
    ("animals", 20, _draw_dog),
)
"""Kind, number and function of the drawn pictures."""


def _color(rng: np.random.Generator) -> Color:
    red, green, blue = rng.integers(10, 246, 3).tolist()
    return red, green, blue


def _blend(weight: NDArray[np.float64], first: Color, second: Color) -> Picture:
    """Return an image between two colors; `weight` is (H, W), from 0 for the first to 1 for the second."""
    mixed = np.array(first) + weight[..., None] * (np.array(second, np.float64) - first)
    return mixed.clip(0, 255).astype(np.uint8)


def _with_noise(image: Image.Image, rng: np.random.Generator) -> Picture:
    """Return an image with camera noise."""
    pixels = np.asarray(image, np.float64)
    return (pixels + rng.normal(0, rng.uniform(0, 8), pixels.shape)).clip(0, 255).astype(np.uint8)
