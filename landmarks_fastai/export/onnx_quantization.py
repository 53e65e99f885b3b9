"""Static quantization of an ONNX model: 8-bit integers with ranges from calibration images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.export.job import ExportJob, Images, network_inputs
from landmarks_fastai.utils.onnx_runtime import import_onnxruntime

QUANTIZED_OPERATORS = ["Conv", "Relu", "Add", "MaxPool"]
"""Those of the backbone. The head, whose softmax and sums give the coordinates, stays in float32."""


def quantize(model: bytes, job: ExportJob) -> bytes:
    """Return a quantized copy of a serialized ONNX model, with weights per channel (QDQ format)."""
    import_onnxruntime()  # first, because it switches the telemetry off
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    assert job.calibration is not None
    with tempfile.TemporaryDirectory() as folder:
        original, prepared, quantized = (Path(folder, f"{name}.onnx") for name in ("in", "ready", "out"))
        original.write_bytes(model)
        quant_pre_process(original, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            CalibrationReader(job.calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED_OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return quantized.read_bytes()


class CalibrationReader:
    """Gives ONNX Runtime one calibration image after the other.

    Parameters
    ----------
    images
        (N, S, S, C) uint8.
    """

    def __init__(self, images: Images) -> None:
        self._batches = self._inputs(images)

    @staticmethod
    def _inputs(images: Images) -> Iterator[dict[str, NDArray[np.float32]]]:
        for image in images:
            yield {"image": network_inputs(image[None])}

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next input by name; None at the end."""
        return next(self._batches, None)
