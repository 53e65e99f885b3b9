"""The backbone: the channels of its stages, and unknown architectures."""

from __future__ import annotations

import pytest
import torch

from landmarks_fastai.errors import UserError
from landmarks_fastai.networks.resnet import get_resnet, resnet_stages, stage_channels


@pytest.mark.parametrize(
    ("arch", "expected"), [("resnet34", (64, 128, 256, 512)), ("resnet50", (256, 512, 1024, 2048))]
)
def test_stage_channels_of_basic_and_bottleneck_blocks(arch: str, expected: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert stage_channels(resnet_stages(get_resnet(arch)(weights=None))) == expected


def test_get_resnet_with_unknown_name_raises_with_suggestion() -> None:
    with pytest.raises(UserError, match="torchvision has no ResNet 'resnet19'; did you mean 'resnet1"):
        get_resnet("resnet19")
    with pytest.raises(UserError, match=r"torchvision has no ResNet 'vgg16'; known: .*resnet18"):
        get_resnet("vgg16")
