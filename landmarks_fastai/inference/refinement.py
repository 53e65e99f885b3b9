"""Refinement: a crop is re-estimated from the landmarks, and the model runs again, always or if it pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.geometry import Crop, crop_distance
from landmarks_fastai.inference.averaging import average_landmarks
from landmarks_fastai.landmarks import Landmarks

Refine = int | Literal["auto"]
"""Number of refinement passes; "auto": `REFINEMENT_PASSES` for each face for which another pass pays."""

REFINEMENT_PASSES = 1
"""Default number of refinement passes; measured in benchmarks/refinement.md."""

MAX_CROP_CHANGE = 0.25
"""A pass is not averaged if its crop differs by this much or more from that of the last pass (`crop_change`):
landmarks predicted in a crop that cuts off the face, or shows it far too small, are inaccurate, whatever
their confidence. Measured in benchmarks/refinement.md."""

MIN_CROP_CHANGE = 0.12
"""Another pass does not pay for a confident face whose crop would change by less than this (`crop_change`).
Measured in benchmarks/one_face.md."""

CONFIDENT_RATIO = 0.93
"""Confidence of a confident face, relative to the typical confidence of the model (`typical_confidence`).
Measured in benchmarks/one_face.md."""


def refine_landmarks(
    predict: Callable[[Sequence[Crop]], Landmarks],
    crop_around: Callable[[NDArray[np.float32]], Crop | None],
    crops: Sequence[Crop],
    passes: int,
    confident: float,
) -> Landmarks:
    """Predict landmarks, and refine them in further passes.

    Parameters
    ----------
    predict
        Returns the landmarks in N crops, with the crops.
    crop_around
        Returns the crop in which (K, 2) landmarks lie as in training; None if they determine none.
    crops
        The N initial crops.
    passes
        Number of refinement passes.
    confident
        A face with at least this mean confidence whose crop would change by less than `MIN_CROP_CHANGE` is
        not refined further; infinite: every face runs in every pass, as those of unknown confidence do.

    Returns
    -------
    Landmarks
        The passes of each face with similar crops, averaged (`average_landmarks`); without confidence, the
        last pass.
    """
    last = predict(crops)
    results, ran = [last], [np.ones(len(crops), bool)]
    active = np.arange(len(crops))
    for _ in range(passes):
        estimates = _changed_crops(last, active, crop_around, confident)
        if not estimates:
            break
        active = np.array(list(estimates))
        last = _replace_rows(last, active, predict(list(estimates.values())))
        results.append(last)
        ran.append(np.isin(np.arange(len(crops)), active))
    if len(results) == 1 or not np.isfinite(last.scales).all():
        return last
    similar = np.stack([_have_similar_crops(one, last) for one in results])
    return average_landmarks(results, similar & np.stack(ran))


def crop_change(first: Crop, second: Crop) -> float:
    """Return how much two crops differ: `crop_distance` plus the difference of the rolls in radians."""
    return crop_distance(first, second) + math.radians(abs(first.roll - second.roll))


def _changed_crops(
    faces: Landmarks,
    rows: NDArray[np.int64],
    crop_around: Callable[[NDArray[np.float32]], Crop | None],
    confident: float,
) -> dict[int, Crop]:
    """Return the re-estimated crops of those of the given rows for which another pass pays."""
    assert faces.crops is not None
    confidence = faces.face_confidence
    crops = {}
    for row in rows.tolist():
        crop = crop_around(faces.points[row])
        if crop is None:  # another pass would be the same
            continue
        if confidence[row] >= confident and crop_change(faces.crops[row], crop) < MIN_CROP_CHANGE:
            continue
        crops[row] = crop
    return crops


def _replace_rows(faces: Landmarks, rows: NDArray[np.int64], replacements: Landmarks) -> Landmarks:
    """Return the faces with those at `rows` replaced."""
    order = np.arange(len(faces))
    order[rows] = len(faces) + np.arange(len(rows))
    return Landmarks.concatenate([faces, replacements], faces.schema)[order]


def _have_similar_crops(one: Landmarks, last: Landmarks) -> NDArray[np.bool_]:
    """Return a (N,) mask of the faces whose crop in a pass is similar to that in the last pass."""
    assert one.crops is not None
    assert last.crops is not None
    changes = [crop_change(a, b) for a, b in zip(one.crops, last.crops, strict=True)]
    return np.array([change < MAX_CROP_CHANGE for change in changes], bool)
