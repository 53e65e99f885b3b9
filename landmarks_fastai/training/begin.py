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
    the whole answers as the earlier one does (Chen et al. 2016, Net2Net, section 2.3). A stem for gray sums
    what one for RGB has learnt, and one for RGB shares out what one for gray has. Of the head all is taken
    that has the same name and shape, but what belongs to single points only where the points are the same.

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
    for name, tensor in learnt.items():
        if not name.startswith("0."):
            alike = name in state and state[name].shape == tensor.shape
            if alike and (same_points or tensor.ndim == 0 or len(tensor) not in (n_points, 2 * n_points)):
                state[name] = tensor
        elif name == STEM and name in state:
            state[name] = _for_channels(tensor, state[name].shape[1])
        elif name in state and state[name].shape == tensor.shape:
            state[name] = tensor
        else:
            raise UserError(
                "its body is of another kind, or deeper; begin with one of the same or fewer layers"
            )
    for block in {found[0] for found in map(BLOCK.match, state) if found} - known:
        last = max(block + norm for norm in LAST_NORM if f"{block}{norm}.weight" in state)
        for part in ("weight", "bias"):
            state[f"{last}.{part}"] = torch.zeros_like(state[f"{last}.{part}"])
    network.load_state_dict(state)


def _for_channels(stem: Tensor, channels: int) -> Tensor:
    """Turn a (64, C, 7, 7) stem into one for so many channels, which answers gray pictures as it did."""
    if stem.shape[1] == channels:
        return stem
    return stem.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
