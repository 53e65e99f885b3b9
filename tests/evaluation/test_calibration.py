"""Calibration on hand-computed cases and on errors drawn from known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import (
    CONFIDENCE_RADIUS,
    calibrate_visibility,
    confidence_from_scale,
    fit_scale_factor,
    fit_visibility_calibration,
    measure_calibration,
    scale_from_confidence,
)

NAN = math.nan
HALF = 2 / (0.476936 * math.sqrt(math.pi))
"""Mean absolute error of a normal distribution of which half lies within ±2."""


def sample_errors(error_factor: float = 1.0, n: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw pred, true (n, 5, 2) and scales (n, 5); the mean absolute error is `error_factor` times the scale.

    The errors are normally distributed.
    """
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(np.log(0.4), np.log(5), (n, 5)))
    true = rng.uniform(0, 96, (n, 5, 2))
    errors = rng.normal(size=true.shape) * math.sqrt(math.pi / 2)
    return true + errors * error_factor * scales[..., None], true, scales


def test_calibration_equals_hand_computed_values() -> None:
    # the radius is 2.5 % of 80 px = 2 px; with the scale HALF each coordinate is within it half of the time
    true = np.zeros((2, 3, 2))
    pred = np.array([[[1, -2], [3, 0], [5, 5]], [[0, 2.1], [9, 9], [0, 0]]], float)
    true[1, 1] = NAN
    scales = np.array([[1, HALF, NAN], [4, 1, 0.5]])
    calibration = measure_calibration(pred, true, scales, 80)
    assert calibration is not None
    assert (calibration.landmarks, calibration.radius) == (4, 2)
    confidence = [math.erf(2 / (b * math.sqrt(math.pi))) ** 2 for b in (4, HALF, 1, 0.5)]
    assert confidence[1] == pytest.approx(0.25, abs=1e-5)
    assert [group.mean_confidence for group in calibration.bins] == pytest.approx(confidence)
    assert [group.observed for group in calibration.bins] == [0, 0, 1, 1]
    assert [group.expected_error for group in calibration.bins] == pytest.approx([4, HALF, 1, 0.5])
    assert [group.observed_error for group in calibration.bins] == pytest.approx([1.05, 1.5, 1.5, 0])
    assert calibration.mean_confidence == pytest.approx(np.mean(confidence))
    assert calibration.observed == 0.5
    gaps = confidence[0] + confidence[1] + 1 - confidence[2] + 1 - confidence[3]
    assert calibration.ece == pytest.approx(gaps / 4)
    # in the order of confidence the distances are 2.1, 3, 2.24, 0: ranks 3, 1, 2, 4 against 1, 2, 3, 4;
    # Spearman's formula for distinct ranks is 1 - 6 Σd² / (n (n² - 1))
    squares = (3 - 1) ** 2 + (1 - 2) ** 2 + (2 - 3) ** 2 + (4 - 4) ** 2
    assert calibration.rank_correlation == pytest.approx(1 - 6 * squares / (4 * 15))
    assert calibration.scale_factor == pytest.approx((2.1 / 4 + 3 / HALF + 1 + 2) / 8)


def test_calibration_of_calibrated_model_has_small_ece() -> None:
    calibration = measure_calibration(*sample_errors(), 96)
    assert calibration is not None
    assert calibration.ece < 0.01
    assert calibration.mean_confidence == pytest.approx(calibration.observed, abs=0.01)
    assert calibration.scale_factor == pytest.approx(1, abs=0.01)
    assert [group.landmarks for group in calibration.bins] == [10_000] * 10
    for group in calibration.bins:
        assert group.mean_confidence == pytest.approx(group.observed, abs=0.04)
        assert group.expected_error == pytest.approx(group.observed_error, rel=0.06)
    assert np.diff([group.mean_confidence for group in calibration.bins]).min() > 0
    assert 0.5 < calibration.rank_correlation < 1


@pytest.mark.parametrize("error_factor", [0.6, 1.7])
def test_scale_factor_of_miscalibrated_model_corrects_it_and_keeps_order(error_factor: float) -> None:
    pred, true, scales = sample_errors(error_factor)
    factor = fit_scale_factor(pred, true, scales)
    assert factor == pytest.approx(error_factor, rel=0.02)
    before = measure_calibration(pred, true, scales, 96)
    after = measure_calibration(pred, true, factor * scales, 96)
    assert before is not None
    assert after is not None
    assert after.ece < 0.01 < 0.1 < before.ece
    assert (before.mean_confidence < before.observed) == (error_factor < 1)
    assert after.scale_factor == pytest.approx(1)
    assert after.rank_correlation == pytest.approx(before.rank_correlation)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.5, 2))
def test_scale_factor_maximizes_laplace_likelihood(seed: int, other: float) -> None:
    rng = np.random.default_rng(seed)
    pred, true, scales = rng.normal(size=(7, 3, 2)), rng.normal(size=(7, 3, 2)), rng.uniform(0.2, 3, (7, 3))
    true[rng.random((7, 3)) < 0.3] = NAN

    def log_likelihood(factor: float) -> float:
        b = factor * scales[..., None]
        return float(np.nansum(-np.abs(pred - true) / b - np.log(2 * b) * np.isfinite(true)))

    best = fit_scale_factor(pred, true, scales)
    assert log_likelihood(best) >= log_likelihood(best * other) - 1e-9


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.1, 20))
def test_calibration_is_independent_of_image_size_and_unlabeled_landmarks(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    pred, true, scales = rng.normal(size=(9, 3, 2)), rng.normal(size=(9, 3, 2)), rng.uniform(0.2, 3, (9, 3))
    true[0, 1] = NAN
    changed = pred.copy()
    changed[0, 1] = 1e6
    first = measure_calibration(pred, true, scales, 40)
    second = measure_calibration(changed * size, true * size, scales * size, 40 * size)
    assert first is not None
    assert second is not None
    assert (first.landmarks, first.observed) == (second.landmarks, second.observed)
    for name in ("mean_confidence", "ece", "rank_correlation", "scale_factor"):
        assert getattr(first, name) == pytest.approx(getattr(second, name))


def test_confidence_equals_observed_frequency_of_normal_errors() -> None:
    error = np.random.default_rng(0).normal(size=(200_000, 2))
    error *= 1.7 / np.abs(error).mean()
    assert confidence_from_scale(1.7, 100) == pytest.approx(
        (np.abs(error) < 100 * CONFIDENCE_RADIUS).all(axis=1).mean(), abs=0.005
    )
    expected = math.erf(1 / math.sqrt(math.pi)) ** 2
    np.testing.assert_allclose(confidence_from_scale([[1, NAN]], [[40]]), [[expected, NAN]])


def test_calibration_without_labels_or_scales_is_none() -> None:
    points = np.zeros((2, 3, 2))
    assert measure_calibration(points, points, np.full((2, 3), NAN), 96) is None
    assert measure_calibration(points, np.full_like(points, NAN), np.ones((2, 3)), 96) is None


def test_scale_factor_without_scales_or_errors_is_one() -> None:
    points = np.zeros((2, 3, 2))
    assert fit_scale_factor(points, points, np.full((2, 3), NAN)) == 1
    assert fit_scale_factor(points, points, np.ones((2, 3))) == 1


def test_rank_correlation_of_equal_scales_is_nan() -> None:
    points = np.zeros((2, 3, 2))
    calibration = measure_calibration(points + 1, points, np.ones((2, 3)), 96)
    assert calibration is not None
    assert math.isnan(calibration.rank_correlation)


def test_calibration_of_mismatched_shapes_is_refused() -> None:
    points = np.zeros((2, 3, 2))
    with pytest.raises(UserError, match=r"scales must be .* and \(N, K\), not"):
        measure_calibration(points, points, np.ones((2, 2)), 96)


@given(fraction=st.floats(0.005, 0.5), side=st.floats(32, 500))
def test_scale_from_confidence_inverts_confidence_from_scale(fraction: float, side: float) -> None:
    scale = fraction * side
    assert scale_from_confidence(confidence_from_scale(scale, side), side) == pytest.approx(scale, rel=1e-3)


def test_visibility_calibration_recovers_slope_and_intercept() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (400, 50))
    targets = (rng.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.float64)
    targets[0] = np.nan
    overconfident = 1 / (1 + np.exp(-(3 * true - 1)))
    slope, intercept = fit_visibility_calibration(overconfident, targets)
    assert slope == pytest.approx(1 / 3, rel=0.05)
    assert intercept == pytest.approx(1 / 3, rel=0.15)
    calibrated = calibrate_visibility(overconfident, (slope, intercept))
    np.testing.assert_allclose(calibrated, 1 / (1 + np.exp(-true)), atol=0.03)


def test_visibility_calibration_of_separable_predictions_is_finite() -> None:
    slope, intercept = fit_visibility_calibration([[0.2, 0.9, 0.8, 0.1]], [[0, 1, 1, 0]])
    assert 0 < slope < 10
    assert abs(intercept) < 10


def test_visibility_calibration_of_reversed_predictions_keeps_the_order() -> None:
    targets = np.tile([0, 1, 1, 1], 25)
    slope, intercept = fit_visibility_calibration(np.tile([0.9, 0.2, 0.2, 0.2], 25), targets)
    assert slope == pytest.approx(0.01)
    assert 1 / (1 + np.exp(-intercept)) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("targets", [[[1, 1, np.nan]], [[0, 0, 0]], [[np.nan] * 3]])
def test_visibility_calibration_without_both_labels_changes_nothing(targets: list[list[float]]) -> None:
    assert fit_visibility_calibration([[0.2, 0.9, 0.8]], targets) == (1.0, 0.0)


def test_visibility_calibration_of_model_without_visibility_changes_nothing() -> None:
    assert fit_visibility_calibration([[np.nan, np.nan]], [[0, 1]]) == (1.0, 0.0)
    assert np.isnan(calibrate_visibility([np.nan], (1.0, 0.0))).all()


def test_visibility_calibration_smooths_targets_as_platt() -> None:
    # all probabilities are equal, so that the calibrated one is the mean of the smoothed targets
    calibration = fit_visibility_calibration([[0.5, 0.5, 0.5, 0.5]], [[1, 1, 1, 0]])
    expected = (3 * (3 + 1) / (3 + 2) + 1 / (1 + 2)) / 4
    np.testing.assert_allclose(calibrate_visibility([0.5], calibration), expected, atol=1e-4)


def test_visibility_calibration_of_certain_predictions_is_finite() -> None:
    slope, intercept = fit_visibility_calibration([[1.0, 0.0, 1.0, 0.0]], [[1, 0, 0, 1]])
    assert np.isfinite([slope, intercept]).all()
    low, high = calibrate_visibility([0.0, 1.0], (1.0, 0.0))
    assert (low, high) == (pytest.approx(1e-7, rel=1e-6), pytest.approx(1 - 1e-7, rel=1e-12))


def test_scale_from_confidence_takes_whole_numbers() -> None:
    np.testing.assert_allclose(confidence_from_scale([2, 4], 96), confidence_from_scale([2.0, 4.0], 96.0))
