"""Points of three small faces for metrics computed by hand, and random points."""

from __future__ import annotations

import math

import numpy as np

from landmarks_fastai.schema import LandmarkSchema

TRIANGLE = LandmarkSchema(
    name="triangle",
    names=("left_eye", "right_eye", "chin"),
    flip_pairs=(("left_eye", "right_eye"),),
    eyes=(("left_eye",), ("right_eye",)),
)
EYELESS = LandmarkSchema(name="eyeless", names=("a", "b", "c"))

TRUE = np.array(
    [
        [[10, 10], [20, 10], [15, 22]],  # eyes 10 apart, box 10 by 12
        [[0, 0], [8, 6], [math.nan, math.nan]],  # eyes sqrt(64 + 36) = 10 apart; 2 landmarks give no box
        [[5, 5], [15, 5], [10, 15]],  # eyes 10 apart, box 10 by 10
    ]
)
OFFSETS = np.array(
    [
        [[3, 4], [0, 0], [0, -6]],  # distances 5, 0, 6: mean 11/3
        [[1, 0], [0, 1], [70, 70]],  # distances 1, 1; the chin is unlabeled
        [[0.4, 0], [0.4, 0], [0.4, 0]],  # distances 0.4
    ]
)
PRED = np.where(np.isnan(TRUE), 0, TRUE) + OFFSETS
COMPLETE = np.array([True, False, True])


def random_points(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 15, 2) predicted and true points, of which about 30 % are unlabeled."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 96, (n, 15, 2))
    true[rng.random((n, 15)) < 0.3] = math.nan
    return np.where(np.isnan(true), 48, true) + rng.normal(0, 3, true.shape), true
