"""Reading the weights of a model file, which are checked against its header before memory is allocated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import ModelHeader, check_header_size, read_header
from landmarks_fastai.utils.text import shorten

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = NDArray[np.float32]

FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
"""Data types in which weights may be stored, and how numpy reads them; they are used as float32."""

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


@dataclass(frozen=True)
class StoredWeights:
    """What a .safetensors file contains, before its weights are read.

    Parameters
    ----------
    path, header
        The file and its header.
    tensors
        Its tensors by name.
    positions
        Where the first byte of each tensor is in the file.
    """

    path: Path
    header: ModelHeader
    tensors: Mapping[str, StoredTensor]
    positions: Mapping[str, int]

    def read(self) -> dict[str, Floats]:
        """Return the floating-point tensors as float32.

        They are read one by one and not through a memory map, so that memory is needed for one copy only.

        Raises
        ------
        UserError
            If a weight is not finite, or the file cannot be read.
        """
        weights = {}
        with _report_damage(self.path), self.path.open("rb") as file:
            for name, tensor in self.tensors.items():
                if tensor.dtype in FLOATS:
                    file.seek(self.positions[name])
                    count = math.prod(tensor.shape)
                    stored = np.fromfile(file, FLOATS[tensor.dtype], count)
                    if len(stored) != count:
                        raise UserError(f"{_damaged(self.path)}; copy it again")
                    weights[name] = _to_float32(stored, tensor.dtype).reshape(tensor.shape)
        check_values(weights, self.path)
        return weights


def _to_float32(stored: NDArray[np.generic], dtype: str) -> Floats:
    """Return the numbers of a file, read as `FLOATS` says, as float32."""
    if dtype == "BF16":  # numpy has no such type; it is the first half of a float32
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32, copy=False)


def read_contents(path: Path) -> StoredWeights:
    """Read the header and the names, types and shapes of the tensors of a .safetensors file.

    No code in the file is executed.

    Raises
    ------
    UserError
        If the file is damaged, or was written by another program or version.
    """
    from safetensors import safe_open

    with _report_damage(path), path.open("rb") as start:
        header_size = int.from_bytes(start.read(8), "little")
        if header_size > path.stat().st_size - 8:
            raise UserError(f"{_damaged(path)}; copy it again")
        check_header_size(header_size, path)
        with safe_open(path, framework="numpy") as file:  # checks all entries, and that they fit the file
            header = read_header(file.metadata() or {}, path)
        entries = json.loads(start.read(header_size))
    entries.pop("__metadata__", None)
    tensors = {name: StoredTensor(tuple(entry["shape"]), entry["dtype"]) for name, entry in entries.items()}
    positions = {name: 8 + header_size + entry["data_offsets"][0] for name, entry in entries.items()}
    return StoredWeights(path, header, tensors, positions)


@contextmanager
def _report_damage(path: Path) -> Iterator[None]:
    """Turn the errors of reading a .safetensors file into a UserError."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise UserError(f"{_damaged(path)} ({shorten(str(error), 100)}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _damaged(path: Path) -> str:
    return f"{path}: not a safetensors file, or truncated"


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
    network = _meta_network(header, path)
    check_tensors(_tensors_of(network), stored, header.arch, path)
    network.to_empty(device="cpu").load_state_dict(read_weights())
    weights = {name: weight for name, weight in network.state_dict().items() if weight.is_floating_point()}
    check_values({name: weight.numpy() for name, weight in weights.items()}, path)
    return network.eval()


def needed_tensors(header: ModelHeader, path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of the network that a header describes; `path` is named in messages.

    Raises
    ------
    UserError
        If the header describes no network.
    """
    return _tensors_of(_meta_network(header, path))


def _meta_network(header: ModelHeader, path: Path) -> nn.Module:
    """Return the network that a header describes, without memory for its weights."""
    from landmarks_fastai.networks.build import build_meta_network

    try:
        return build_meta_network(header.arch, header.head, len(header.landmark_schema), header.channels)
    except UserError as error:
        raise UserError(f"{path}: invalid header: {error}") from error


def _tensors_of(network: nn.Module) -> dict[str, StoredTensor]:
    """Return the tensors of a network as its file must contain them; all floating-point types are F32."""
    return {
        name: StoredTensor(tuple(tensor.shape), "F32" if tensor.is_floating_point() else "I64")
        for name, tensor in network.state_dict().items()
    }


def check_tensors(
    needed: Mapping[str, StoredTensor], stored: Mapping[str, StoredTensor], arch: str, path: Path
) -> None:
    """Check that a file contains the tensors that its network needs, and no others.

    Raises
    ------
    UserError
        If it does not; the message names one of the tensors.
    """
    mismatch = f"{path}: the weights do not match the header:"
    for name in sorted(stored.keys() - needed.keys()):
        raise UserError(f"{mismatch} {shorten(name)} is not part of {arch} with this head")
    for name, tensor in sorted(needed.items()):
        if name not in stored:
            raise UserError(f"{mismatch} {name} is missing")
        found, shape = stored[name], tensor.shape
        if found.shape != shape:
            raise UserError(f"{mismatch} {name} is {shorten(str(found.shape))}, but {arch} needs {shape}")
        if found.dtype not in (FLOATS if tensor.dtype in FLOATS else INTEGERS):
            kind = "floating point" if tensor.dtype in FLOATS else "I64"
            raise UserError(f"{mismatch} {name} has the data type {found.dtype}, but must be {kind}")


def check_values(weights: Mapping[str, Floats], path: Path) -> None:
    """Check that all weights are finite, and that variances are not negative.

    Raises
    ------
    UserError
        If one is not.
    """
    for name, tensor in weights.items():
        if not np.isfinite(tensor).all():
            raise UserError(
                f"{path}: {name} contains NaN or infinity: the training has diverged, or the file is damaged;"
                " use another model, or copy the file again"
            )
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError(f"{path}: {name} contains a negative variance; copy the file again")
