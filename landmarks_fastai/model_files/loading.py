"""Opening model files: safetensors, ONNX and, if trusted, fastai's pickle."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.discovery import resolve_model
from landmarks_fastai.model_files.header import MODEL_NAME, ModelHeader, read_header

if TYPE_CHECKING:
    from torch import Tensor, nn


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


def open_model(path: str | Path, trust_pickle: bool = False, device: str = "auto") -> LoadedModel:
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

    Raises
    ------
    UserError
        If the file is missing, empty, truncated or written by another program; if it has another format
        version, or weights that do not match its header; if it is a ``.pkl`` without `trust_pickle`; if ONNX
        Runtime does not support `device`.
    """
    path = resolve_model(path)
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); copy it again")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _open_safetensors(path)
    if suffix == ".onnx":
        return _open_onnx(path, device)
    if suffix == ".pkl" and trust_pickle:
        return _open_pickle(path)
    if suffix == ".pkl":
        raise UserError(
            f"{path}: a .pkl can execute arbitrary code when opened; use the {MODEL_NAME} next to it, or pass"
            " --trust-pickle if you trust its author"
        )
    raise UserError(f"{path}: not a landmarks-fastai model; supported are .safetensors, .onnx and .pkl files")


def _open_safetensors(path: Path) -> LoadedModel:
    """Read header and weights; no code in the file is executed."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header = read_header(metadata, path)
        return LoadedModel(path, header, _build_with_weights(header, load_file(path), path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file, or truncated ({error}); copy it again") from error


def _open_onnx(path: Path, device: str) -> LoadedModel:
    """Create an ONNX Runtime session and read the header from the metadata."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: an .onnx file needs ONNX Runtime: pip install onnxruntime") from error

    providers = _onnx_providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; the log would only repeat them
    try:
        # from bytes, so that a file cannot make the runtime read other files next to it
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # each status code of ONNX Runtime has its own subclass of Exception
        raise UserError(f"{path}: not an ONNX file, or truncated; copy it again") from error
    header = read_header(session.get_modelmeta().custom_metadata_map, path)
    shapes = {port.name: port.shape[1:] for port in (*session.get_inputs(), *session.get_outputs())}
    side, count = header.input_size, len(header.landmark_schema)
    expected = {"image": [header.channels, side, side], "points": [count, 2]}
    if header.predicts_visibility:
        expected["visibility"] = [count]
    if shapes not in (expected, {**expected, "scales": [count]}):
        raise UserError(f"{path}: inputs and outputs {shapes} do not match the header; export again")
    return LoadedModel(path, header, session=session)


def _onnx_providers(device: str, available: list[str]) -> list[str]:
    """Return the ONNX Runtime execution providers for a device."""
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    if device == "cpu" or (device == "auto" and cuda not in available):
        return [cpu]
    if device in ("auto", "cuda"):
        if cuda not in available:
            raise UserError(
                "--device cuda: this ONNX Runtime has no CUDA support; pip install onnxruntime-gpu or use cpu"
            )
        return [cuda, cpu]
    raise UserError(f"--device {device}: an .onnx file runs on auto, cpu or cuda")


def _open_pickle(path: Path) -> LoadedModel:
    """Open fastai's export of a learner of this package; executes the code in the file."""
    with warnings.catch_warnings():
        # fastai warns that a pickle can execute code, which --trust-pickle has acknowledged
        warnings.simplefilter("ignore")
        from fastai.learner import load_learner

        try:
            learner = load_learner(path, cpu=True)
        except Exception as error:  # unpickling raises whatever the pickled classes raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{path}: not an exported learner, or truncated ({reason})") from error
    header = getattr(learner, "header", None)
    if not isinstance(header, dict):
        raise UserError(f"{path}: not a landmarks-fastai learner: it has no landmarks_fastai header")
    checked = ModelHeader.from_dict(header, path)
    return LoadedModel(path, checked, _build_with_weights(checked, learner.model.state_dict(), path))


def _build_with_weights(header: ModelHeader, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Build the network that the header describes and load the weights, all of which must match."""
    from landmarks_fastai.networks.build import build_network

    try:
        network = build_network(header.arch, header.head, len(header.landmark_schema), header.channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    expected = network.state_dict()
    for name in sorted({*expected, *weights}):
        found, needed = (
            tuple(state[name].shape) if name in state else "missing" for state in (weights, expected)
        )
        if found != needed:
            raise UserError(
                f"{path}: the weights do not match the header: {name} is {found}, but {header.arch} needs"
                f" {needed}"
            )
    network.load_state_dict(weights)
    return network.eval()
