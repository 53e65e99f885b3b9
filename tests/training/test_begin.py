"""A network that begins with another's weights answers as that one does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.network import build_network
from landmarks_fastai.training.begin import begin_with

HEAD = {"name": "soft-argmax", "width": 16, "scales": True}


def network(arch: str = "resnet18", channels: int = 3, points: int = 5, seed: int = 0) -> nn.Module:
    """Build one whose normalisations have seen something too."""
    torch.manual_seed(seed)
    built = build_network(arch, HEAD, points, channels)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values.data, 0.5, 1.5)
    return built.eval()


def answer(built: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return built(images)


@pytest.mark.parametrize("arch", ["resnet18", "resnet34"])
def test_the_same_or_a_deeper_body_answers_the_same(arch: str) -> None:
    images = torch.rand(2, 3, 64, 64)
    old, new = network(), network(arch, seed=1)
    assert (answer(old, images) - answer(new, images)).abs().max() > 1e-3
    begin_with(new, old.state_dict(), same_points=True, n_points=5)
    torch.testing.assert_close(answer(new, images), answer(old, images), rtol=0, atol=1e-6)


def test_bottlenecks_grow_too() -> None:
    images = torch.rand(1, 3, 64, 64)
    old, new = network("resnet50"), network("resnet101", seed=1)
    begin_with(new, old.state_dict(), same_points=True, n_points=5)
    torch.testing.assert_close(answer(new, images), answer(old, images), rtol=0, atol=1e-6)


def test_new_blocks_learn() -> None:
    new = network("resnet34", seed=1)
    begin_with(new, network().state_dict(), same_points=True, n_points=5)
    new(torch.rand(2, 3, 64, 64)).square().sum().backward()
    last = new[0][4][2].bn2.weight  # of a block that ResNet18 does not have
    assert (last == 0).all()
    assert (last.grad != 0).any()


@pytest.mark.parametrize(("old_channels", "new_channels"), [(1, 3), (3, 1)])
def test_gray_pictures_are_answered_the_same_in_any_channels(old_channels: int, new_channels: int) -> None:
    gray = torch.rand(2, 1, 64, 64)
    old, new = network(channels=old_channels), network(channels=new_channels, seed=1)
    begin_with(new, old.state_dict(), same_points=True, n_points=5)
    pictures = [gray.expand(-1, channels, -1, -1) for channels in (new_channels, old_channels)]
    torch.testing.assert_close(answer(new, pictures[0]), answer(old, pictures[1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("points", [5, 7])
def test_other_points_keep_all_but_what_belongs_to_points(points: int) -> None:
    old, new = network(), network(points=points, seed=1)
    untouched = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    begin_with(new, old.state_dict(), same_points=False, n_points=5)
    for name, tensor in new.state_dict().items():
        of_points = name.startswith(("1.heatmaps.5", "1.scales.2"))
        torch.testing.assert_close(tensor, untouched[name] if of_points else old.state_dict()[name])


def test_of_a_layer_all_is_taken_or_nothing() -> None:
    narrow, wide = (build_network("resnet18", {"name": "lin-relu-lin", "hidden": n}, 5, 3) for n in (8, 16))
    nn.init.uniform_(narrow[1].points.bias)
    before = wide[1].points.bias.detach().clone()
    begin_with(wide, narrow.state_dict(), same_points=True, n_points=5)
    torch.testing.assert_close(wide[1].points.bias.detach(), before)


@pytest.mark.parametrize(("old", "new"), [("resnet18", "resnet50"), ("resnet34", "resnet18")])
def test_a_body_of_another_kind_is_refused(old: str, new: str) -> None:
    with pytest.raises(UserError, match="of another kind, or deeper"):
        begin_with(network(new), network(old).state_dict(), same_points=True, n_points=5)
