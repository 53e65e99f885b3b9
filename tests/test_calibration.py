"""What a model claims of itself, against cases worked by hand and against errors drawn as it claims them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.calibration import NEAR, calibrate, chance_near, scale_factor, scale_of_chance
from landmarks_fastai.errors import UserError

NAN = math.nan
EVEN = 2 / (0.476936 * math.sqrt(math.pi))
"""The mean absolute error of a normal distribution whose probable error is 2."""


def drawn(truth: float = 1.0, n: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw (n, 5) points whose errors are normal, on the mean `truth` times as large as is claimed."""
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(np.log(0.4), np.log(5), (n, 5)))
    true = rng.uniform(0, 96, (n, 5, 2))
    errors = rng.normal(size=true.shape) * math.sqrt(math.pi / 2)
    return true + errors * truth * scales[..., None], true, scales


def test_by_hand():
    # near is 2.5 % of 80 px = 2 px; the surest point last. A scale of EVEN has a chance of a half, twice
    true = np.zeros((2, 3, 2))
    pred = np.array([[[1, -2], [3, 0], [5, 5]], [[0, 2.1], [9, 9], [0, 0]]], float)
    true[1, 1] = NAN
    scales = np.array([[1, EVEN, NAN], [4, 1, 0.5]])
    found = calibrate(pred, true, scales, 80)
    assert found is not None
    assert (found.points, found.near) == (4, 2)
    chances = [math.erf(2 / (b * math.sqrt(math.pi))) ** 2 for b in (4, EVEN, 1, 0.5)]
    assert chances[1] == pytest.approx(0.25, abs=1e-5)
    assert [one.claimed for one in found.bins] == pytest.approx(chances)
    assert [one.true for one in found.bins] == [0, 0, 1, 1]
    assert [one.claimed_error for one in found.bins] == pytest.approx([4, EVEN, 1, 0.5])
    assert [one.true_error for one in found.bins] == pytest.approx([1.05, 1.5, 1.5, 0])
    assert found.claimed == pytest.approx(np.mean(chances))
    assert found.true == 0.5
    assert found.ece == pytest.approx((chances[0] + chances[1] + 1 - chances[2] + 1 - chances[3]) / 4)
    # distances 2.1, 3, 2.24, 0 from the least sure on: ranks 3, 1, 2, 4 of nearness beside 1, 2, 3, 4:
    # 1 - 6 Σd² / (n (n² - 1)), Spearman's own formula
    squares = (3 - 1) ** 2 + (1 - 2) ** 2 + (2 - 3) ** 2 + (4 - 4) ** 2
    assert found.rank_correlation == pytest.approx(1 - 6 * squares / (4 * 15))
    assert found.factor == pytest.approx((2.1 / 4 + 3 / EVEN + 1 + 2) / 8)


def test_a_model_that_is_right_about_itself():
    found = calibrate(*drawn(), 96)
    assert found is not None
    assert found.ece < 0.01
    assert found.claimed == pytest.approx(found.true, abs=0.01)
    assert found.factor == pytest.approx(1, abs=0.01)
    assert [one.points for one in found.bins] == [10_000] * 10
    for one in found.bins:
        assert one.claimed == pytest.approx(one.true, abs=0.04)
        assert one.claimed_error == pytest.approx(one.true_error, rel=0.06)
    assert np.diff([one.claimed for one in found.bins]).min() > 0  # from the least sure to the surest
    assert 0.5 < found.rank_correlation < 1


@pytest.mark.parametrize("truth", [0.6, 1.7])
def test_the_factor_makes_the_claims_true_and_keeps_the_order(truth: float):
    pred, true, scales = drawn(truth)
    factor = scale_factor(pred, true, scales)
    assert factor == pytest.approx(truth, rel=0.02)
    before, after = calibrate(pred, true, scales, 96), calibrate(pred, true, factor * scales, 96)
    assert before is not None
    assert after is not None
    assert after.ece < 0.01 < 0.1 < before.ece
    assert (before.claimed < before.true) == (truth < 1)
    assert after.factor == pytest.approx(1)
    assert after.rank_correlation == pytest.approx(before.rank_correlation)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.5, 2))
def test_no_other_factor_fits_better(seed: int, other: float):
    rng = np.random.default_rng(seed)
    pred, true, scales = rng.normal(size=(7, 3, 2)), rng.normal(size=(7, 3, 2)), rng.uniform(0.2, 3, (7, 3))
    true[rng.random((7, 3)) < 0.3] = NAN

    def likelihood(factor: float) -> float:
        b = factor * scales[..., None]
        return float(np.nansum(-np.abs(pred - true) / b - np.log(2 * b) * np.isfinite(true)))

    best = scale_factor(pred, true, scales)
    assert likelihood(best) >= likelihood(best * other) - 1e-9


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.1, 20))
def test_the_size_of_the_images_and_unlabelled_points_change_nothing(seed: int, size: float):
    rng = np.random.default_rng(seed)
    pred, true, scales = rng.normal(size=(9, 3, 2)), rng.normal(size=(9, 3, 2)), rng.uniform(0.2, 3, (9, 3))
    true[0, 1] = NAN
    wild = pred.copy()
    wild[0, 1] = 1e6
    one, other = (
        calibrate(pred, true, scales, 40),
        calibrate(wild * size, true * size, scales * size, 40 * size),
    )
    assert one is not None
    assert other is not None
    assert (one.points, one.true) == (other.points, other.true)
    for name in ("claimed", "ece", "rank_correlation", "factor"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))


def test_chance_near_is_how_often_it_happens():
    error = np.random.default_rng(0).normal(size=(200_000, 2))
    error *= 1.7 / np.abs(error).mean()
    assert chance_near(1.7, 100) == pytest.approx((np.abs(error) < 100 * NEAR).all(axis=1).mean(), abs=0.005)
    golden = math.erf(1 / math.sqrt(math.pi)) ** 2
    np.testing.assert_allclose(chance_near([[1, NAN]], [[40]]), [[golden, NAN]])


def test_nothing_to_judge():
    points = np.zeros((2, 3, 2))
    assert calibrate(points, points, np.full((2, 3), NAN), 96) is None
    assert calibrate(points, np.full_like(points, NAN), np.ones((2, 3)), 96) is None
    assert scale_factor(points, points, np.full((2, 3), NAN)) == 1
    assert scale_factor(points, points, np.ones((2, 3))) == 1
    alike = calibrate(points + 1, points, np.ones((2, 3)), 96)
    assert alike is not None
    assert math.isnan(alike.rank_correlation)
    with pytest.raises(UserError, match=r"need scales \(N, K\)"):
        calibrate(points, points, np.ones((2, 2)), 96)


@given(share=st.floats(0.005, 0.5), side=st.floats(32, 500))
def test_a_chance_leads_back_to_its_scale(share: float, side: float) -> None:
    scale = share * side
    assert scale_of_chance(chance_near(scale, side), side) == pytest.approx(scale, rel=1e-3)
