"""PCK: hand-computed values, masks and refused thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.small_faces import PRED, TRIANGLE, TRUE, random_points
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.metrics import inter_ocular_distance
from landmarks_fastai.evaluation.pck import PCK_THRESHOLDS, pck, relative_distances


def test_pck_equals_hand_computed_fraction() -> None:
    # every face has eyes 10 apart; distances 5, 0, 6 | 1, 1, unlabeled | 0.4, 0.4, 0.4
    normalizer = inter_ocular_distance(TRUE, TRIANGLE)
    assert pck(PRED, TRUE, normalizer, 0.05) == pytest.approx(4 / 8)
    assert pck(PRED, TRUE, normalizer, 0.1) == pytest.approx(6 / 8)
    assert pck(PRED, TRUE, normalizer, 0.55) == pytest.approx(7 / 8)


def test_pck_counts_a_landmark_at_the_threshold() -> None:
    true = np.zeros((1, 1, 2))
    assert pck(true + np.array([0, 2]), true, [4.0], 0.5) == 1.0
    assert pck(true + np.array([0, 2.001]), true, [4.0], 0.5) == 0.0


def test_pck_leaves_out_faces_without_normalizer() -> None:
    normalizer = [10.0, math.nan, 0.0]
    assert pck(PRED, TRUE, normalizer, 0.1) == pytest.approx(1 / 3)
    assert math.isnan(pck(PRED, TRUE, [math.nan] * 3, 0.1))


def test_pck_does_not_mask_a_prediction_that_is_no_number() -> None:
    pred = PRED.copy()
    pred[0, 1] = math.nan  # was exact
    assert pck(pred, TRUE, inter_ocular_distance(TRUE, TRIANGLE), 0.05) == pytest.approx(3 / 8)


@pytest.mark.parametrize("threshold", [0.0, -0.1, math.nan, math.inf])
def test_pck_refuses_threshold_that_is_not_positive(threshold: float) -> None:
    with pytest.raises(UserError, match="PCK threshold must be larger than 0"):
        pck(PRED, TRUE, [1, 1, 1], threshold)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_pck_grows_with_threshold_and_ignores_scale(seed: int, factor: float) -> None:
    pred, true = random_points(seed)
    normalizer = np.full(len(true), 20.0)
    values = [pck(pred, true, normalizer, threshold) for threshold in (0.05, 0.1, 0.2, 0.4)]
    assert values == sorted(values)
    # a threshold that no distance equals, so that rounding cannot matter
    threshold = 0.1234567
    assert abs(relative_distances(pred, true, normalizer) - threshold)[~np.isnan(true[..., 0])].min() > 1e-9
    scaled = pck(factor * pred, factor * true, factor * normalizer, threshold)
    assert scaled == pck(pred, true, normalizer, threshold)


def test_default_thresholds_are_those_of_the_literature() -> None:
    assert PCK_THRESHOLDS == (0.05, 0.1, 0.2)


def test_relative_distances_with_normalizer_below_one_pixel_count() -> None:
    true = np.zeros((2, 1, 2))
    relative = relative_distances(true + np.array([0.3, 0.4]), true, [0.5, 0.25])
    np.testing.assert_allclose(relative, [[1.0], [2.0]])
