"""A square is found again from the points inside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.framing import Square, fit_square

MEAN = np.array([[0.7, 0.35], [0.3, 0.35], [0.5, 0.6], [0.5, 0.85]])


@given(
    left=st.floats(-500, 5000), top=st.floats(-500, 5000), side=st.floats(2, 3000), angle=st.floats(0, 6.28)
)
def test_the_square_of_a_mean_face_is_its_own_however_it_is_turned(
    left: float, top: float, side: float, angle: float
) -> None:
    square = Square(left, top, side)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = MEAN.mean(axis=0)
    inside = (MEAN - middle) @ turn.T + middle
    points = square.to_picture((inside * 64 - 0.5).astype(np.float32), 64)
    found = fit_square(points, MEAN)
    assert found is not None
    # points are float32, so that far to the right they are rounded to a few thousandths
    np.testing.assert_allclose(found.edges, square.edges, atol=2e-3 + 1e-4 * side)


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
