"""Runtimes that execute a network on a batch of crops: torch and ONNX Runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.loading import ONNX, TORCH, LoadedModel
from landmarks_fastai.utils.devices import may_have_gpu

if TYPE_CHECKING:
    from torch import nn

    from landmarks_fastai.networks.build import PixelNetwork

Floats = NDArray[np.float32]

Backend = Callable[[NDArray[np.uint8]], tuple[Floats, ...]]
"""Maps (B, S, S, C) uint8 crops to (B, K, 2) points in pixels of the crops; if the model estimates
confidence, also to (B, K) Laplace scales of the error along each axis, in the same pixels; and if it predicts
visibility (`ModelHeader.predicts_visibility`), last to (B, K) probabilities that a landmark is visible."""


AUTO = "auto"
BACKENDS = (AUTO, ONNX, TORCH)
"""Values of --backend."""


def choose_runtime(path: Path, backend: str, device: str) -> str:
    """Return what runs a model file: by default `TORCH` on a GPU and for a ``.pkl``, else `ONNX`.

    torch is imported only on a machine that may have a GPU.

    Raises
    ------
    UserError
        If the backend cannot run the file.
    """
    if backend not in BACKENDS:
        raise UserError(f"--backend {backend}: not known; use {', '.join(BACKENDS)}")
    needed = {".onnx": ONNX, ".xml": "openvino", ".pkl": TORCH}.get(path.suffix.lower())
    if needed is not None:
        if backend not in (AUTO, needed):
            raise UserError(f"{path}: a {path.suffix} file runs with --backend {needed} only; use auto")
        return needed
    if backend != AUTO:
        return backend
    if device == "auto" and may_have_gpu():
        device = resolve_device(device)
    return ONNX if device in ("auto", "cpu") else TORCH


def resolve_device(device: str) -> str:
    """Return the torch device that `device` names; "auto" is the first GPU if there is one, else the CPU.

    Raises
    ------
    UserError
        If this machine has no such device.
    """
    import torch

    available = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if device == "auto":
        return available[1] if len(available) > 1 else "cpu"
    name = "cuda:0" if device == "cuda" else device
    if name not in available:
        raise UserError(
            f"--device {device}: not available; torch finds {', '.join(available)} on this machine;"
            " use auto or cpu"
        )
    return name


def pixel_network_of(network: nn.Module, header: ModelHeader) -> PixelNetwork:
    """Return a network with the normalization and calibration of its header, in eval mode."""
    from landmarks_fastai.networks.build import PixelNetwork

    visibility = header.visibility_calibration if header.predicts_visibility else None
    wrapped = PixelNetwork(
        network, header.mean, header.std, header.input_size, header.scale_factor, visibility
    )
    return wrapped.eval()


def torch_backend(network: nn.Module, header: ModelHeader, device: str) -> Backend:
    """Return a backend that runs a copy of a torch network on `device`."""
    import torch

    # a copy, because `to` changes the memory format of the parameters in place
    pixel_network = pixel_network_of(copy.deepcopy(network), header)
    pixel_network = pixel_network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(crops: NDArray[np.uint8]) -> tuple[Floats, ...]:
        with torch.inference_mode():
            # (B, S, S, C) permuted to (B, C, S, S) is already in channels_last format
            images = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float()
            return tuple(output.float().cpu().numpy() for output in pixel_network(images))

    return run


def onnx_backend(model: LoadedModel) -> Backend:
    """Return a backend that runs an ONNX Runtime session (normalization included)."""
    session: Any = model.session
    available = [output.name for output in session.get_outputs()]
    outputs = [name for name in ("points", "scales", "visibility") if name in available]

    def run(crops: NDArray[np.uint8]) -> tuple[Floats, ...]:
        images = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32)
        return tuple(session.run(outputs, {"image": images}))

    return run
