"""Smoothing: less jitter at rest, little lag in motion, and the formulas of the One-Euro filter."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.inference.smoothing import (
    CENTROID_CUTOFFS,
    SHAPE_CUTOFFS,
    Cutoffs,
    LandmarkSmoother,
    OneEuroFilter,
    face_size,
)

FACE = np.array([[70.0, 80], [130, 80], [100, 115], [80, 140], [120, 140]])
FPS = 25
Floats = NDArray[np.float64]


def smooth(points: Floats, fps: float = FPS) -> Floats:
    """Smooth the (N, K, 2) landmarks of one face."""
    smoother = LandmarkSmoother()
    return np.array([smoother(face, frame / fps) for frame, face in enumerate(points)], np.float64)


def move_face(path: Callable[[Floats], Floats], frames: int, fps: float = FPS) -> Floats:
    """Return the landmarks of a face that moves along a path, a function of (N,) times to (N, 2) offsets."""
    return np.asarray(FACE + path(np.arange(frames) / fps)[:, None])


def sample_noise(frames: int, deviation: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, deviation, (frames, *FACE.shape))


def jitter(errors: Floats) -> float:
    """Return the standard deviation of the second differences."""
    return float(np.diff(errors, n=2, axis=0).std())


def oscillate(times: Floats) -> Floats:
    return np.stack([20 * np.sin(3 * times), 12 * np.sin(4 * times + 1)], axis=1)


# --- the filter ----------------------------------------------------------------------------------


def test_filter_equals_formulas_of_paper_for_two_steps() -> None:
    one_euro = OneEuroFilter(Cutoffs(minimum=1.0, speed=0.5, derivative=2.0))
    first = np.array([[10.0, 20.0]])
    np.testing.assert_array_equal(one_euro(first, 0.0, size=50), first)
    second = one_euro(np.array([[13.0, 24.0]]), 0.1, size=50)
    # 5 px in 0.1 s is a speed of one face size (50 px) per second, smoothed with the alpha of 2 Hz
    speed = 1.0 / (1 + 1 / (2 * math.pi * 2.0 * 0.1))
    alpha = 1 / (1 + 1 / (2 * math.pi * (1.0 + 0.5 * speed) * 0.1))
    np.testing.assert_allclose(second, [[10 + 3 * alpha, 20 + 4 * alpha]], rtol=1e-12)
    # the next step continues from the value and the velocity of this one
    velocity, down = np.array([0.6, 0.8]) * speed, np.array([0.0, 1.0])
    velocity += (down / (0.2 * 50) - velocity) / (1 + 1 / (2 * math.pi * 2.0 * 0.2))
    beta = 1 / (1 + 1 / (2 * math.pi * (1.0 + 0.5 * math.hypot(*velocity)) * 0.2))
    third = one_euro(second + down, 0.2, size=50)
    np.testing.assert_allclose(third, second + beta * down, rtol=1e-12)


def test_filter_without_speed_term_is_low_pass_filter() -> None:
    one_euro = OneEuroFilter(Cutoffs(minimum=1.5, speed=0.0))
    alpha = 1 / (1 + FPS / (2 * math.pi * 1.5))
    one_euro(np.zeros((1, 2)), 0.0, 1.0)
    values = [one_euro(np.full((1, 2), 8.0), 1 / FPS, 1.0)[0, 0] for _ in range(20)]
    np.testing.assert_allclose(values, 8 * (1 - (1 - alpha) ** np.arange(1, 21)), rtol=1e-12)


def test_filter_follows_faster_motion_more_closely() -> None:
    fractions = []
    for step in (0.1, 1.0, 10.0):
        one_euro = OneEuroFilter(Cutoffs(minimum=1.0, speed=5.0))
        one_euro(np.zeros((1, 2)), 0.0, 10.0)
        fractions.append(one_euro(np.array([[step, 0.0]]), 1 / FPS, 10.0)[0, 0] / step)
    assert fractions[0] < fractions[1] < fractions[2] < 1


def test_filter_returns_position_unchanged_after_nan() -> None:
    one_euro = OneEuroFilter(Cutoffs(1.0, 0.0))
    one_euro(np.full((1, 2), np.nan), 0.0, 1.0)
    np.testing.assert_array_equal(one_euro(np.array([[3.0, 4.0]]), 0.1, 1.0), [[3.0, 4.0]])


# --- the smoother --------------------------------------------------------------------------------


def test_smoother_moves_landmarks_with_low_confidence_less() -> None:
    offset = np.array([[0, 3], [0, 0], [0, 0], [0, 0], [0, -3]])  # the centroid does not move
    one_low = np.array([0.2, 0.8, 0.8, 0.8, 0.9])
    moves = []
    for confidence in (None, np.full(5, np.nan), np.full(5, 0.3), one_low):
        smoother = LandmarkSmoother()
        smoother(FACE, 0.0, confidence)
        moves.append(smoother(FACE + offset, 1 / FPS, confidence) - FACE)
    for equal in moves[:3]:
        np.testing.assert_allclose(equal[4], -moves[0][0], atol=1e-4)
        np.testing.assert_allclose(equal, moves[0], atol=1e-4)
    assert moves[0][0, 1] > 0.2
    # a quarter of the median confidence gives a 16th of the cutoff: alpha = 1 / (1 + 1 / (2 pi f T))
    alpha = moves[0][0, 1] / 3
    np.testing.assert_allclose(moves[3][0], [0, 3 / (1 + 16 * (1 / alpha - 1))], atol=1e-4)
    np.testing.assert_allclose(moves[3][4], moves[0][4], atol=1e-4)


def test_smoother_keeps_constant_landmarks() -> None:
    points = np.repeat(FACE[None], 30, axis=0)
    np.testing.assert_allclose(smooth(points), points, rtol=1e-6)


def test_smoother_after_step_converges_without_overshoot() -> None:
    points = move_face(lambda times: np.where(times[:, None] < 0.2, 0.0, 30.0) * np.ones(2), 40)
    smoothed = smooth(points)
    assert (np.diff(smoothed, axis=0) > -1e-3).all()
    assert (smoothed < points[-1] + 1e-3).all()
    np.testing.assert_allclose(smoothed[-1], points[-1], atol=0.01)


@given(scale=st.floats(0.1, 20), shift=st.floats(-500, 500))
@settings(max_examples=20, deadline=None)
def test_smoother_is_equivariant_to_scale_and_translation(scale: float, shift: float) -> None:
    points = move_face(oscillate, 30) + sample_noise(30, 1.0)
    smoothed = smooth(points * scale + shift)
    np.testing.assert_allclose(smoothed, smooth(points) * scale + shift, atol=3e-4 * max(1.0, scale))


def test_smoother_is_nearly_independent_of_frame_rate() -> None:
    at_30, at_60 = smooth(move_face(oscillate, 60, 30), 30), smooth(move_face(oscillate, 120, 60), 60)
    assert np.abs(at_30 - move_face(oscillate, 60, 30)).max() > 0.5
    np.testing.assert_allclose(at_60[::2], at_30, atol=0.4)


def test_smoother_returns_nan_unchanged_and_recovers() -> None:
    points = np.repeat(FACE[None], 40, axis=0) + sample_noise(40, 0.3)
    points[:12, 0] = points[20:22, 3] = np.nan
    points[30] = np.nan
    smoothed = smooth(points)
    np.testing.assert_array_equal(np.isnan(smoothed), np.isnan(points))
    np.testing.assert_allclose(smoothed[31:], np.broadcast_to(FACE, (9, 5, 2)), atol=1.0)


def test_smoother_ignores_frame_at_same_time() -> None:
    smoother = LandmarkSmoother()
    smoother(FACE, 0.0)
    before = smoother(FACE + 1, 0.04)
    np.testing.assert_array_equal(smoother(FACE + 50, 0.04), before)
    assert np.isfinite(smoother(FACE + 2, 0.08)).all()


def test_smoother_accepts_single_landmark() -> None:
    points = np.array([[[5.0, 6.0]]] * 3)
    np.testing.assert_allclose(smooth(points), points)


def test_face_size_is_proportional_to_spread() -> None:
    assert face_size(np.array([[0.0, 0], [6, 8]])) == pytest.approx(20)
    assert face_size(FACE * 3 + 40) == pytest.approx(3 * face_size(FACE))


# --- jitter and lag ------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.1, 0.4, 1.0])
def test_smoother_more_than_halves_jitter_at_rest(deviation: float) -> None:
    noise = sample_noise(200, deviation)
    assert jitter(smooth(FACE + noise) - FACE) < 0.5 * jitter(noise)


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.0, 2.0])
def test_smoother_lags_less_than_one_frame_in_motion(speed: float) -> None:
    step = speed * face_size(FACE) / FPS
    points = move_face(lambda times: np.outer(times * FPS * step, [0.6, 0.8]), 60) + sample_noise(60, 0.1)
    lag = (points - smooth(points)).mean(axis=1) @ (0.6, 0.8) / step
    assert 0 < lag[20:].mean() < 1


def test_smoother_halves_jitter_in_slow_motion() -> None:
    clean, noise = move_face(oscillate, 200), sample_noise(200, 0.3)
    assert jitter(smooth(clean + noise) - clean) < 0.5 * jitter(noise)


def test_smoother_follows_opening_mouth() -> None:
    opening = np.clip((np.arange(40) - 20) / 5, 0, 1) * 0.15 * face_size(FACE)  # within 0.2 s
    points = np.repeat(FACE[None], 40, axis=0) + sample_noise(40, 0.1)
    points[:, 3:, 1] += opening[:, None]
    lag = (points - smooth(points))[20:, 3:, 1].sum() / 2 / opening[-1]
    assert 0 < lag < 1.5


# --- values that the benchmarks have chosen -------------------------------------------------------


def test_cutoffs_are_those_of_the_benchmark() -> None:
    assert Cutoffs(minimum=3.0, speed=25.0, derivative=2.0) == CENTROID_CUTOFFS
    assert Cutoffs(minimum=0.7, speed=25.0, derivative=1.0) == SHAPE_CUTOFFS


def test_filter_of_one_unknown_position_filters_the_others() -> None:
    one_euro, alone = OneEuroFilter(Cutoffs(1.0, 2.0)), OneEuroFilter(Cutoffs(1.0, 2.0))
    steps = [np.array([[0.0, 0], [5, 5]]), np.array([[np.nan, 0], [6, 5]]), np.array([[3.0, 4], [8, 6]])]
    steps.append(steps[-1] + 1)
    filtered = [one_euro(step, 0.1, 10.0) for step in steps]
    expected = [alone(step[1:], 0.1, 10.0) for step in steps]
    np.testing.assert_array_equal([points[1] for points in filtered], [points[0] for points in expected])
    # the first known position is kept as it is, at rest, and the next one is filtered from there
    np.testing.assert_array_equal(filtered[2][0], [3, 4])
    fresh = OneEuroFilter(Cutoffs(1.0, 2.0))
    fresh(steps[2][:1], 0.1, 10.0)
    np.testing.assert_array_equal(filtered[3][:1], fresh(steps[3][:1], 0.1, 10.0))


def cutoff_ratio(**weights: Floats) -> Floats:
    """Return by how much each landmark moves in the second frame, relative to a smoother without weights."""
    offset = np.array([[0, 3.0], [0, -3.0], [0, 3.0], [0, -3.0], [0, 0]])  # the centroid does not move
    moves = []
    for given_weights in (weights, {}):
        smoother = LandmarkSmoother()
        smoother(FACE, 0.0, **given_weights)
        moves.append((smoother(FACE + 0.001 * offset, 1 / FPS, **given_weights) - FACE)[:4, 1])
    return np.asarray(moves[0] / moves[1], np.float64)


def alpha(cutoff: float) -> float:
    return 1 / (1 + FPS / (2 * math.pi * cutoff))


def test_confidence_below_median_reduces_cutoff_by_squared_ratio() -> None:
    ratios = cutoff_ratio(confidence=np.array([0.4, 0.8, 0.9, 0.8, 0.8]))
    # at this tiny motion, the cutoff is that at rest
    expected = [alpha(0.7 / 4) / alpha(0.7), 1, 1, 1]
    np.testing.assert_allclose(ratios, expected, atol=0.03)


def test_confidence_with_median_zero_has_no_effect() -> None:
    np.testing.assert_array_equal(cutoff_ratio(confidence=np.array([0.0, 0.0, 0.0, 0.5, 0.5])), 1)


def test_visibility_reduces_cutoff_by_squared_ratio_with_a_minimum() -> None:
    ratios = cutoff_ratio(visibility=np.array([0.45, 0.0, 0.95, np.nan, 1.0]))
    expected = [alpha(0.7 / 4) / alpha(0.7), alpha(0.7 * 0.05) / alpha(0.7), 1, 1]
    np.testing.assert_allclose(ratios, expected, atol=0.03)
