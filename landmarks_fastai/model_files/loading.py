"""Opening model files: safetensors, ONNX and, if trusted, fastai's pickle."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.discovery import resolve_model
from landmarks_fastai.model_files.graphs import open_graph
from landmarks_fastai.model_files.header import MODEL_NAME, ModelHeader
from landmarks_fastai.model_files.onnx_sessions import graph_session, open_onnx_file
from landmarks_fastai.model_files.weights import StoredTensor, load_network, read_contents
from landmarks_fastai.utils.text import shorten

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCH = "torch"
ONNX = "onnx"
"""What can run a ``.safetensors`` file."""


@dataclass(frozen=True)
class LoadedModel:
    """An opened model file; either `network` or `session` is set.

    Parameters
    ----------
    path, header
        The file and its header.
    network
        Maps (B, C, S, S) normalized images to the output of the head, see `build_network`; in eval mode, on
        the CPU.
    session
        ONNX Runtime session that maps "image", (B, C, S, S) float32 from 0 to 255, to "points", (B, K, 2)
        pixels of the input, and, if the head predicts them, to "scales", (B, K) in the same unit, and to
        "visibility", (B, K) probabilities.
    """

    path: Path
    header: ModelHeader
    network: nn.Module | None = None
    session: Any = None


def open_model(
    path: str | Path,
    trust_pickle: bool = False,
    device: str = "auto",
    runtime: str = TORCH,
    note: Callable[[str], None] | None = None,
) -> LoadedModel:
    """Open a model file; only a pickle can execute code, and it must be trusted explicitly.

    Parameters
    ----------
    path
        A ``.safetensors`` or ``.onnx`` file of this package, fastai's ``.pkl``, a run folder, or the name of
        a released model.
    trust_pickle
        Allow a ``.pkl``.
    device
        Device of an ONNX session: "auto", "cpu" or "cuda". torch networks stay on the CPU.
    runtime
        What runs a ``.safetensors`` file: `TORCH` (`LoadedModel.network` is set) or `ONNX` (`session` is). An
        ``.onnx`` file is always run by ONNX Runtime, and a ``.pkl`` by torch.
    note
        Called with one line if ONNX Runtime has to be prepared for an architecture, which takes seconds.

    Raises
    ------
    UserError
        If the file is missing, empty, truncated or written by another program; if it has another format
        version, or weights that do not match its header or are not finite; if it is a ``.pkl`` without
        `trust_pickle`; if ONNX Runtime does not support `device`.
    """
    path = resolve_model(path)
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); copy it again")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _open_in_onnx_runtime(path, device, note) if runtime == ONNX else _open_in_torch(path)
    if suffix == ".onnx":
        header, session = open_onnx_file(path, device)
        return LoadedModel(path, header, session=session)
    if suffix == ".xml":
        from landmarks_fastai.model_files.openvino_sessions import open_openvino_file

        header, openvino_session = open_openvino_file(path, device)
        return LoadedModel(path, header, session=openvino_session)
    if suffix == ".pkl" and trust_pickle:
        return _open_pickle(path)
    if suffix == ".pkl":
        raise UserError(
            f"{path}: a .pkl can execute arbitrary code when opened; use the {MODEL_NAME} next to it, or pass"
            " --trust-pickle if you trust its author"
        )
    raise UserError(
        f"{path}: not a landmarks-fastai model; supported are .safetensors, .onnx, .xml and .pkl files"
    )


def _open_in_torch(path: Path) -> LoadedModel:
    """Read the weights of a .safetensors file into a torch network."""
    from safetensors.torch import load_file

    stored = read_contents(path)
    network = load_network(stored.header, stored.tensors, lambda: load_file(path), path)
    return LoadedModel(path, stored.header, network)


def _open_in_onnx_runtime(path: Path, device: str, note: Callable[[str], None] | None) -> LoadedModel:
    """Give the weights of a .safetensors file to ONNX Runtime, with the graph of their architecture."""
    stored = read_contents(path)
    graph = open_graph(stored, note)
    return LoadedModel(
        path, stored.header, session=graph_session(graph, stored.read(), stored.header, device)
    )


def _open_pickle(path: Path) -> LoadedModel:
    """Open fastai's export of a learner of this package; executes the code in the file."""
    with warnings.catch_warnings():
        # fastai warns that a pickle can execute code, which --trust-pickle has acknowledged
        warnings.simplefilter("ignore")
        from fastai.learner import load_learner

        try:
            learner = load_learner(path, cpu=True)
        except Exception as error:  # unpickling raises whatever the pickled classes raise
            reason = shorten(str(error), 200) or type(error).__name__
            raise UserError(f"{path}: not an exported learner, or truncated ({reason})") from error
    header = getattr(learner, "header", None)
    if not isinstance(header, dict):
        raise UserError(f"{path}: not a landmarks-fastai learner: it has no landmarks_fastai header")
    checked = ModelHeader.from_dict(header, path)
    weights = learner.model.state_dict()
    stored = {
        name: StoredTensor(tuple(tensor.shape), _dtype_name(tensor)) for name, tensor in weights.items()
    }
    return LoadedModel(path, checked, load_network(checked, stored, lambda: weights, path))


def _dtype_name(tensor: Tensor) -> str:
    """Return the data type of a tensor as safetensors calls it, such as F32 or I64."""
    import torch

    prefix = "BF" if tensor.dtype is torch.bfloat16 else "F" if tensor.is_floating_point() else "I"
    return f"{prefix}{8 * tensor.element_size()}"
