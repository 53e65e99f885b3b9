"""Checking the weights in a model file against its header before they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.utils.text import shorten

if TYPE_CHECKING:
    from torch import Tensor, nn

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Data types in which weights may be stored; they are used as float32."""

INTEGERS = frozenset({"I64"})
"""Data types in which integers may be stored: the number of batches that a normalization has seen."""


@dataclass(frozen=True)
class StoredTensor:
    """What a model file says about one of its tensors.

    Parameters
    ----------
    shape
        Its shape.
    dtype
        Its data type, as safetensors calls it.
    """

    shape: tuple[int, ...]
    dtype: str


def load_network(
    header: ModelHeader,
    stored: Mapping[str, StoredTensor],
    read_weights: Callable[[], Mapping[str, Tensor]],
    path: Path,
) -> nn.Module:
    """Return the network that a header describes with the weights of its file, in eval mode on the CPU.

    The network is built on torch's meta device, where tensors have shapes but no memory. Memory is allocated
    only when the file is known to contain exactly these tensors.

    Parameters
    ----------
    header
        The header of the file.
    stored
        The tensors in the file by name.
    read_weights
        Reads them; called once, after all checks of `stored`.
    path
        The file, for messages.

    Raises
    ------
    UserError
        If the header describes no network; if a tensor is missing or not needed, or has another shape or data
        type than the network needs; if a weight is not finite.
    """
    from landmarks_fastai.networks.build import build_meta_network

    try:
        network = build_meta_network(header.arch, header.head, len(header.landmark_schema), header.channels)
    except UserError as error:
        raise UserError(f"{path}: invalid header: {error}") from error
    _check_tensors(network.state_dict(), stored, header.arch, path)
    network.to_empty(device="cpu").load_state_dict(read_weights())
    _check_values(network.state_dict(), path)
    return network.eval()


def _check_tensors(
    needed: Mapping[str, Tensor], stored: Mapping[str, StoredTensor], arch: str, path: Path
) -> None:
    """Check that a file contains the tensors that its network needs, and no others."""
    mismatch = f"{path}: the weights do not match the header:"
    for name in sorted(stored.keys() - needed.keys()):
        raise UserError(f"{mismatch} {shorten(name)} is not part of {arch} with this head")
    for name, tensor in sorted(needed.items()):
        if name not in stored:
            raise UserError(f"{mismatch} {name} is missing")
        found, shape = stored[name], tuple(tensor.shape)
        if found.shape != shape:
            raise UserError(f"{mismatch} {name} is {shorten(str(found.shape))}, but {arch} needs {shape}")
        if found.dtype not in (FLOATS if tensor.is_floating_point() else INTEGERS):
            kind = "floating point" if tensor.is_floating_point() else "I64"
            raise UserError(f"{mismatch} {name} has the data type {found.dtype}, but must be {kind}")


def _check_values(weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that all weights are finite, and that variances are not negative."""
    import torch

    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            continue
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{path}: {name} contains NaN or infinity: the training has diverged, or the file is damaged;"
                " use another model, or copy the file again"
            )
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError(f"{path}: {name} contains a negative variance; copy the file again")
