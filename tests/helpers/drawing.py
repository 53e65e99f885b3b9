"""Images, points and pixels for tests of drawings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.visualization.style import STYLE, rgb

NOSE = LandmarkSchema(name="nose", names=("nose",))
TRIANGLE = LandmarkSchema(
    name="triangle",
    names=("left_eye", "right_eye", "chin"),
    flip_pairs=(("left_eye", "right_eye"),),
    skeleton=(("left_eye", "chin"),),
)
GRAY = (128, 128, 128)


def gray_image(height: int, width: int) -> NDArray[np.uint8]:
    """Return an (H, W) gray image, whose pixels have the color `GRAY` in drawings."""
    return np.full((height, width), GRAY[0], np.uint8)


def style_color(name: str) -> tuple[int, int, int]:
    """Return a color of `STYLE` as RGB."""
    return rgb(getattr(STYLE, name))


def pixel(image: NDArray[np.uint8], x: float, y: float) -> tuple[int, ...]:
    """Return the color of the nearest pixel."""
    return tuple(image[round(y), round(x)].tolist())


def kaggle_points(size: int) -> NDArray[np.float64]:
    """Return (15, 2) typical points of kaggle15 in a `size` x `size` crop."""
    x = [66, 30, 59, 73, 37, 23, 57, 80, 39, 15, 48, 62, 34, 48, 48]
    y = [38, 38, 38, 38, 38, 38, 29, 30, 29, 30, 57, 74, 74, 71, 79]
    return (np.stack([x, y], axis=1) + 0.5) * size / 96 - 0.5
