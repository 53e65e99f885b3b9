"""Weight transfer: initializing a network with the weights of another model (`model.init_from`)."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.learner import Learner
from torch import Tensor, nn

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.discovery import resolve_model
from landmarks_fastai.model_files.loading import LoadedModel, open_model
from landmarks_fastai.model_files.training_images import read_training_images
from landmarks_fastai.networks.heads import build_head
from landmarks_fastai.training.callbacks import find_callback
from landmarks_fastai.training.label_bias import EstimateLabelBias

STEM = "0.0.weight"
"""Name of the first convolution's weights in a state dict."""

BACKBONE = "0."
"""Prefix of the names of the backbone's weights in a state dict."""

HEAD = "1."
"""Prefix of the names of the head's weights in a state dict."""

BLOCK = re.compile(r"0\.[4-7]\.\d+\.")
"""Prefix of the names of the weights of one block of a stage in a state dict."""

LAST_NORMS = ("bn2", "bn3")
"""Last normalization layer of the residual branch of a block: bn3 in a bottleneck, else bn2."""


# --- networks ------------------------------------------------------------------------------------


def transfer_weights(
    network: nn.Module, weights: Mapping[str, Tensor], *, not_loaded: Container[str] = ()
) -> None:
    """Load the weights of another network where they fit.

    Backbone: both must have the same kind of blocks; the network may have more of them per stage. Additional
    blocks are initialized as identities, so that they do not change the output (Chen et al. 2016, "Net2Net").
    Between gray and RGB, the stem is adapted so that its output for gray images is the same.

    Head: all layers with the same names and shapes are loaded, completely or not at all.

    Parameters
    ----------
    network
        The network to initialize, with the modules of `build_network`.
    weights
        State dict of the other network.
    not_loaded
        Names of layers of the head that are not loaded: if the landmarks differ, those of `landmark_layers`.

    Raises
    ------
    UserError
        If the backbone of the other network has blocks of another kind, or more of them.
    """
    state = network.state_dict()
    differing = {name for name in state if name not in weights or weights[name].shape != state[name].shape}
    incomplete = {_layer(name) for name in differing | (weights.keys() - state.keys())}
    for name, tensor in weights.items():
        fits = name in state and state[name].shape == tensor.shape
        if name == STEM and name in state:
            state[name] = _adapt_stem(tensor, state[name].shape[1])
        elif name.startswith(BACKBONE):
            if not fits:
                raise UserError(
                    "its backbone is of another kind, or deeper; choose a model with the same kind of blocks"
                    " and no more layers"
                )
            state[name] = tensor
        elif name in state and _layer(name) not in incomplete and _layer(name) not in not_loaded:
            state[name] = tensor
    for block in _blocks(state) - _blocks(weights):
        norm = max(block + name for name in LAST_NORMS if f"{block}{name}.weight" in state)
        for parameter in ("weight", "bias"):
            state[f"{norm}.{parameter}"] = torch.zeros_like(state[f"{norm}.{parameter}"])
    network.load_state_dict(state)


def landmark_layers(head: Mapping[str, Any], n_landmarks: int) -> set[str]:
    """Return the names of the layers of a head that have outputs for each landmark.

    They are the layers whose shape depends on the number of landmarks. A single shape does not tell: with 64
    landmarks, a layer of 64 channels looks like one.

    Parameters
    ----------
    head
        Name and options of the head, as `build_head` takes them.
    n_landmarks
        Number of landmarks.

    Returns
    -------
    set[str]
        Names in the state dict of a network (`build_network`) without the name of the parameter.
    """
    channels = (64, 128, 256, 512)  # of no consequence
    with torch.device("meta"):
        one, other = (build_head(head, channels, n).state_dict() for n in (n_landmarks, n_landmarks + 1))
    return {_layer(HEAD + name) for name, tensor in one.items() if tensor.shape != other[name].shape}


def _blocks(names: Mapping[str, Tensor]) -> set[str]:
    return {match[0] for match in map(BLOCK.match, names) if match}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _adapt_stem(stem: Tensor, channels: int) -> Tensor:
    """Convert a (64, C, 7, 7) stem to `channels` so that its output for gray images stays the same."""
    if stem.shape[1] == channels:
        return stem
    return stem.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels


# --- the model that a run is initialized from ----------------------------------------------------


def find_initial_model(init_from: str) -> Path:
    """Return the path of the model file that `model.init_from` refers to.

    Raises
    ------
    UserError
        If there is none, or it is not a safetensors file.
    """
    try:
        path = resolve_model(init_from)
    except UserError as error:
        raise UserError(f"model.init_from: {error}") from error
    if path.suffix.lower() != ".safetensors":
        raise UserError(
            f"model.init_from {init_from}: only safetensors files can be used; name a .safetensors file"
        )
    return path


def open_initial_model(config: TrainConfig) -> LoadedModel | None:
    """Open the model that `model.init_from` refers to; return None if it is unset."""
    return None if config.model.init_from is None else open_model(find_initial_model(config.model.init_from))


def initialize_learner(learn: Learner, model: LoadedModel, dataset: LandmarkDataset) -> None:
    """Load the weights of another model into a learner, and its label bias if the landmarks are the same.

    Raises
    ------
    UserError
        If the backbones do not match, see `transfer_weights`.
    """
    assert model.network is not None, "a safetensors file has a network"
    header = model.header
    same = header.landmark_schema.names == dataset.schema.names
    not_loaded = () if same else landmark_layers(header.head, len(header.landmark_schema))
    try:
        transfer_weights(learn.model, model.network.state_dict(), not_loaded=not_loaded)
    except UserError as error:
        raise UserError(f"model.init_from {model.path}: {error}") from error
    bias = find_callback(learn, EstimateLabelBias)
    if same and bias is not None:
        bias.augment.label_bias = model.header.label_bias


def check_initial_model(
    model: LoadedModel, config: TrainConfig, dataset: LandmarkDataset, split: Split
) -> str | None:
    """Check that a model was not trained on validation rows of the new run.

    Returns
    -------
    str or None
        A warning if this is unknown; None if it was trained on none of them.

    Raises
    ------
    UserError
        If it was trained on some of them.
    """
    unknown = (
        f"it is unknown whether {model.path} was trained on validation rows of this run; if so, the"
        " validation scores are too optimistic"
    )
    try:
        images = read_training_images(model.path.parent)
    except UserError:
        return unknown
    if images is None or model.header.config.get("model", {}).get("init_from") is not None:
        return unknown
    seen = np.flatnonzero(np.isin(dataset.images.ids[split.valid], images.train))
    if len(seen):
        raise UserError(
            f"model.init_from {model.path}: it was trained on {len(seen):,} of the {len(split.valid):,}"
            " validation rows of this run; use the split of its run (same seed, split and valid_fraction)"
        )
    return None
