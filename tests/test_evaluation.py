"""Metrics against cases worked by hand, and the properties that each must have."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai import evaluation as ev
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import IBUG68, KAGGLE15, Schema

NAN = math.nan
TRIANGLE = Schema(
    name="triangle",
    points=("left_eye", "right_eye", "chin"),
    flip_pairs=(("left_eye", "right_eye"),),
    inter_ocular=(("left_eye",), ("right_eye",)),
)
EYELESS = Schema(name="eyeless", points=("a", "b", "c"))

TRUE = np.array(
    [
        [[10, 10], [20, 10], [15, 22]],  # eyes 10 apart, box 10 by 12
        [[0, 0], [8, 6], [NAN, NAN]],  # eyes sqrt(64 + 36) = 10 apart; 2 points make no box
        [[5, 5], [15, 5], [10, 15]],  # eyes 10 apart, box 10 by 10
    ]
)
OFFSETS = np.array(
    [
        [[3, 4], [0, 0], [0, -6]],  # distances 5, 0, 6: mean 11/3
        [[1, 0], [0, 1], [70, 70]],  # distances 1, 1; the chin is not labelled
        [[0.4, 0], [0.4, 0], [0.4, 0]],  # distances 0.4
    ]
)
PRED = np.where(np.isnan(TRUE), 0, TRUE) + OFFSETS
COMPLETE = np.array([True, False, True])


def random_faces(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 96, (n, 15, 2))
    true[rng.random((n, 15)) < 0.3] = NAN
    return np.where(np.isnan(true), 48, true) + rng.normal(0, 3, true.shape), true


def test_l1_is_the_mean_over_labelled_coordinates():
    # (3 + 4 + 0 + 0 + 0 + 6) + (1 + 0 + 0 + 1) + 3 · 0.4 = 16.2 over 6 + 4 + 6 = 16 coordinates
    assert ev.l1(PRED, TRUE) == pytest.approx(16.2 / 16)


def test_rmse_is_kaggles_and_not_a_mean_over_faces():
    # (9 + 16 + 36) + (1 + 1) + 3 · 0.16 = 63.48 over 16 coordinates
    assert ev.rmse(PRED, TRUE) == pytest.approx(math.sqrt(63.48 / 16))
    per_face = np.mean([ev.rmse(PRED[i : i + 1], TRUE[i : i + 1]) for i in range(3)])
    assert ev.rmse(PRED, TRUE) != pytest.approx(per_face, abs=0.1)


def test_point_distances_are_nan_where_unlabelled():
    np.testing.assert_allclose(ev.point_distances(PRED, TRUE), [[5, 0, 6], [1, 1, NAN], [0.4, 0.4, 0.4]])


def test_a_point_with_one_coordinate_is_not_labelled():
    true = TRUE.copy()
    true[0, 0, 1] = NAN
    assert np.isnan(ev.point_distances(PRED, true)[0, 0])
    # what is left: 6 + 2 + 1.2 over 4 + 4 + 6 = 14 coordinates
    assert ev.l1(PRED, true) == pytest.approx(9.2 / 14)


def test_inter_ocular_distance():
    np.testing.assert_allclose(ev.inter_ocular_distance(TRUE, TRIANGLE), [10, 10, 10])
    assert np.isnan(ev.inter_ocular_distance(TRUE, EYELESS)).all()
    without_eye, one_place = TRUE.copy(), TRUE.copy()
    without_eye[1, 0] = NAN
    one_place[1, 0] = one_place[1, 1]
    for true in (without_eye, one_place):
        np.testing.assert_allclose(ev.inter_ocular_distance(true, TRIANGLE), [10, NAN, 10])


def test_inter_ocular_distance_of_ibug68_is_between_the_means_of_the_eyes():
    true = np.zeros((2, 68, 2))
    true[:, 36:42] = [[20, 50], [22, 48], [26, 48], [28, 50], [26, 52], [22, 52]]  # mean (24, 50)
    true[:, 42:48] = [[50, 58], [52, 56], [56, 56], [58, 58], [56, 60], [52, 60]]  # mean (54, 58)
    true[1, 44] = NAN  # half an eye is no eye
    np.testing.assert_allclose(ev.inter_ocular_distance(true, IBUG68), [math.hypot(30, 8), NAN])


def test_box_size():
    # sqrt(10 · 12); two points only; sqrt(10 · 10)
    np.testing.assert_allclose(ev.box_size(TRUE), [math.sqrt(120), NAN, 10])
    flat = [[[0, 5], [4, 5], [9, 5]]]
    assert np.isnan(ev.box_size(flat)).all()


def test_nme():
    # (11 / 3) / 10, 1 / 10, 0.4 / 10
    by_eyes = ev.nme(PRED, TRUE, ev.inter_ocular_distance(TRUE, TRIANGLE))
    np.testing.assert_allclose(by_eyes, [11 / 30, 0.1, 0.04])
    np.testing.assert_allclose(ev.nme(PRED, TRUE, [2, NAN, 0]), [11 / 6, NAN, NAN])
    assert np.isnan(ev.nme(PRED, np.full_like(TRUE, NAN), [1, 1, 1])).all()


def test_failure_rate_counts_what_is_above_the_threshold():
    assert ev.failure_rate([0.05, 0.08, 0.09, 0.2, NAN], 0.08) == 0.5  # 0.08 itself did not fail
    assert math.isnan(ev.failure_rate([NAN], 0.08))


def test_auc():
    # the CED is 0 to 0.02, 1/2 to 0.06, 1 to 0.08: (0.04 · 1/2 + 0.02 · 1) / 0.08 = 0.5
    assert ev.auc([0.02, 0.06, NAN], 0.08) == pytest.approx(0.5)
    assert ev.auc([0.0, 0.0], 0.08) == 1
    assert ev.auc([0.08, 3.0], 0.08) == 0
    assert math.isnan(ev.auc([], 0.08))
    with pytest.raises(UserError, match="threshold"):
        ev.auc([0.1], 0.0)


def test_ced():
    np.testing.assert_allclose(ev.ced([0.02, 0.06, 0.06, NAN], [0, 0.02, 0.06, 1]), [0, 1 / 3, 1, 1])
    assert np.isnan(ev.ced([NAN], [0.1, 0.2])).all()


errors = st.lists(st.floats(0, 0.3), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(errors, st.sampled_from([0.08, 0.1, 0.05]))
def test_auc_is_the_integral_of_the_ced(nmes, threshold):
    steps = 4000
    middles = (np.arange(steps) + 0.5) * threshold / steps
    # a step function summed over bins is off by at most one bin
    assert ev.auc(nmes, threshold) == pytest.approx(ev.ced(nmes, middles).mean(), abs=1 / steps)


@settings(deadline=None, max_examples=50)
@given(errors, st.floats(0.01, 0.2))
def test_failures_are_what_the_ced_leaves(nmes, threshold):
    assert ev.failure_rate(nmes, threshold) == pytest.approx(1 - float(ev.ced(nmes, [threshold])[0]))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.1, 50), st.floats(-500, 500))
def test_nme_is_the_same_at_any_scale_and_place(seed, scale, shift):
    pred, true = random_faces(seed)
    for size in (lambda points: ev.inter_ocular_distance(points, KAGGLE15), ev.box_size):
        moved = ev.nme(scale * pred + shift, scale * true + shift, size(scale * true + shift))
        np.testing.assert_allclose(moved, ev.nme(pred, true, size(true)), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_unlabelled_points_change_nothing(seed):
    pred, true = random_faces(seed)
    wild = np.where(np.isnan(true), 1e6, pred)
    empty = np.full((3, 15, 2), NAN)
    complete = ~np.isnan(true).any(axis=(1, 2))
    report = ev.evaluate_points(pred, true, KAGGLE15, complete, 96)
    masked = ev.evaluate_points(wild, true, KAGGLE15, complete, 96)
    assert masked.to_dict(per_face=True) == report.to_dict(per_face=True)
    assert ev.rmse(np.concatenate([pred, empty]), np.concatenate([true, empty])) == ev.rmse(pred, true)
    assert ev.l1(np.concatenate([pred, empty]), np.concatenate([true, empty])) == ev.l1(pred, true)


def test_report_by_hand():
    report = ev.evaluate_points(PRED, TRUE, TRIANGLE, COMPLETE, 96)
    assert (report.schema, report.normaliser, report.image_size) == ("triangle", "inter_ocular", 96)
    np.testing.assert_allclose(report.nme, [11 / 30, 0.1, 0.04])
    assert report.worst(2) == (0, 1)

    whole = report.overall
    assert (whole.faces, whole.faces_with_nme) == (3, 3)
    assert whole.nme_inter_ocular == pytest.approx((11 / 30 + 0.1 + 0.04) / 3)
    # two boxes: (11 / 3) / sqrt(120) and 0.4 / 10
    assert whole.nme_box == pytest.approx((11 / 3 / math.sqrt(120) + 0.04) / 2)
    assert (whole.failure_rate_8, whole.failure_rate_10) == pytest.approx((2 / 3, 1 / 3))
    # only the third face adds: 1 - 0.04 / 0.08 and 1 - 0.04 / 0.10
    assert (whole.auc_8, whole.auc_10) == pytest.approx((0.5 / 3, 0.6 / 3))

    # complete: 13 + 1.2 over 12 coordinates; partial: 2 over 4, squares 1 + 1
    assert (report.complete.faces, report.partial.faces) == (2, 1)
    assert (report.complete.l1, report.partial.l1) == pytest.approx((14.2 / 12, 0.5))
    assert report.partial.rmse == pytest.approx(math.sqrt(0.5))
    assert math.isnan(report.partial.nme_box)

    eye, _, chin = report.points
    # left eye: off by (3, 4), (1, 0), (0.4, 0); distances 5, 1, 0.4
    assert (eye.name, eye.labelled) == ("left_eye", 3)
    assert eye.mean_distance == pytest.approx(6.4 / 3)
    assert eye.rmse == pytest.approx(math.sqrt((9 + 16 + 1 + 0.16) / 6))
    assert (eye.bias_x, eye.bias_y) == pytest.approx((4.4 / 3, 4 / 3))
    # 95 % of the way over two gaps: 0.9 of the way from 1 to 5
    assert eye.p95 == pytest.approx(4.6)
    assert chin.labelled == 2


def test_report_falls_back_on_the_box_where_there_are_no_eyes():
    report = ev.evaluate_points(PRED, TRUE, EYELESS, COMPLETE, 96)
    assert report.normaliser == "box"
    np.testing.assert_allclose(report.nme, [11 / 3 / math.sqrt(120), NAN, 0.04])
    assert report.overall.faces_with_nme == 2
    assert report.overall.failure_rate_8 == 0.5
    assert math.isnan(report.overall.nme_inter_ocular)
    assert report.worst(3) == (0, 2)  # a face without NME is not a worst one


def test_report_is_json():
    report = ev.evaluate_points(PRED, TRUE, TRIANGLE, np.ones(3, bool), 96)
    entries = report.to_dict(per_face=True)
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert entries["partial"]["rmse"] is None
    assert entries["partial"]["faces"] == 0
    assert entries["nme"] == [0.366667, 0.1, 0.04]
    assert "nme" not in report.to_dict()


def test_a_perfect_prediction():
    true = TRUE[[0, 2]]
    report = ev.evaluate_points(true, true, TRIANGLE, [True, True], 96)
    assert (report.overall.rmse, report.overall.nme_box, report.overall.failure_rate_8) == (0, 0, 0)
    assert (report.overall.auc_8, report.overall.auc_10) == (1, 1)


def test_bad_input_is_told_in_one_line():
    diverged = PRED.copy()
    diverged[2, 1] = NAN
    with pytest.raises(UserError, match=r"'right_eye' in face 2 .* diverged"):
        ev.evaluate_points(diverged, TRUE, TRIANGLE, COMPLETE, 96)
    with pytest.raises(UserError, match="15 points, but the faces have 3"):
        ev.evaluate_points(PRED, TRUE, KAGGLE15, COMPLETE, 96)
    with pytest.raises(UserError, match="nothing to evaluate"):
        ev.evaluate_points(PRED, np.full_like(TRUE, NAN), TRIANGLE, COMPLETE, 96)
    with pytest.raises(UserError, match="marks"):
        ev.evaluate_points(PRED, TRUE, TRIANGLE, [True], 96)
    with pytest.raises(UserError, match="must agree"):
        ev.rmse(PRED[:1], TRUE)
    with pytest.raises(UserError, match=r"\(N, K, 2\)"):
        ev.box_size(TRUE[0])
    with pytest.raises(UserError, match="normalisers"):
        ev.nme(PRED, TRUE, 1.0)
