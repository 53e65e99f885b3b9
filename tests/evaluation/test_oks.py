"""OKS: hand-computed values, masks, and equality with COCO's own evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.small_faces import PRED, TRUE, random_points
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.evaluation.oks import oks

SIGMAS = [0.05, 0.1, 0.2]


def test_oks_equals_hand_computed_similarity() -> None:
    # boxes: 10 by 12, none (two landmarks), 10 by 10; squared distances 25, 0, 36 and 0.16 three times
    first = [math.exp(-25 / (2 * 120 * 0.1**2)), 1.0, math.exp(-36 / (2 * 120 * 0.4**2))]
    third = [math.exp(-0.16 / (2 * 100 * (2 * sigma) ** 2)) for sigma in SIGMAS]
    np.testing.assert_allclose(oks(PRED, TRUE, SIGMAS), [np.mean(first), math.nan, np.mean(third)])


def test_oks_leaves_out_landmarks_without_sigma_and_unlabeled_ones() -> None:
    true = np.array([[[0, 0], [10, 0], [5, 10], [5, 5]]], float)
    pred = true + np.array([3, 0])
    alone = math.exp(-9 / (2 * 100 * 0.2**2))
    assert oks(pred, true, [0.1, math.nan, math.nan, math.nan]) == pytest.approx([alone])
    true[0, 3] = math.nan
    assert oks(pred, true, [0.1, math.nan, math.nan, 0.001]) == pytest.approx([alone])
    assert np.isnan(oks(pred, true, [math.nan] * 4)).all()


def test_oks_of_prediction_that_is_no_number_is_zero_there() -> None:
    true = np.array([[[0, 0], [10, 0], [5, 10]]], float)
    pred = true.copy()
    pred[0, 0] = math.nan
    assert oks(pred, true, SIGMAS) == pytest.approx([2 / 3])


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_oks_does_not_depend_on_scale_and_is_1_only_for_exact_points(seed: int, factor: float) -> None:
    pred, true = random_points(seed)
    sigmas = np.linspace(0.02, 0.1, 15)
    values = oks(pred, true, sigmas)
    np.testing.assert_allclose(oks(factor * pred, factor * true, sigmas), values, rtol=1e-9)
    known = ~np.isnan(values)
    assert ((values[known] >= 0) & (values[known] < 1)).all()
    assert (oks(np.nan_to_num(true), true, sigmas)[known] == 1).all()
