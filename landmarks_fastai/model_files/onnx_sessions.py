"""ONNX Runtime sessions: of .onnx files, and of graphs with the weights of .safetensors files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.model_files.header import ModelHeader, read_header
from landmarks_fastai.utils.onnx_runtime import import_onnxruntime, session_options
from landmarks_fastai.utils.text import shorten

if TYPE_CHECKING:
    from landmarks_fastai.model_files.graphs import Graph

MAX_ONNX_BYTES = 2**31
"""Protobuf, and therefore ONNX, has no larger files."""

PROBED_BATCH_SIZE = 2
"""Number of blank images on which an ONNX file is run once: its declared shapes may be wrong."""


def graph_session(
    graph: Graph, weights: dict[str, NDArray[np.float32]], header: ModelHeader, device: str
) -> Any:
    """Create a session of a graph.

    Parameters
    ----------
    graph
        The graph of the header's architecture.
    weights
        Tensors of the model file, as the graph needs them; emptied and modified.
    header
        Header of the model file.
    device
        "auto", "cpu" or "cuda".

    Raises
    ------
    UserError
        If ONNX Runtime does not support `device`.
    RunError
        If it does not accept the graph.
    """
    onnxruntime = import_onnxruntime()
    providers = _providers(device, onnxruntime)
    options = session_options()
    values = graph.values(weights, header)
    # ONNX Runtime checks names, shapes and types, and copies the values when the session is created
    arrays = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in values.values()]
    options.add_external_initializers(list(values), arrays)
    try:
        return onnxruntime.InferenceSession(graph.content, options, providers=providers)
    except Exception as error:  # each status code of ONNX Runtime has its own subclass of Exception
        reason = shorten(" ".join(str(error).split()), 100)
        raise RunError(f"ONNX Runtime cannot run {header.arch} ({reason}); use --backend torch") from error


def open_onnx_file(path: Path, device: str) -> tuple[ModelHeader, Any]:
    """Create a session of an ``.onnx`` file of this package, and read the header from its metadata.

    Raises
    ------
    UserError
        If the file is damaged or was written by another program, if its outputs do not match its header, or
        if ONNX Runtime is missing or does not support `device`.
    """
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise UserError(f"{path}: an .onnx file needs ONNX Runtime: pip install onnxruntime") from error

    providers = _providers(device, onnxruntime)
    options = session_options()
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
        ports = [(port.name, port.type, port.shape) for port in list_ports(session)]
    except UnicodeDecodeError:
        raise UserError(f"{path}: damaged: its texts are not UTF-8; copy it again") from None
    except Exception as error:  # each status code of ONNX Runtime has its own subclass of Exception
        raise UserError(f"{path}: not an ONNX file, or truncated; copy it again") from error
    header = read_header(metadata, path)
    check_ports(header, ports, path)
    probe(session, header, path)
    return header, session


def list_ports(session: Any) -> list[Any]:
    """Return the inputs and outputs of an ONNX Runtime session."""
    return [*session.get_inputs(), *session.get_outputs()]


def _output_shapes(header: ModelHeader) -> dict[str, list[int]]:
    """Return the shapes of all outputs that a model may have, without the batch."""
    count = len(header.landmark_schema)
    shapes = {"points": [count, 2], "scales": [count]}
    return {**shapes, "visibility": [count]} if header.predicts_visibility else shapes


def check_ports(header: ModelHeader, ports: list[tuple[str, str, list[Any]]], path: Path) -> None:
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


def probe(session: Any, header: ModelHeader, path: Path) -> None:
    """Run an ONNX Runtime session once, and check the shapes and values of its outputs."""
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


def _providers(device: str, onnxruntime: ModuleType) -> list[str]:
    """Return the ONNX Runtime execution providers for a device."""
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    available = onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and cuda not in available):
        return [cpu]
    if device in ("auto", "cuda"):
        if cuda not in available:
            raise UserError(
                "--device cuda: this ONNX Runtime has no CUDA support; pip install onnxruntime-gpu or use cpu"
            )
        return [cuda, cpu]
    raise UserError(f"--device {device}: ONNX Runtime runs on auto, cpu or cuda")
