"""Export to TensorRT: an engine for the GPU of this machine, which other GPUs do not run.

An engine is a program: `predict` does not open it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.export.job import FP16, ExportJob, Images, Writer, network_inputs
from landmarks_fastai.export.onnx import onnx_graph
from landmarks_fastai.inference.backends import Backend
from landmarks_fastai.model_files.header import ModelHeader

MAX_BATCH = 64
"""Largest batch that an engine accepts."""

LENGTH_BYTES = 8
"""A file begins with the length of its metadata as a little-endian integer; the metadata, as JSON, follow."""


def convert(job: ExportJob) -> Writer:
    """Build an engine by way of ONNX; with fp16, it computes in float16 where that is faster.

    Raises
    ------
    UserError
        If this machine has no NVIDIA GPU.
    RunError
        If TensorRT cannot build it.
    """
    _require_gpu()
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network()
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(onnx_graph(job)):
        raise RunError(f"TensorRT cannot read the network: {parser.get_error(0).desc()}")
    settings = builder.create_builder_config()
    if job.precision == FP16:
        settings.set_flag(tensorrt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    channels, side = job.header.channels, job.header.input_size
    profile.set_shape("image", *((batch, channels, side, side) for batch in (1, 1, MAX_BATCH)))
    settings.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, settings)
    if engine is None:
        raise RunError("TensorRT cannot build an engine for this GPU")

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        entries = json.dumps(dict(metadata)).encode()
        path.write_bytes(len(entries).to_bytes(LENGTH_BYTES, "little") + entries + bytes(engine))

    return write


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open an engine on the first GPU."""
    _require_gpu()
    import tensorrt
    import torch

    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine: Any = runtime.deserialize_cuda_engine(_split(path)[1])
    context = engine.create_execution_context()
    tensors = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    names = [name for name in tensors if name != "image"]

    def run(images: Images) -> tuple[NDArray[np.float32], ...]:
        image = torch.from_numpy(network_inputs(images)).cuda()
        context.set_input_shape("image", tuple(image.shape))
        outputs = {name: torch.empty(tuple(context.get_tensor_shape(name)), device="cuda") for name in names}
        for name, tensor in {"image": image, **outputs}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return tuple(outputs[name].cpu().numpy() for name in names)

    return run


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    entries: dict[str, str] = json.loads(_split(path)[0])
    return entries


def _split(path: Path) -> tuple[bytes, bytes]:
    """Return the metadata and the engine."""
    content = path.read_bytes()
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    return content[LENGTH_BYTES:end], content[end:]


def _require_gpu() -> None:
    """Raise UserError if torch finds no NVIDIA GPU."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("a TensorRT engine is built for the GPU of this machine, which has no NVIDIA GPU")
