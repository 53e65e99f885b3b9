"""Export to OpenVINO's intermediate representation: an .xml file, and the weights in a .bin next to it."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from landmarks_fastai.export.job import FP32, ExportJob, Writer
from landmarks_fastai.export.onnx import onnx_graph
from landmarks_fastai.export.record import EXPORT_KEY
from landmarks_fastai.inference.backends import Backend, onnx_backend
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.utils.openvino_runtime import import_openvino


def convert(job: ExportJob) -> Writer:
    """Convert a network by way of ONNX, with int8 by that of its quantization.

    With fp16 and int8, all other weights are float16 in the file. OpenVINO computes in float32 on a CPU, in
    float16 on a GPU.
    """
    openvino = import_openvino()
    model = openvino.Core().read_model(BytesIO(onnx_graph(job)))

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        for key, value in metadata.items():
            model.set_rt_info(value, [key])
        openvino.save_model(model, path, compress_to_fp16=job.precision != FP32)

    return write


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open a file on the CPU, as a prediction does."""
    return onnx_backend(open_model(path, device="cpu"))


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    model = import_openvino().Core().read_model(path)
    return {key: model.get_rt_info([key]).astype(str) for key in (HEADER_KEY, EXPORT_KEY)}
