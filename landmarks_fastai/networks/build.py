"""Building complete networks: backbone and head, and the wrapper from pixel values to pixel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landmarks_fastai.networks.coordinates import denormalize_points
from landmarks_fastai.networks.heads import build_head
from landmarks_fastai.networks.resnet import get_resnet, resnet_stages, stage_channels


class PixelNetwork(nn.Module):
    """A network with the normalization of its input and the conversion of its output to pixels.

    Maps (B, C, S, S) float32 images with values from 0 to 255 to (B, K, 2) points in pixels of these images
    and, if the head predicts scales, (B, K) Laplace scales in the same unit.

    Parameters
    ----------
    network
        Maps normalized images to normalized points and log scales, see `build_network`.
    mean, std
        One value per channel; images are normalized by ``(image / 255 - mean) / std``.
    size
        S, side of the images in pixels.
    scale_factor
        Calibration factor by which the predicted scales are multiplied.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        scale_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.size, self.scale_factor = network, size, scale_factor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the points and, if the head predicts them, their scales."""
        output: Tensor = self.network((image / 255 - self.mean) / self.std)
        points = denormalize_points(output[..., :2], self.size)
        if output.shape[-1] == 2:
            return (points,)
        return points, output[..., 2].exp() * (self.scale_factor * self.size)


def build_network(arch: str, head: Mapping[str, Any], n_landmarks: int, channels: int) -> nn.Module:
    """Build the network that `vision_learner` builds in training, without fastai and with random weights.

    Parameters
    ----------
    arch
        Name of the ResNet in torchvision.
    head
        Name and options of the head, as `build_head` takes them.
    n_landmarks
        K, the number of landmarks.
    channels
        1 for gray, 3 for RGB.

    Returns
    -------
    nn.Module
        Maps (B, channels, S, S) float32 normalized images to (B, K, 2) float32 normalized points or, if the
        head predicts scales, to (B, K, 3), see `landmarks_fastai.networks.heads`.

    Raises
    ------
    UserError
        If there is no such ResNet or head, or the head has no such option.
    """
    backbone = resnet_stages(get_resnet(arch)(weights=None))
    if channels != 3:
        backbone[0] = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)  # the stem of every ResNet
    return nn.Sequential(backbone, build_head(head, stage_channels(backbone), n_landmarks))
