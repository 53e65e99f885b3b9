"""A square is found again from the points inside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.framing import LEAN, Square, cut_square, fit_square, turn_points

MEAN = np.array([[0.7, 0.35], [0.3, 0.35], [0.5, 0.6], [0.5, 0.85]])


ANGLES = st.floats(-3.1, 3.1)


@given(left=st.floats(-500, 5000), top=st.floats(-500, 5000), side=st.floats(2, 3000), angle=ANGLES)
def test_in_the_square_around_them_points_lie_as_the_mean_face_and_lean_a_little_at_most(
    left: float, top: float, side: float, angle: float
) -> None:
    points = turn_points(MEAN, angle, (0.5, 0.5)) * side + (left, top) - 0.5
    found = fit_square(points, MEAN)
    assert found is not None
    assert found.side == pytest.approx(side)
    lean = min(LEAN, max(-LEAN, angle))
    assert found.turn == pytest.approx(angle - lean, abs=1e-6)
    expected = turn_points(MEAN, lean, tuple(MEAN.mean(axis=0))) * 64 - 0.5
    np.testing.assert_allclose(found.from_picture(points, 64), expected, atol=1e-6)


@given(turn=ANGLES, side=st.floats(2, 3000), x=st.floats(-5, 70), y=st.floats(-5, 70))
def test_points_come_back_from_a_turned_square(turn: float, side: float, x: float, y: float) -> None:
    square = Square(-20.0, 35.0, side, turn)
    there = square.to_picture(np.array([[x, y]], np.float32), 64)
    np.testing.assert_allclose(square.from_picture(there, 64), [[x, y]], atol=1e-3)


def test_a_square_turns_clockwise_as_one_sees_it() -> None:
    corner = np.array([[-0.5, -0.5]], np.float32)
    quarter = Square(10, 20, 40, np.pi / 2)
    np.testing.assert_allclose(quarter.to_picture(corner, 8), [[49.5, 19.5]], atol=1e-5)
    assert quarter.moved(1, 2) == Square(11, 22, 40, np.pi / 2)


@settings(max_examples=40, deadline=None)
@given(turn=ANGLES, side=st.floats(80, 120), size=st.sampled_from([8, 16, 96]))
def test_a_turned_square_shows_what_lies_under_its_pixels(turn: float, side: float, size: int) -> None:
    x = np.arange(240, dtype=np.float64)
    ramps = np.stack(np.meshgrid(x, x), -1)  # of each pixel its x and its y
    picture = np.concatenate([ramps, np.full((240, 240, 1), 9)], -1).astype(np.uint8)
    square = Square(118.3 - side / 2, 121.9 - side / 2, side, turn)
    line = np.arange(size, dtype=np.float32)
    pixels = np.stack(np.meshgrid(line, line), -1)
    found = cut_square(picture, square, size, 3)
    # a half-pixel mistake would be 2.5 and more at the small sizes; two roundings are not
    np.testing.assert_allclose(found[..., :2], square.to_picture(pixels, size), atol=1.6)
    assert (found[..., 2] == 9).all()
    gray = cut_square(picture[..., :1], square, size, 1)
    np.testing.assert_allclose(gray[..., 0], square.to_picture(pixels, size)[..., 0], atol=1.6)


def test_a_turned_square_is_antialiased() -> None:
    checks = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = cut_square(checks, Square(16, 16, 64, 0.7), 8, 1)
    assert np.abs(shrunk.astype(int) - 127).max() <= 6


def test_points_that_are_not_known_play_no_part() -> None:
    points = MEAN * 50 + (10, 20) - 0.5
    points[1] = np.nan
    found = fit_square(points, MEAN)
    assert found is not None
    assert found.edges == pytest.approx((10, 20, 60, 70))


def test_one_place_tells_no_size() -> None:
    points = np.full((4, 2), np.nan)
    points[2] = 5, 5
    assert fit_square(points, MEAN) is None
    assert fit_square(np.full((4, 2), 7.0), MEAN) is None
