"""Write a trained model as one file to hand on: smaller, or for another runtime."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import numpy as np

from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.files import replacing
from landmarks_fastai.inference.modelfile import open_model, save_model
from landmarks_fastai.inference.onnx_export import export_onnx
from landmarks_fastai.inference.predictor import Predictor, torch_run

MOVED = 0.02
"""How far a point may move at most when the weights lose half of their digits, px of 96 px images."""

DRAWN = 64
"""Faces that the points are compared on."""


def export_model(model: Path, out: Path, half: bool = False, overwrite: bool = False) -> float:
    """Write a model file as another one.

    Parameters
    ----------
    model
        A ``.safetensors`` file or run folder.
    out
        The file: ``.safetensors`` or ``.onnx``.
    half
        Keep weights at half precision (``.safetensors`` only); they are computed with in full.
    overwrite
        Replace what is there.

    Returns
    -------
    float
        By how many px the new file's points differ at most, on drawn faces of 96 px.

    Raises
    ------
    UserError
        If the model has no torch weights, `out` is there already, or its name has another end.
    RunError
        If half precision moves a point by more than `MOVED`; nothing is left then.
    """
    kind = out.suffix.lower()
    if kind not in (".safetensors", ".onnx"):
        raise UserError(f"{out}: models are written as .safetensors or .onnx; choose one of these ends")
    if half and kind != ".safetensors":
        raise UserError("--half goes with a .safetensors file")
    if out.exists() and not overwrite:
        raise UserError(f"{out} is there already; choose another name or use --overwrite")
    opened = open_model(model)
    header, network = opened.header, opened.network
    if network is None:
        raise UserError(f"{model}: an ONNX file has no weights to write; name the .safetensors beside it")
    faces = draw_faces(DRAWN, seed=0, size=96).images
    before = Predictor(header, torch_run(network, header, "cpu")).predict_crops(faces).points
    header = header.model_copy(update={"recipe": _without_folders(header.recipe)})
    with replacing(out) as part:
        if kind == ".onnx":
            export_onnx(network, header, part)
        else:
            save_model(part, network.state_dict(), header, half=half)
        moved = float(np.abs(Predictor.open(part, "cpu").predict_crops(faces).points - before).max())
        if not moved <= MOVED:
            raise RunError(f"{out}: not written: a point moved by {moved:.3g} px; leave --half out")
    return moved


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave of the paths in a recipe their last part: what is handed on tells nobody of this machine."""
    parts = {part: dict(recipe.get(part, {})) for part in ("data", "model")}
    for part, key in (("data", "source"), ("data", "fixes"), ("model", "start")):
        if isinstance(parts[part].get(key), str):
            parts[part][key] = PurePath(parts[part][key]).name
    return {**recipe, **parts}
