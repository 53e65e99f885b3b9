"""Opening model files: safetensors, ONNX and, if trusted, fastai's pickle."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.discovery import resolve_model
from landmarks_fastai.model_files.header import MODEL_NAME, ModelHeader, check_header_size, read_header
from landmarks_fastai.model_files.weights import StoredTensor, load_network
from landmarks_fastai.utils.onnx_runtime import import_onnxruntime
from landmarks_fastai.utils.text import shorten

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_ONNX_BYTES = 2**31
"""Protobuf, and therefore ONNX, has no larger files."""

PROBED_BATCH_SIZE = 2
"""Number of blank images on which an ONNX file is run once: its declared shapes may be wrong."""


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
        version, or weights that do not match its header or are not finite; if it is a ``.pkl`` without
        `trust_pickle`; if ONNX Runtime does not support `device`.
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

    damaged = f"{path}: not a safetensors file, or truncated"
    try:
        with path.open("rb") as start:
            header_size = int.from_bytes(start.read(8), "little")
        if header_size > path.stat().st_size - 8:
            raise UserError(f"{damaged}; copy it again")
        check_header_size(header_size, path)
        with safe_open(path, framework="pt") as file:
            header = read_header(file.metadata() or {}, path)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            stored = {
                name: StoredTensor(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
            }
        return LoadedModel(path, header, load_network(header, stored, lambda: load_file(path), path))
    except SafetensorError as error:
        raise UserError(f"{damaged} ({shorten(str(error), 100)}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _open_onnx(path: Path, device: str) -> LoadedModel:
    """Create an ONNX Runtime session and read the header from the metadata."""
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise UserError(f"{path}: an .onnx file needs ONNX Runtime: pip install onnxruntime") from error

    providers = _onnx_providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; the log would only repeat them
    if path.stat().st_size > MAX_ONNX_BYTES:
        raise UserError(f"{path}: more than 2 GB, which no ONNX file has; copy it again")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        # from bytes, so that a file cannot make the runtime read other files next to it
        session = onnxruntime.InferenceSession(content, options, providers=providers)
        metadata = session.get_modelmeta().custom_metadata_map
        ports = [(port.name, port.type, port.shape) for port in _ports(session)]
    except UnicodeDecodeError:
        raise UserError(f"{path}: damaged: its texts are not UTF-8; copy it again") from None
    except Exception as error:  # each status code of ONNX Runtime has its own subclass of Exception
        raise UserError(f"{path}: not an ONNX file, or truncated; copy it again") from error
    header = read_header(metadata, path)
    _check_ports(header, ports, path)
    _probe(session, header, path)
    return LoadedModel(path, header, session=session)


def _ports(session: Any) -> list[Any]:
    """Return the inputs and outputs of an ONNX Runtime session."""
    return [*session.get_inputs(), *session.get_outputs()]


def _output_shapes(header: ModelHeader) -> dict[str, list[int]]:
    """Return the shapes of all outputs that a model may have, without the batch."""
    count = len(header.landmark_schema)
    shapes = {"points": [count, 2], "scales": [count]}
    return {**shapes, "visibility": [count]} if header.predicts_visibility else shapes


def _check_ports(header: ModelHeader, ports: list[tuple[str, str, list[Any]]], path: Path) -> None:
    """Check the declared names, types and shapes of inputs and outputs."""
    shapes = {name: shape[1:] if kind == "tensor(float)" else kind for name, kind, shape in ports}
    expected = {
        "image": [header.channels, header.input_size, header.input_size],
        **_output_shapes(header),
    }
    if shapes not in (expected, {name: shape for name, shape in expected.items() if name != "scales"}):
        raise UserError(
            f"{path}: its inputs and outputs {shorten(str(shapes), 200)} do not match the header; export it"
            " again"
        )


def _probe(session: Any, header: ModelHeader, path: Path) -> None:
    """Run an ONNX Runtime session once, and check the shapes and values of its outputs."""
    import numpy as np

    names = [output.name for output in session.get_outputs()]
    shape = (PROBED_BATCH_SIZE, header.channels, header.input_size, header.input_size)
    try:
        outputs = session.run(names, {"image": np.full(shape, 128, np.float32)})
    except Exception as error:  # each status code of ONNX Runtime has its own subclass of Exception
        reason = shorten(str(error), 100)
        raise UserError(f"{path}: ONNX Runtime cannot run it ({reason}); export it again") from error
    expected = _output_shapes(header)
    for name, output in zip(names, outputs, strict=True):
        if output.shape != (PROBED_BATCH_SIZE, *expected[name]) or not np.isfinite(output).all():
            raise UserError(
                f"{path}: its output {name} has another shape than the header says, or is not finite; export"
                " it again"
            )


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
