"""A new network begins with what an earlier one has learnt, as far as the two are alike.

Knows networks as `build_network` builds them; nothing about files, faces or recipes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from landmarks_fastai.errors import UserError

STEM = "0.0.weight"
BLOCK = re.compile(r"0\.[4-7]\.\d+\.")
"""Begins the name of a weight of the body's stages: which stage, and which block of it."""

LAST_NORM = ("bn2", "bn3")
"""What a block's branch goes through at last: the second in a bottleneck, else the first."""


def begin_with(network: nn.Module, learnt: Mapping[str, Tensor], same_points: bool, n_points: int) -> None:
    """Give a network the weights of an earlier one.

    The body must be of the same kind, but may have more blocks in a stage: these begin as identities, so that
    the whole answers as the earlier one does (Chen et al. 2016, Net2Net). A stem for gray sums what one for
    RGB has learnt, and one for RGB shares out what one for gray has. Of the head those layers are taken that
    have the same names and shapes; those of single points only where the points are the same.

    Parameters
    ----------
    network
        What `build_network` returned.
    learnt
        The state of the earlier one.
    same_points
        Whether it finds the same points, in the same order.
    n_points
        How many it finds.

    Raises
    ------
    UserError
        If its body is of another kind, or has more blocks.
    """
    state = network.state_dict()
    known = {found[0] for found in map(BLOCK.match, learnt) if found}
    misfits = {name for name, own in state.items() if name not in learnt or learnt[name].shape != own.shape}
    # of a layer all or nothing: a bias without its weights means nothing
    broken = {_layer(name) for name in misfits | (learnt.keys() - state.keys())}
    of_points = set() if same_points else {n_points, 2 * n_points, 4 * n_points}
    broken |= {_layer(name) for name, tensor in learnt.items() if tensor.ndim and len(tensor) in of_points}
    for name, tensor in learnt.items():
        if name == STEM and name in state:
            state[name] = _for_channels(tensor, state[name].shape[1])
        elif not name.startswith("0."):
            if name in state and _layer(name) not in broken:
                state[name] = tensor
        elif name not in misfits and name in state:
            state[name] = tensor
        else:
            raise UserError("its body is of another kind, or deeper; begin with one of no more layers")
    for block in {found[0] for found in map(BLOCK.match, state) if found} - known:
        last = max(block + norm for norm in LAST_NORM if f"{block}{norm}.weight" in state)
        for part in ("weight", "bias"):
            state[f"{last}.{part}"] = torch.zeros_like(state[f"{last}.{part}"])
    network.load_state_dict(state)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _for_channels(stem: Tensor, channels: int) -> Tensor:
    """Turn a (64, C, 7, 7) stem into one for so many channels, which answers gray pictures as it did."""
    if stem.shape[1] == channels:
        return stem
    return stem.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
