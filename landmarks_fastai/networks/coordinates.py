"""Normalized coordinates, in which networks predict points and losses compare them.

The edges of the image are at -1 and 1, so the center of pixel x of an image S pixels wide is at
(x + 0.5) / S * 2 - 1.
"""

from __future__ import annotations

from torch import Tensor


def normalize_points(points: Tensor, size: int) -> Tensor:
    """Map pixels of a `size` x `size` image to normalized coordinates."""
    return (points + 0.5) * (2 / size) - 1


def denormalize_points(points: Tensor, size: int) -> Tensor:
    """Map normalized coordinates to pixels of a `size` x `size` image, the inverse of `normalize_points`."""
    return (points + 1) * (size / 2) - 0.5
