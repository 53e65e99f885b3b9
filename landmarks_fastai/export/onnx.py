"""Export to ONNX: one file, whose output is compared with that of torch before it is kept.

The graph maps pixel values from 0 to 255 to points in pixels: it includes normalization and the conversion to
pixels, so that other programs need only the file.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.backends import onnx_backend, pixel_network_of, torch_backend
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.utils.files import atomic_write

if TYPE_CHECKING:
    from torch import nn

OPSET = 17

TOLERANCE = 0.05
"""Largest accepted difference between ONNX Runtime and torch, in pixels, and in percent of visibility.

A network that was trained for a few iterations magnifies the rounding of float32 to 0.015 px on the images of
noise; errors of landmarks are at least ten times as large as this limit.
"""

CHECKED_BATCH_SIZES = (1, 3)


def export_onnx(network: nn.Module, header: ModelHeader, path: str | Path) -> None:
    """Write a network as an ONNX file, and keep it only if its output matches that of torch.

    The input "image" is (N, C, S, S) float32 with values from 0 to 255; the output "points" is (N, K, 2)
    float32, (x, y) in pixels of the input. If the network predicts Laplace scales, the output "scales" is
    (N, K) float32, in the same pixels; if it predicts visibility, the output "visibility" is (N, K) float32,
    the calibrated probability that a landmark is visible. N is dynamic. The header is stored in the metadata.

    Parameters
    ----------
    network
        Maps normalized images to normalized points; it is not modified.
    header
        The model's header.
    path
        The file, with the suffix ``.onnx``; its folder is created if needed.

    Raises
    ------
    UserError
        If `path` has another suffix, or the packages onnx and onnxruntime are not installed.
    RunError
        If the export fails, its output differs from that of torch by more than `TOLERANCE`, or the file
        cannot be written. An existing file is then unchanged.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise UserError(f"{path}: not an ONNX file name; use the suffix .onnx")
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"{path}: the export needs more packages: pip install {' '.join(missing)}")
    import onnx

    network = copy.deepcopy(network).cpu().float().eval()
    with atomic_write(path) as partial:
        try:
            _export_graph(network, header, partial)
            model = onnx.load(partial)
            onnx.helper.set_model_props(model, {HEADER_KEY: json.dumps(header.to_dict())})
            onnx.save(model, partial)
        except OSError:
            raise
        except Exception as error:  # torch raises various types for operators that it cannot export
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{path}: torch cannot export this network: {reason}") from error
        difference = _max_difference(network, header, partial)
        if not difference < TOLERANCE:  # also true for NaN
            raise RunError(
                f"{path}: not written, because the output of ONNX Runtime differs by {difference:.3g} px from"
                " that of torch"
            )


def _export_graph(network: nn.Module, header: ModelHeader, path: Path) -> None:
    """Export the network with pixel normalization before it and the conversion to pixels after it."""
    import torch

    pixel_network = pixel_network_of(network, header)
    example = torch.zeros(2, header.channels, header.input_size, header.input_size)
    with torch.inference_mode():
        outputs = pixel_network.output_names(len(pixel_network(example)))
    with warnings.catch_warnings():
        # the newer exporter (dynamo=True) takes ten times as long, needs onnxscript and stores the paths of
        # the user's source files in the model; the older one only warns that it is deprecated
        warnings.simplefilter("ignore")
        torch.onnx.export(
            pixel_network,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ("image", *outputs)},
        )


def _max_difference(network: nn.Module, header: ModelHeader, exported: Path) -> float:
    """Return the largest difference between torch and ONNX Runtime on random images; NaN if torch has one.

    In pixels; a difference of 1 % in the probability of visibility counts as 1.
    """
    rng = np.random.default_rng(0)
    side, channels = header.input_size, header.channels
    batches = [
        rng.integers(0, 256, (size, side, side, channels), dtype=np.uint8) for size in CHECKED_BATCH_SIZES
    ]
    outputs = list(map(torch_backend(network, header, "cpu"), batches))
    if not all(np.isfinite(output).all() for batch in outputs for output in batch):
        return math.nan  # such a file cannot be opened
    backend = onnx_backend(open_model(exported, device="cpu"))
    largest = 0.0
    for batch, expected_outputs in zip(batches, outputs, strict=True):
        differences = [
            np.abs(expected - actual).max()
            for expected, actual in zip(expected_outputs, backend(batch), strict=True)
        ]
        if header.predicts_visibility:
            differences[-1] *= 100
        largest = float(np.max([largest, *differences]))  # np.max keeps NaN
    return largest
