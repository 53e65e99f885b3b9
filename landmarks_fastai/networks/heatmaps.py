"""Heatmaps of landmarks: their layers, and the positions, spreads and visibility that they give."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from landmarks_fastai.networks.coordinates import normalize_points

Stages = tuple[Tensor, ...]
"""The four stages of the backbone, each half the size of the previous one."""


def fuse_stages(stages: Stages, lateral: nn.ModuleList) -> Tensor:
    """Sum the stages from the coarsest to the finest, as in a feature pyramid (Lin et al. 2017).

    Parameters
    ----------
    stages
        The four stages, each half the size of the previous one.
    lateral
        One layer per stage that maps it to the common number of channels, `width`.

    Returns
    -------
    Tensor
        (B, width, S/4, S/4), the size of the first stage.
    """
    fused: Tensor = lateral[-1](stages[-1])
    for layer, stage in zip(reversed(lateral[:-1]), reversed(stages[:-1]), strict=True):
        fused = functional.interpolate(fused, size=stage.shape[-2:], mode="bilinear") + layer(stage)
    return fused


def heatmap_layers(width: int, n_landmarks: int) -> nn.Sequential:
    """Return the layers that map the fused stages to one map per landmark."""
    return nn.Sequential(
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, n_landmarks, 1),
    )


def spatial_softmax(heatmaps: Tensor) -> Tensor:
    """Return the softmax of (B, K, H, W) heatmaps over both axes.

    Without a reshape, in which the ONNX export would lose the dimension K.
    """
    mass = torch.exp(heatmaps - heatmaps.amax((2, 3), keepdim=True))
    return mass / mass.sum((2, 3), keepdim=True)


def visibility_at_landmark(layer: nn.Module | None, fused: Tensor, mass: Tensor) -> Tensor | None:
    """Return the (B, K) means of the maps of visibility, weighted by the (B, K, H, W) distributions.

    The weights are detached, so that visibility does not train the positions. None without a layer.
    """
    return None if layer is None else (layer(fused).float() * mass.detach()).sum((2, 3))


def bin_centers(bins: Tensor) -> Tensor:
    """Return the (n,) normalized centers of the bins, the last dimension of (…, n), which span the image."""
    n = bins.shape[-1]
    return normalize_points(torch.arange(n, device=bins.device, dtype=bins.dtype), n)


def mean_deviation(mass: Tensor, mean: Tensor) -> Tensor:
    """Return the (B, K) mean absolute deviations of (B, K, n) distributions from their (B, K) `mean`."""
    return (mass * (bin_centers(mass) - mean[..., None]).abs()).sum(-1)


def expected_position(mass: Tensor) -> Tensor:
    """Return the (B, K) expected values of (B, K, n) distributions."""
    return (mass * bin_centers(mass)).sum(-1)
