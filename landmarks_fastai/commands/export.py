"""Write a trained model as one file for distribution, such as at half precision or for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import numpy as np

from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.export.onnx import export_onnx
from landmarks_fastai.inference.backends import torch_backend
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import save_model
from landmarks_fastai.utils.files import atomic_write, remove_stale_partials

MAX_DEVIATION = 0.02
"""Largest accepted difference of a predicted coordinate, in pixels of 96 px images."""

CHECKED_FACES = 64
"""Number of synthetic faces on which the predictions are compared."""


def export_model(
    model: str | Path,
    out: str | Path,
    half: bool = False,
    overwrite: bool = False,
    max_deviation: float = MAX_DEVIATION,
) -> float:
    """Write a model as another file, and compare the predictions of both.

    Paths in the model's config are reduced to their last part.

    Parameters
    ----------
    model
        A ``.safetensors`` file, run folder or name of a released model.
    out
        The file to write: ``.safetensors`` or ``.onnx``.
    half
        Store the weights at half precision (``.safetensors`` only); they are used at full precision.
    overwrite
        Replace an existing file.
    max_deviation
        Largest accepted difference of a predicted coordinate, in pixels of 96 px images.

    Returns
    -------
    float
        Largest difference of a coordinate on synthetic faces, in pixels of 96 px images.

    Raises
    ------
    UserError
        If the model has no torch weights, `out` exists, or its suffix is not supported.
    RunError
        If a prediction differs by more than `max_deviation`; no file is written then.
    """
    out = Path(out)
    suffix = out.suffix.lower()
    if suffix not in (".safetensors", ".onnx"):
        raise UserError(f"{out}: models are written as .safetensors or .onnx; use one of these suffixes")
    if half and suffix != ".safetensors":
        raise UserError("--half is for .safetensors files only; remove it, or write a .safetensors file")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: already exists; choose another name, or use --overwrite")
    remove_stale_partials(out.parent, [out.name])
    opened = open_model(model)
    header, network = opened.header, opened.network
    if network is None:
        raise UserError(f"{model}: an ONNX file cannot be converted; use the .safetensors file next to it")
    images = draw_synthetic_faces(CHECKED_FACES, seed=0, size=96).images
    original = Predictor(header, torch_backend(network, header, "cpu")).predict_batch(images).points
    header = header.model_copy(update={"config": _strip_folders(header.config)})
    with atomic_write(out) as partial:
        if suffix == ".onnx":
            export_onnx(network, header, partial)
        else:
            save_model(partial, network.state_dict(), header, half=half)
        exported = Predictor.open(partial, "cpu").predict_batch(images).points
        deviation = float(np.abs(exported - original).max())
        if not deviation <= max_deviation:  # also true for NaN
            advice = "export without --half" if half else "export as .safetensors"
            raise RunError(
                f"{out}: not written, because a prediction differs by {deviation:.3g} px"
                f" (at most {max_deviation:g} px are accepted); {advice}"
            )
    return deviation


def _strip_folders(config: dict[str, Any]) -> dict[str, Any]:
    """Reduce the paths in a config to their last part, so that a distributed file reveals no folders."""
    stripped = {group: dict(config.get(group, {})) for group in ("data", "model")}
    for group, key in (("data", "source"), ("data", "corrections"), ("model", "init_from")):
        path = stripped[group].get(key)
        if isinstance(path, str):
            stripped[group][key] = PurePath(path).name
    return {**config, **stripped}
