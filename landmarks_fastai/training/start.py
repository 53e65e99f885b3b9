"""What a run begins with: an earlier model's weights, and a word on the faces that this one may have seen.

Knows model files and the data.json beside those of a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fastai.learner import Learner

from landmarks_fastai.config import Recipe
from landmarks_fastai.data.split import Split
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.files import read_json
from landmarks_fastai.inference.modelfile import LoadedModel, open_model, resolve_model
from landmarks_fastai.training.begin import begin_with
from landmarks_fastai.training.callbacks import FindLabelShift
from landmarks_fastai.training.learner import augmentation


def find_start(start: str) -> Path:
    """Return the model file that a recipe's `model.start` names.

    Raises
    ------
    UserError
        If there is none, or it is no safetensors file.
    """
    try:
        path = resolve_model(start)
    except UserError as error:
        raise UserError(f"model.start: {error}") from error
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"model.start {start}: not a file of weights to go on with; name a .safetensors")
    return path


def check_start(model: LoadedModel, recipe: Recipe, table: FaceTable, parts: Split) -> bool:
    """Tell whether it is known that a model was trained on none of the faces that are to validate.

    Raises
    ------
    UserError
        If it was trained on some.
    """
    data = _data_beside(model.path)
    if data is None or model.header.recipe.get("model", {}).get("start") is not None:
        return False
    if data["sha256"] != table.digest:
        return True
    limited = recipe.data.limit is not None and model.header.recipe.get("seed") != recipe.seed
    if data.get("fixes") != table.fixes or data["rows"] != len(table) or limited:
        return False  # its rows have other numbers
    seen = np.intersect1d(data["split"]["train"], parts.valid)
    if len(seen):
        raise UserError(
            f"model.start {model.path}: it was trained on {len(seen):,} of the {len(parts.valid):,} faces"
            " that are to validate here; split them as it did (same seed, split and valid_fraction)"
        )
    return True


def _data_beside(path: Path) -> dict[str, Any] | None:
    """Read the data.json of the run that a model file lies in, if it lies in one."""
    file = path.parent / "data.json"
    if not file.is_file() or not (path.parent / "config.yaml").is_file():
        return None
    try:
        data = read_json(file)
        return data if {"sha256", "rows"} <= data.keys() and "train" in data["split"] else None
    except (UserError, KeyError, TypeError):
        return None


def begin_from(learn: Learner, model: LoadedModel, table: FaceTable) -> None:
    """Take up the weights of an earlier model, and how its labels lay if its points are the same.

    Raises
    ------
    UserError
        If it does not fit.
    """
    assert model.network is not None, "not from a safetensors file"
    points = model.header.landmarks.points
    same = points == table.schema.points
    try:
        begin_with(learn.model, model.network.state_dict(), same, len(points))
    except UserError as error:
        raise UserError(f"model.start {model.path}: {error}") from error
    if same and any(isinstance(callback, FindLabelShift) for callback in learn.cbs):
        augmentation(learn.dls).label_shift = model.header.label_shift


def open_start(recipe: Recipe) -> LoadedModel | None:
    """Open what a recipe begins with, if it does."""
    return None if recipe.model.start is None else open_model(find_start(recipe.model.start))


def said_of_start(model: LoadedModel, known: bool) -> str:
    """Return a sentence about what a run begins with, and about whether `check_start` knew."""
    doubt = "" if known else "; if it was trained on faces that validate here, their numbers are too good"
    return f"begins with {model.path}{doubt}"
