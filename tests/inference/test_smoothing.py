"""Points become steady where they shake, and follow where they move."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.inference.smoothing import Cutoffs, OneEuro, SteadyFace, face_size

FACE = np.array([[70.0, 80], [130, 80], [100, 115], [80, 140], [120, 140]])
FPS = 25
Floats = NDArray[np.float64]


def steadied(points: Floats, fps: float = FPS) -> Floats:
    """Steady (N, K, 2) points of one face."""
    steady = SteadyFace()
    return np.array([steady(face, frame / fps) for frame, face in enumerate(points)], np.float64)


def moving(path: Callable[[Floats], Floats], frames: int, fps: float = FPS) -> Floats:
    """Move the face along (N, 2) places."""
    return np.asarray(FACE + path(np.arange(frames) / fps)[:, None])


def noise(frames: int, size: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, size, (frames, *FACE.shape))


def jitter(errors: Floats) -> float:
    return float(np.diff(errors, n=2, axis=0).std())


def sway(times: Floats) -> Floats:
    return np.stack([20 * np.sin(3 * times), 12 * np.sin(4 * times + 1)], axis=1)


def test_two_steps_by_the_papers_formulas() -> None:
    steady = OneEuro(Cutoffs(still=1.0, speed=0.5, of_speed=2.0))
    first = np.array([[10.0, 20.0]])
    np.testing.assert_array_equal(steady(first, 0.0, size=50), first)
    found = steady(np.array([[13.0, 24.0]]), 0.1, size=50)
    # 5 px in 0.1 s are one face of 50 px a second, of which alpha of 2 Hz is believed at once
    speed = 1.0 / (1 + 1 / (2 * math.pi * 2.0 * 0.1))
    alpha = 1 / (1 + 1 / (2 * math.pi * (1.0 + 0.5 * speed) * 0.1))
    np.testing.assert_allclose(found, [[10 + 3 * alpha, 20 + 4 * alpha]], rtol=1e-12)
    # and the next step goes on from the place and the velocity of this one
    velocity, down = np.array([0.6, 0.8]) * speed, np.array([0.0, 1.0])
    velocity += (down / (0.2 * 50) - velocity) / (1 + 1 / (2 * math.pi * 2.0 * 0.2))
    beta = 1 / (1 + 1 / (2 * math.pi * (1.0 + 0.5 * math.hypot(*velocity)) * 0.2))
    np.testing.assert_allclose(steady(found + down, 0.2, size=50), found + beta * down, rtol=1e-12)


def test_without_speed_it_is_a_low_pass_filter() -> None:
    steady = OneEuro(Cutoffs(still=1.5, speed=0.0))
    alpha = 1 / (1 + FPS / (2 * math.pi * 1.5))
    steady(np.zeros((1, 2)), 0.0, 1.0)
    places = [steady(np.full((1, 2), 8.0), 1 / FPS, 1.0)[0, 0] for _ in range(20)]
    np.testing.assert_allclose(places, 8 * (1 - (1 - alpha) ** np.arange(1, 21)), rtol=1e-12)


def test_faster_is_followed_closer() -> None:
    shares = []
    for step in (0.1, 1.0, 10.0):
        steady = OneEuro(Cutoffs(still=1.0, speed=5.0))
        steady(np.zeros((1, 2)), 0.0, 10.0)
        shares.append(steady(np.array([[step, 0.0]]), 1 / FPS, 10.0)[0, 0] / step)
    assert shares[0] < shares[1] < shares[2] < 1


def test_a_point_moves_the_less_the_less_sure_it_is() -> None:
    far = FACE + np.array([[0, 3], [0, 0], [0, 0], [0, 0], [0, -3]])  # the middle stays where it is
    sure = np.array([0.2, 0.8, 0.8, 0.8, 0.9])
    moved = []
    for confidence in (None, np.full(5, np.nan), np.full(5, 0.3), sure):
        steady = SteadyFace()
        steady(FACE, 0.0, confidence)
        moved.append(steady(far, 1 / FPS, confidence) - FACE)
    for same in moved[:3]:
        np.testing.assert_allclose(same[4], -moved[0][0], atol=1e-4)
        np.testing.assert_allclose(same, moved[0], atol=1e-4)
    assert moved[0][0, 1] > 0.2
    # a quarter of the median's confidence is a 16th of the cutoff: alpha = 1 / (1 + 1 / (2 pi f T))
    alpha = moved[0][0, 1] / 3
    np.testing.assert_allclose(moved[3][0], [0, 3 / (1 + 16 * (1 / alpha - 1))], atol=1e-4)
    np.testing.assert_allclose(moved[3][4], moved[0][4], atol=1e-4)


def test_what_stands_still_stays() -> None:
    points = np.repeat(FACE[None], 30, axis=0)
    np.testing.assert_allclose(steadied(points), points, rtol=1e-6)


def test_after_a_step_the_points_arrive_and_do_not_overshoot() -> None:
    points = moving(lambda times: np.where(times[:, None] < 0.2, 0.0, 30.0) * np.ones(2), 40)
    found = steadied(points)
    assert (np.diff(found, axis=0) > -1e-3).all()
    assert (found < points[-1] + 1e-3).all()
    np.testing.assert_allclose(found[-1], points[-1], atol=0.01)


@given(scale=st.floats(0.1, 20), shift=st.floats(-500, 500))
@settings(max_examples=20, deadline=None)
def test_a_larger_face_elsewhere_is_steadied_alike(scale: float, shift: float) -> None:
    points = moving(sway, 30) + noise(30, 1.0)
    found = steadied(points * scale + shift)
    np.testing.assert_allclose(found, steadied(points) * scale + shift, atol=3e-4 * max(1.0, scale))


def test_nearly_the_same_at_30_and_60_frames_a_second() -> None:
    slow, quick = steadied(moving(sway, 60, 30), 30), steadied(moving(sway, 120, 60), 60)
    assert np.abs(slow - moving(sway, 60, 30)).max() > 0.5
    np.testing.assert_allclose(quick[::2], slow, atol=0.4)


def test_points_that_are_not_known_do_no_harm() -> None:
    points = np.repeat(FACE[None], 40, axis=0) + noise(40, 0.3)
    points[:12, 0] = points[20:22, 3] = np.nan
    points[30] = np.nan
    found = steadied(points)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(points))
    np.testing.assert_allclose(found[31:], np.broadcast_to(FACE, (9, 5, 2)), atol=1.0)
    # a point that comes back is taken as it is found
    middle = OneEuro(Cutoffs(1.0, 0.0))
    middle(np.full((1, 2), np.nan), 0.0, 1.0)
    np.testing.assert_array_equal(middle(np.array([[3.0, 4.0]]), 0.1, 1.0), [[3.0, 4.0]])


def test_a_frame_at_the_same_time_changes_nothing() -> None:
    steady = SteadyFace()
    steady(FACE, 0.0)
    before = steady(FACE + 1, 0.04)
    np.testing.assert_array_equal(steady(FACE + 50, 0.04), before)
    assert np.isfinite(steady(FACE + 2, 0.08)).all()


def test_one_point_is_a_face_too() -> None:
    points = np.array([[[5.0, 6.0]]] * 3)
    np.testing.assert_allclose(steadied(points), points)


def test_size_is_that_of_the_points_spread() -> None:
    assert face_size(np.array([[0.0, 0], [6, 8]])) == pytest.approx(20)
    assert face_size(FACE * 3 + 40) == pytest.approx(3 * face_size(FACE))


@pytest.mark.parametrize("size", [0.1, 0.4, 1.0])
def test_a_still_faces_jitter_falls_by_more_than_half(size: float) -> None:
    shaken = noise(200, size)
    assert jitter(steadied(FACE + shaken) - FACE) < 0.5 * jitter(shaken)


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.0, 2.0])
def test_a_moving_face_lags_less_than_a_frame(speed: float) -> None:
    step = speed * face_size(FACE) / FPS
    points = moving(lambda times: np.outer(times * FPS * step, [0.6, 0.8]), 60) + noise(60, 0.1)
    behind = (points - steadied(points)).mean(axis=1) @ (0.6, 0.8) / step
    assert 0 < behind[20:].mean() < 1


def test_a_slow_faces_jitter_falls_by_half() -> None:
    clean, shaken = moving(sway, 200), noise(200, 0.3)
    assert jitter(steadied(clean + shaken) - clean) < 0.5 * jitter(shaken)


def test_a_mouth_that_opens_is_not_smeared() -> None:
    opening = np.clip((np.arange(40) - 20) / 5, 0, 1) * 0.15 * face_size(FACE)  # in 0.2 s
    points = np.repeat(FACE[None], 40, axis=0) + noise(40, 0.1)
    points[:, 3:, 1] += opening[:, None]
    lag = (points - steadied(points))[20:, 3:, 1].sum() / 2 / opening[-1]
    assert 0 < lag < 1.5
