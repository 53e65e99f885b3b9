"""From a network to one ONNX file that takes bytes and gives pixels, checked before it is kept.

Knows how torch exports and how to compare the result; nothing about pictures. Normalisation and the
way back to pixels stand inside the graph, so that other programs need only the file.
"""

from __future__ import annotations

import copy
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.files import replacing
from landmarks_fastai.inference.modelfile import HEADER_KEY, LoadedModel, ModelHeader, open_model
from landmarks_fastai.inference.predictor import onnx_run, torch_run

if TYPE_CHECKING:
    from torch import nn

OPSET = 17

TOLERANCE = 0.01
"""Pixels by which ONNX Runtime may differ from torch."""


def export_onnx(network: nn.Module, header: ModelHeader, path: str | Path) -> None:
    """Write a network as one ONNX file, run it, and keep it only if it finds what torch finds.

    The file's input "image" is (N, C, S, S) float32 of 0 to 255, its output "points" (N, K, 2) float32,
    x then y, pixels of that input; N is free. A network that knows its points' Laplace scales gives them as
    "scales" (N, K), in the same pixels. The header stands in its metadata.

    Parameters
    ----------
    network
        Maps normalised images to scaled points; is left as it is, wherever it is.
    header
        What the file shall say of itself.
    path
        The file, which must end in ``.onnx``. Its folder is made where it is missing.

    Raises
    ------
    UserError
        If `path` has another end, or the packages onnx and onnxruntime are not there.
    RunError
        If the export fails, differs from torch by more than `TOLERANCE`, or can't be written. There is
        no file then, or still the earlier one.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise UserError(f"{path}: an ONNX file must be called .onnx")
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"{path}: the export needs another package: pip install {' '.join(missing)}")
    import onnx

    network = copy.deepcopy(network).cpu().float().eval()
    with replacing(path) as part:
        try:
            _write(network, header, part)
            graph = onnx.load(part)
            onnx.helper.set_model_props(graph, {HEADER_KEY: json.dumps(header.to_dict())})
            onnx.save(graph, part)
        except OSError:
            raise
        except Exception as error:  # exporters raise what the first operator they can't translate makes them
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{path}: torch can't export this network: {reason}") from error
        difference = _difference(network, header, open_model(part, device="cpu"))
        # written so that a NaN is not kept either
        if not difference < TOLERANCE:
            raise RunError(f"{path}: not kept: ONNX Runtime's points are {difference:.3g} px from torch's")


def _write(network: nn.Module, header: ModelHeader, path: Path) -> None:
    """Export with normalisation before, and the way back to pixels behind the network."""
    import torch

    from landmarks_fastai.network import BytesToPixels

    whole = BytesToPixels(network, header.mean, header.std, header.input_size, header.scale_factor)
    example = torch.zeros(2, header.channels, header.input_size, header.input_size)
    with torch.inference_mode():
        outputs = ["points", "scales"][: len(whole.eval()(example))]
    with warnings.catch_warnings():
        # The newer exporter (dynamo=True) takes ten times as long, needs onnxscript and writes the paths
        # of the user's source files into the model; the elder one only warns that it is the elder.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ("image", *outputs)},
        )


def _difference(network: nn.Module, header: ModelHeader, exported: LoadedModel) -> float:
    """Return by how many pixels torch and ONNX Runtime differ at most, on noise, in batches of 1 and 3."""
    runs = torch_run(network, header, "cpu"), onnx_run(exported)[0]
    noise = np.random.default_rng(0)
    worst = 0.0
    for batch in (1, 3):
        shape = (batch, header.input_size, header.input_size, header.channels)
        crops = noise.integers(0, 256, shape, dtype=np.uint8)
        for expected, found in zip(*(run(crops) for run in runs), strict=True):
            worst = float(np.maximum(worst, np.abs(expected - found).max()))
    return worst
