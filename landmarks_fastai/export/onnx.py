"""Export to ONNX: one file, which ONNX Runtime and other programs run.

The graph maps pixel values from 0 to 255 to points in pixels: it includes normalization and the conversion to
pixels, so that other programs need only the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landmarks_fastai.errors import UserError
from landmarks_fastai.export.exporting import ExportOptions, export_network
from landmarks_fastai.export.job import FP16, INT8, ExportJob, Images, Writer
from landmarks_fastai.export.record import ExportRecord
from landmarks_fastai.export.targets import TARGETS
from landmarks_fastai.inference.backends import Backend, onnx_backend
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.loading import open_model

if TYPE_CHECKING:
    from torch import nn

OPSET = 17


def export_onnx(
    network: nn.Module, header: ModelHeader, path: str | Path, faces: Images | None = None
) -> ExportRecord:
    """Write a network as an ONNX file in float32, and keep it only if its output matches that of torch.

    The input "image" is (N, C, S, S) float32 with values from 0 to 255; the output "points" is (N, K, 2)
    float32, (x, y) in pixels of the input. If the network predicts Laplace scales, the output "scales" is
    (N, K) float32, in the same pixels; if it predicts visibility, the output "visibility" is (N, K) float32,
    the calibrated probability that a landmark is visible. N is dynamic. The header and the deviation from
    torch are stored in the metadata.

    Parameters
    ----------
    network
        Maps normalized images to normalized points; it is not modified.
    header
        The model's header.
    path
        The file, with the suffix ``.onnx``; its folder is created if needed.
    faces
        (N, S, S, C) uint8 inputs of the network on which the file is compared with torch; None: synthetic
        faces.

    Raises
    ------
    UserError
        If `path` has another suffix, or the packages onnx and onnxruntime are not installed.
    RunError
        If the export fails, the output differs too much from that of torch
        (`landmarks_fastai.export.checks`), or the file cannot be written. An existing file is then unchanged.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise UserError(f"{path}: not an ONNX file name; use the suffix .onnx")
    return export_network(network, header, path, TARGETS["onnx"], ExportOptions(faces=faces))


def convert(job: ExportJob) -> Writer:
    """Convert a network; with fp16, weight matrices and convolutions are float16 in the file.

    ONNX Runtime uses them as float32. With int8, see `landmarks_fastai.export.onnx_quantization`.
    """
    import onnx

    model = onnx.load_from_string(onnx_graph(job))
    if job.precision == FP16:
        store_half(model)

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        onnx.helper.set_model_props(model, dict(metadata))
        path.write_bytes(model.SerializeToString())

    return write


def onnx_graph(job: ExportJob) -> bytes:
    """Return the network as a serialized ONNX model; quantized if the precision is int8, else in float32."""
    if job.precision == INT8:
        from landmarks_fastai.export.onnx_quantization import quantize

        return quantize(_float_graph(job), job)
    return _float_graph(job)


def _float_graph(job: ExportJob) -> bytes:
    """Return the network as a serialized float32 ONNX model."""
    import torch

    file, outputs = BytesIO(), job.output_names()
    with warnings.catch_warnings():
        # the older exporter warns that it is deprecated; with torch 2.14 the newer one (dynamo=True) took
        # 41 s instead of 0.7 s for a ResNet18, needs onnxscript, and stored 236 paths of the user's
        # installation in the model
        warnings.simplefilter("ignore")
        torch.onnx.export(
            job.network,
            (job.example(2),),
            file,  # type: ignore[arg-type] # which the older exporter accepts
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ("image", *outputs)},
        )
    return file.getvalue()


def store_half(model: Any) -> None:
    """Replace the float32 weights with two or more axes by float16 ones that are cast to float32, in place.

    A runtime folds the casts when it opens the file, so that only its size changes.
    """
    import numpy as np
    import onnx

    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        name, values = weight.name, onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]  # in topological order
    del graph.node[:]
    graph.node.extend(nodes)


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open a file with ONNX Runtime, as a prediction does."""
    return onnx_backend(open_model(path, device="cpu"))


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}
