"""The backbone: a torchvision ResNet that returns its four stages."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote, suggest


class ResNetStages(nn.Sequential):
    """A ResNet without its pooling and classifier, whose forward returns its four stages.

    It is a Sequential, so that fastai can still split it into parameter groups by ``m[0][:6]``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (B, C, S, S) images to the four stages, of sides S/4, S/8, S/16 and S/32."""
        if not torch.compiler.is_compiling():  # neither torch.compile nor torch.export can trace it
            x = x.as_subclass(Tensor)  # operations on fastai's TensorImage with plain tensors raise TypeError
        stages = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index >= 4:
                stages.append(x)
        return tuple(stages)


def resnet_stages(model: nn.Module) -> ResNetStages:
    """Return the stem and the four stages of a torchvision ResNet: the layers that fastai uses as body."""
    return ResNetStages(*list(model.children())[:-2])


def stage_channels(backbone: nn.Sequential) -> tuple[int, ...]:
    """Return the number of channels of each of the four stages, read from its last convolution."""
    channels = []
    for stage in list(backbone)[4:]:
        last_block = list(stage.children())[-1]
        convolutions = [module for module in last_block.modules() if isinstance(module, nn.Conv2d)]
        channels.append(convolutions[-1].out_channels)
    return tuple(channels)


def get_resnet(arch: str) -> Callable[..., nn.Module]:
    """Return the function of torchvision that builds the ResNet called `arch`.

    Raises
    ------
    UserError
        If torchvision has no ResNet of that name.
    """
    # also ResNeXt and Wide ResNet, which have the same modules; not the detectors based on a ResNet, some of
    # which download weights when they are built
    known = [name for name in torchvision.models.list_models(torchvision.models) if "resne" in name]
    if arch not in known:
        raise UserError(f"torchvision has no ResNet {quote(arch)}; {suggest(arch, known)}")
    builder: Callable[..., nn.Module] = torchvision.models.get_model_builder(arch)
    return builder
