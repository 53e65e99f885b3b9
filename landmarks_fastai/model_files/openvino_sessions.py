"""OpenVINO files, opened as something with the methods of an ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader, read_header
from landmarks_fastai.model_files.onnx_sessions import check_ports, list_ports, probe
from landmarks_fastai.utils.openvino_runtime import import_openvino
from landmarks_fastai.utils.text import shorten

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
"""Compute in float32, also where the processor has bfloat16, with all processors for one image."""

NAMES = ("image", "points", "scales", "visibility")
"""Names of inputs and outputs."""

MAX_XML_BYTES = 100_000_000
"""Largest .xml that is read; that of a ResNet34 has 1 MB."""


@dataclass(frozen=True)
class Port:
    """Description of an input or output, as ONNX Runtime gives it."""

    name: str
    type: str
    shape: list[int | str]


class OpenVinoSession:
    """A compiled OpenVINO model.

    Parameters
    ----------
    compiled
        The model, compiled for a device.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def get_inputs(self) -> list[Port]:
        """Return the inputs."""
        return [_port(port) for port in self._compiled.inputs]

    def get_outputs(self) -> list[Port]:
        """Return the outputs."""
        return [_port(port) for port in self._compiled.outputs]

    def run(self, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]) -> list[Any]:
        """Return the outputs with these names."""
        results = self._compiled(dict(inputs))
        return [np.array(results[name]) for name in names]


def open_openvino_file(path: Path, device: str) -> tuple[ModelHeader, OpenVinoSession]:
    """Compile an ``.xml`` file of this package, with its ``.bin``, and read the header from its metadata.

    Raises
    ------
    UserError
        If a file is missing, damaged or was written by another program, if its outputs do not match its
        header, if the device is not the CPU, or if OpenVINO is not installed.
    """
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: an .xml file runs on the CPU; use auto or cpu")
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise UserError(
            f'{path}: an .xml file needs OpenVINO: pip install "landmarks-fastai[openvino]"'
        ) from error
    if not path.with_suffix(".bin").is_file():
        raise UserError(f"{path}: its weights, {path.with_suffix('.bin').name}, are missing; copy both files")
    if path.stat().st_size > MAX_XML_BYTES:
        raise UserError(f"{path}: more than {MAX_XML_BYTES // 10**6} MB, which no model's .xml has")
    core = openvino.Core()
    try:
        model = core.read_model(path)
        found = model.has_rt_info([HEADER_KEY])
        metadata = {HEADER_KEY: model.get_rt_info([HEADER_KEY]).astype(str)} if found else {}
        session = OpenVinoSession(core.compile_model(model, "CPU", SETTINGS))
        ports = [(port.name, port.type, port.shape) for port in list_ports(session)]
    except Exception as error:  # OpenVINO raises RuntimeError and others
        reason = shorten(" ".join(str(error).split()), 100)
        raise UserError(
            f"{path}: not an OpenVINO model, or damaged ({reason}); copy both files again"
        ) from error
    header = read_header(metadata, path)
    check_ports(header, ports, path)
    probe(session, header, path)
    return header, session


def _port(port: Any) -> Port:
    """Describe an input or output; OpenVINO may give it further names than that of the export."""
    name = next((name for name in NAMES if name in port.names), port.any_name)
    kind = "tensor(float)" if port.element_type.get_type_name() == "f32" else str(port.element_type)
    shape = [size.get_length() if size.is_static else "batch" for size in port.partial_shape]
    return Port(name, kind, shape)
