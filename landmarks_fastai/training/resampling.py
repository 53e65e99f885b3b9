"""Resizing batches on their device exactly as `geometry.extract_crop` resizes a whole image."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def resize_images(images: Tensor, size: int) -> Tensor:
    """Resize (B, C, S, S) images to (B, C, size, size): bilinear, antialiased, with aligned edges.

    Unlike `torch.nn.functional.interpolate`, the filter reaches beyond the image, where the edge pixels are
    repeated. Prediction does the same, because a crop has neighbors; with another rule, a network would see
    other borders in training. Images of side `size` are returned unchanged.
    """
    if images.shape[-1] == size:
        return images
    weights = _weights(images.shape[-1], size).to(images)
    return weights @ (images @ weights.T)


@lru_cache(maxsize=8)
def _weights(size_in: int, size_out: int) -> Tensor:
    """Return the (size_out, size_in) weights of the pixels of a line in those of the resized line.

    The filter is a triangle whose half-width is one pixel of the coarser of the two lines, as in Pillow.
    """
    scale = size_in / size_out
    half_width = max(scale, 1.0)
    reach = int(half_width) + 1
    centers = (torch.arange(size_out, dtype=torch.float64) + 0.5) * scale
    positions = torch.arange(-reach, size_in + reach)
    distances = (positions + 0.5 - centers[:, None]).abs() / half_width
    triangle = (1 - distances).clamp(min=0)
    triangle /= triangle.sum(1, keepdim=True)
    weights = torch.zeros(size_out, size_in, dtype=torch.float64)
    return weights.index_add(1, positions.clamp(0, size_in - 1), triangle)
