"""Building complete networks: backbone and head, and the wrapper from pixel values to pixel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.networks.coordinates import denormalize_points
from landmarks_fastai.networks.heads import build_head
from landmarks_fastai.networks.outputs import split_output
from landmarks_fastai.networks.resnet import get_resnet, resnet_stages, stage_channels
from landmarks_fastai.utils.text import shorten


class PixelNetwork(nn.Module):
    """A network with the normalization of its input and the conversion of its output to pixels.

    Maps (B, C, S, S) float32 images with values from 0 to 255 to (B, K, 2) points in pixels of these images
    and, if the head predicts them, (B, K) Laplace scales in the same unit and (B, K) probabilities that the
    landmark is visible: a tuple with the names `output_names`.

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
    visibility
        Slope and intercept that calibrate the log-odds of visibility; None if the head does not predict them.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    slope: Tensor
    intercept: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        scale_factor: float = 1.0,
        visibility: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.size, self.has_visibility = network, size, visibility is not None
        slope, intercept = (1.0, 0.0) if visibility is None else visibility
        # tensors, so that they are parameters of an exported graph, and not parts of its structure
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.register_buffer("scale", torch.tensor(scale_factor * size, dtype=torch.float32))
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float32))
        self.register_buffer("intercept", torch.tensor(intercept, dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the points and, if the head predicts them, scales and visibility."""
        output = split_output(self.network((image / 255 - self.mean) / self.std), self.has_visibility)
        parts = [denormalize_points(output.points, self.size)]
        if output.log_scales.shape[-1]:
            parts.append(output.log_scales[..., 0].exp() * self.scale)
        if output.visibility is not None:
            parts.append((self.slope * output.visibility + self.intercept).sigmoid())
        return tuple(parts)

    def output_names(self, count: int) -> list[str]:
        """Return the names of the `count` tensors that `forward` returns."""
        names = ["points", "scales"][: count - self.has_visibility]
        return [*names, "visibility"] if self.has_visibility else names


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
        Maps (B, channels, S, S) float32 normalized images to the (B, K, C) float32 output of the head:
        normalized points and, if it predicts them, log scales and log-odds of visibility, see
        `landmarks_fastai.networks.heads`.

    Raises
    ------
    UserError
        If there is no such ResNet or head, or the head has no such option.
    """
    backbone = resnet_stages(get_resnet(arch)(weights=None))
    if channels != 3:
        backbone[0] = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)  # the stem of every ResNet
    return nn.Sequential(backbone, build_head(head, stage_channels(backbone), n_landmarks))


def build_meta_network(arch: str, head: Mapping[str, Any], n_landmarks: int, channels: int) -> nn.Module:
    """Build a network on torch's meta device: it has the shapes of `build_network`, but no memory.

    Raises
    ------
    UserError
        As `build_network`; also if an option of the head has a value that no network can be built with.
    """
    try:
        with torch.device("meta"):
            return build_network(arch, head, n_landmarks, channels)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise UserError(f"no network can be built with these options: {shorten(str(error), 100)}") from error
