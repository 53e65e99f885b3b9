"""Metrics: hand-computed values, and properties on random points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.small_faces import EYELESS, PRED, TRIANGLE, TRUE, random_points
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.metrics import (
    auc,
    box_size,
    ced,
    failure_rate,
    inter_ocular_distance,
    l1,
    nme,
    normalizing_distance,
    point_distances,
    rmse,
)
from landmarks_fastai.schemas import IBUG68, KAGGLE15

NAN = math.nan


def test_l1_is_mean_over_labeled_coordinates() -> None:
    # (3 + 4 + 0 + 0 + 0 + 6) + (1 + 0 + 0 + 1) + 3 · 0.4 = 16.2 over 6 + 4 + 6 = 16 coordinates
    assert l1(PRED, TRUE) == pytest.approx(16.2 / 16)


def test_rmse_is_over_all_coordinates_and_not_mean_over_faces() -> None:
    # (9 + 16 + 36) + (1 + 1) + 3 · 0.16 = 63.48 over 16 coordinates
    assert rmse(PRED, TRUE) == pytest.approx(math.sqrt(63.48 / 16))
    per_face = np.mean([rmse(PRED[i : i + 1], TRUE[i : i + 1]) for i in range(3)])
    assert rmse(PRED, TRUE) != pytest.approx(per_face, abs=0.1)


def test_point_distances_are_nan_where_unlabeled() -> None:
    np.testing.assert_allclose(point_distances(PRED, TRUE), [[5, 0, 6], [1, 1, NAN], [0.4, 0.4, 0.4]])


def test_landmark_with_one_coordinate_is_unlabeled() -> None:
    true = TRUE.copy()
    true[0, 0, 1] = NAN
    assert np.isnan(point_distances(PRED, true)[0, 0])
    # the others: 6 + 2 + 1.2 over 4 + 4 + 6 = 14 coordinates
    assert l1(PRED, true) == pytest.approx(9.2 / 14)


def test_inter_ocular_distance_is_nan_without_two_distinct_eyes() -> None:
    np.testing.assert_allclose(inter_ocular_distance(TRUE, TRIANGLE), [10, 10, 10])
    assert np.isnan(inter_ocular_distance(TRUE, EYELESS)).all()
    one_eye, equal_eyes = TRUE.copy(), TRUE.copy()
    one_eye[1, 0] = NAN
    equal_eyes[1, 0] = equal_eyes[1, 1]
    for true in (one_eye, equal_eyes):
        np.testing.assert_allclose(inter_ocular_distance(true, TRIANGLE), [10, NAN, 10])


def test_inter_ocular_distance_of_ibug68_is_between_means_of_eyes() -> None:
    true = np.zeros((2, 68, 2))
    true[:, 36:42] = [[20, 50], [22, 48], [26, 48], [28, 50], [26, 52], [22, 52]]  # mean (24, 50)
    true[:, 42:48] = [[50, 58], [52, 56], [56, 56], [58, 58], [56, 60], [52, 60]]  # mean (54, 58)
    true[1, 44] = NAN  # one unlabeled landmark makes the eye unusable
    np.testing.assert_allclose(inter_ocular_distance(true, IBUG68), [math.hypot(30, 8), NAN])


def test_box_size_is_nan_for_few_landmarks_or_flat_box() -> None:
    # sqrt(10 · 12); two landmarks only; sqrt(10 · 10)
    np.testing.assert_allclose(box_size(TRUE), [math.sqrt(120), NAN, 10])
    flat = [[[0, 5], [4, 5], [9, 5]]]
    assert np.isnan(box_size(flat)).all()


def test_nme_is_mean_distance_divided_by_normalizer() -> None:
    # (11 / 3) / 10, 1 / 10, 0.4 / 10
    normalized = nme(PRED, TRUE, inter_ocular_distance(TRUE, TRIANGLE))
    np.testing.assert_allclose(normalized, [11 / 30, 0.1, 0.04])
    np.testing.assert_allclose(nme(PRED, TRUE, [2, NAN, 0]), [11 / 6, NAN, NAN])
    assert np.isnan(nme(PRED, np.full_like(TRUE, NAN), [1, 1, 1])).all()


def test_failure_rate_excludes_nme_at_threshold() -> None:
    assert failure_rate([0.05, 0.08, 0.09, 0.2, NAN], 0.08) == 0.5
    assert math.isnan(failure_rate([NAN], 0.08))


def test_auc_equals_hand_computed_values() -> None:
    # the CED is 0 to 0.02, 1/2 to 0.06, 1 to 0.08: (0.04 · 1/2 + 0.02 · 1) / 0.08 = 0.5
    assert auc([0.02, 0.06, NAN], 0.08) == pytest.approx(0.5)
    assert auc([0.0, 0.0], 0.08) == 1
    assert auc([0.08, 3.0], 0.08) == 0
    assert math.isnan(auc([], 0.08))
    with pytest.raises(UserError, match="threshold"):
        auc([0.1], 0.0)


def test_ced_includes_nme_at_threshold() -> None:
    np.testing.assert_allclose(ced([0.02, 0.06, 0.06, NAN], [0, 0.02, 0.06, 1]), [0, 1 / 3, 1, 1])
    assert np.isnan(ced([NAN], [0.1, 0.2])).all()


nme_lists = st.lists(st.floats(0, 0.3), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(nme_lists, st.sampled_from([0.08, 0.1, 0.05]))
def test_auc_is_integral_of_ced(nmes: list[float], threshold: float) -> None:
    steps = 4000
    centers = (np.arange(steps) + 0.5) * threshold / steps
    # the integral of a step function, summed over bins, errs by at most one bin
    assert auc(nmes, threshold) == pytest.approx(ced(nmes, centers).mean(), abs=1 / steps)


@settings(deadline=None, max_examples=50)
@given(nme_lists, st.floats(0.01, 0.2))
def test_failure_rate_is_complement_of_ced(nmes: list[float], threshold: float) -> None:
    assert failure_rate(nmes, threshold) == pytest.approx(1 - float(ced(nmes, [threshold])[0]))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.1, 50), st.floats(-500, 500))
def test_nme_is_invariant_to_scale_and_translation(seed: int, scale: float, shift: float) -> None:
    pred, true = random_points(seed)
    for normalizer in (lambda points: inter_ocular_distance(points, KAGGLE15), box_size):
        moved = nme(scale * pred + shift, scale * true + shift, normalizer(scale * true + shift))
        np.testing.assert_allclose(moved, nme(pred, true, normalizer(true)), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_unlabeled_faces_do_not_change_l1_and_rmse(seed: int) -> None:
    pred, true = random_points(seed)
    unlabeled = np.full((3, 15, 2), NAN)
    extended_pred, extended_true = np.concatenate([pred, unlabeled]), np.concatenate([true, unlabeled])
    assert rmse(extended_pred, extended_true) == rmse(pred, true)
    assert l1(extended_pred, extended_true) == l1(pred, true)


def test_metrics_of_invalid_shapes_are_refused() -> None:
    with pytest.raises(UserError, match="must have the same shape"):
        rmse(PRED[:1], TRUE)
    with pytest.raises(UserError, match=r"\(N, K, 2\)"):
        box_size(TRUE[0])
    with pytest.raises(UserError, match="normalizers"):
        nme(PRED, TRUE, 1.0)


def test_normalizing_distance_is_that_of_the_schema_else_the_box() -> None:
    np.testing.assert_array_equal(normalizing_distance(TRUE, EYELESS), box_size(TRUE))
    np.testing.assert_array_equal(normalizing_distance(TRUE, TRIANGLE), inter_ocular_distance(TRUE, TRIANGLE))


def test_box_size_is_that_of_the_labeled_landmarks_of_any_size() -> None:
    faces = np.array([[[0, 0], [3, 0], [0, 12], [NAN, NAN]], [[0, 0], [0.5, 0], [0, 0.5], [0.2, 0.1]]])
    np.testing.assert_allclose(box_size(faces), [6, 0.5])
