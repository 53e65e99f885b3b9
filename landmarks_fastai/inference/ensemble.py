"""Several models that answer as one: each looks in its own way, and the surer of a point counts for more.

Knows predictors and how to average what they find; nothing about what is in a model file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.framing import Square
from landmarks_fastai.inference.predictor import Landmarks, Predictor, mean_landmarks


class Ensemble(Predictor):
    """The mean of several models, wherever one is wanted.

    Each model is shown its own cut of a face's square, in its own size and channels. `header` is the first
    one's, with the mean of their mean faces, by which all of them refine.

    Parameters
    ----------
    members
        Two models or more, of one schema.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        faces = [member.header.mean_face for member in members]
        mean_face = None if None in faces else np.mean(np.array(faces, np.float64), axis=0).tolist()
        self.header = members[0].header.model_copy(update={"mean_face": mean_face})
        self.device = members[0].device
        self._members = tuple(members)

    @property
    def name(self) -> str:
        """What a curve of it is called."""
        return f"mean of {len(self._members)} models"

    def _find(
        self, faces: Sequence[tuple[NDArray[np.uint8], Square]], batch_size: int, flip: bool
    ) -> Landmarks:
        return mean_landmarks([member._find(faces, batch_size, flip) for member in self._members])


def open_models(paths: Sequence[Path], device: str = "auto", trust_pickle: bool = False) -> Predictor:
    """Open one model file, or several as their mean.

    Parameters
    ----------
    paths
        What `resolve_models` gave.
    device, trust_pickle
        As `Predictor.open` takes them.

    Raises
    ------
    UserError
        If one can't be opened, or finds other points than the first.
    """
    members = [Predictor.open(path, device, trust_pickle) for path in paths]
    first = members[0].schema
    for path, member in zip(paths, members, strict=True):
        if member.schema.points != first.points:
            raise UserError(
                f"{path} finds the {len(member.schema)} points of {member.schema.name}, and {paths[0]} the"
                f" {len(first)} of {first.name}; only models of the same points have a mean"
            )
    return members[0] if len(members) == 1 else Ensemble(members)
