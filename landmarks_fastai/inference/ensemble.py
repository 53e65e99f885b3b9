"""Ensembles: several models whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.inference.averaging import average_landmarks
from landmarks_fastai.inference.backends import AUTO
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.header import ModelHeader


class Ensemble(Predictor):
    """The inverse-variance weighted mean of several models.

    Each model extracts crops of its own input size and channels. `header` is that of the first model, with
    the mean of all mean shapes for refinement.

    Parameters
    ----------
    members
        Two or more models with the same landmarks.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        shapes = [member.header.mean_shape for member in members]
        mean_shape = None if None in shapes else np.mean(np.array(shapes, np.float64), axis=0).tolist()
        self.header = members[0].header.model_copy(update={"mean_shape": mean_shape})
        self._members = tuple(members)

    @property
    def headers(self) -> tuple[ModelHeader, ...]:
        """The header of each model."""
        return tuple(header for member in self._members for header in member.headers)

    @property
    def name(self) -> str:
        """Label of this ensemble in plots."""
        return f"mean of {len(self._members)} models"

    @property
    def predicts_visibility(self) -> bool:
        """Whether any of the models predicts visibility."""
        return any(member.predicts_visibility for member in self._members)

    @property
    def estimates_confidence(self) -> bool:
        """Whether all models estimate confidence."""
        return all(member.estimates_confidence for member in self._members)

    @property
    def default_min_confidence(self) -> float:
        """Mean of the defaults of the models; 0 if one of them does not estimate confidence."""
        defaults = [member.default_min_confidence for member in self._members]
        return float(np.mean(defaults)) if self.estimates_confidence else 0.0

    @property
    def synthetic(self) -> bool:
        """Whether any of the models was trained on synthetic data."""
        return any(member.synthetic for member in self._members)

    def _predict_faces(
        self, faces: Sequence[tuple[NDArray[np.uint8], Crop]], batch_size: int, flip: bool
    ) -> Landmarks:
        return average_landmarks([member._predict_faces(faces, batch_size, flip) for member in self._members])


def open_predictors(
    paths: Sequence[Path],
    device: str = "auto",
    trust_pickle: bool = False,
    backend: str = AUTO,
    note: Callable[[str], None] | None = None,
) -> Predictor:
    """Open one model file, or several as an ensemble.

    Parameters
    ----------
    paths
        Model files, as `resolve_models` returns them.
    device, trust_pickle, backend, note
        See `Predictor.open`.

    Raises
    ------
    UserError
        If a model cannot be opened, or predicts other landmarks than the first.
    """
    members = [Predictor.open(path, device, trust_pickle, backend, note) for path in paths]
    first = members[0].schema
    for path, member in zip(paths, members, strict=True):
        if member.schema.names != first.names:
            raise UserError(
                f"{path} predicts the {len(member.schema)} landmarks of {member.schema.name}, but {paths[0]}"
                f" the {len(first)} of {first.name}; only models with the same landmarks can be averaged"
            )
    return members[0] if len(members) == 1 else Ensemble(members)
