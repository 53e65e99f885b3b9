"""Corruptions of face images for the robustness tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from landmarks_fastai.evaluation.metrics import rmse
from landmarks_fastai.geometry import rotate_points
from landmarks_fastai.inference.predictor import Predictor

Gray = NDArray[np.uint8]
Transform = Callable[[Gray, float, np.random.Generator], Gray]


def rotate(image: Gray, degrees: float, rng: np.random.Generator) -> Gray:
    """Rotate an image counterclockwise about its center; the area outside becomes black."""
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))


def darken(image: Gray, factor: float, rng: np.random.Generator) -> Gray:
    """Multiply the brightness by a factor, and add camera noise whose strength does not depend on it."""
    return (image * factor + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def blur(image: Gray, sigma: float, rng: np.random.Generator) -> Gray:
    """Blur with a Gaussian of `sigma` pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def downscale(image: Gray, side: float, rng: np.random.Generator) -> Gray:
    """Downscale to `side` x `side` pixels, and upscale to the original size."""
    small = Image.fromarray(image).resize((int(side),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize(image.shape[::-1], Image.Resampling.BILINEAR))


def occlude(image: Gray, fraction: float, rng: np.random.Generator) -> Gray:
    """Cover a fraction of the image with a gray square at a random position."""
    occluded, side = image.copy(), round(fraction**0.5 * len(image))
    top, left = rng.integers(0, len(image) - side + 1, 2)
    occluded[top : top + side, left : left + side] = 127
    return occluded


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption with a strength.

    Parameters
    ----------
    name
        Label of its row in the tables.
    transform
        Corrupts one (S, S) gray image.
    strength
        Second argument of `transform`.
    """

    name: str
    transform: Transform
    strength: float

    def apply(self, images: Gray, points: NDArray[np.floating]) -> tuple[Gray, NDArray[np.float64]]:
        """Return corrupted images and their labels, which only a rotation moves.

        Parameters
        ----------
        images
            (N, S, S, 1) uint8.
        points
            (N, K, 2) labels, pixels of the images.
        """
        rng = np.random.default_rng(0)
        corrupted = np.stack([self.transform(image[..., 0], self.strength, rng) for image in images])
        labels = points.astype(np.float64)
        if self.transform is rotate:
            middle = (images.shape[1] - 1) / 2
            labels = rotate_points(labels, -self.strength, (middle, middle))
        return corrupted[..., None], labels


_STRENGTHS: tuple[tuple[str, Transform, tuple[float, float, float]], ...] = (
    ("rotated by {:g}°", rotate, (15, 30, 45)),
    ("brightness × {:g}", darken, (0.5, 0.25, 0.1)),
    ("blurred, σ {:g} px", blur, (1, 2, 3)),
    ("downscaled to {:g} px", downscale, (48, 32, 24)),
    ("occluded fraction {:g}", occlude, (0.05, 0.1, 0.2)),
)

CORRUPTIONS = tuple(
    Corruption(name.format(strength), transform, strength)
    for name, transform, strengths in _STRENGTHS
    for strength in strengths
)


def corrupted_rmse(predictor: Predictor, images: Gray, points: NDArray[np.floating]) -> dict[str, float]:
    """Return the RMSE in pixels on (N, S, S, 1) gray images for each corruption."""
    errors = {}
    for corruption in CORRUPTIONS:
        corrupted, labels = corruption.apply(images, points)
        errors[corruption.name] = rmse(predictor.predict_batch(corrupted).points, labels)
    return errors


def mix_corruptions(images: Gray, points: NDArray[np.floating]) -> tuple[Gray, NDArray[np.float64]]:
    """Return images of mixed quality, in turn one unchanged and one with each of the corruptions."""
    mixed, labels = images.copy(), points.astype(np.float64)
    for offset, corruption in enumerate(CORRUPTIONS, start=1):
        rows = slice(offset, None, 1 + len(CORRUPTIONS))
        mixed[rows], labels[rows] = corruption.apply(images[rows], points[rows])
    return mixed, labels
