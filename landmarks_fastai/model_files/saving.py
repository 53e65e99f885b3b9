"""Writing weights and header as a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader
from landmarks_fastai.utils.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


def save_model(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    header: ModelHeader,
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights and header as one safetensors file, atomically.

    Parameters
    ----------
    path
        The file to write.
    state_dict
        The network's state dict.
    header
        Description of the network.
    half
        Store weight matrices and convolutions as float16; biases and batch normalization stay float32.
    metadata
        Entries in addition to the header.

    Raises
    ------
    RunError
        If the file cannot be written, for example on a full disk.
    """
    content = model_content(state_dict, header, half, metadata)
    with atomic_write(Path(path)) as partial:
        partial.write_bytes(content)  # save_file would create a file that only its owner can read


def model_content(
    state_dict: Mapping[str, Tensor],
    header: ModelHeader,
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Return the content of the file that `save_model` writes."""
    from safetensors.torch import save

    # safetensors does not accept tensors that share memory
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_dict.items()}
    if half:
        weights = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in weights.items()}
    entries = {"format": "pt", HEADER_KEY: json.dumps(header.to_dict()), **(metadata or {})}
    return save(weights, metadata=entries)
