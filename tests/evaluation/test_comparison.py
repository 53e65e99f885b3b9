"""Paired comparison: power of pairing, level of the test, and exact p-values."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from landmarks_fastai.evaluation.bootstrap import bootstrap_intervals
from landmarks_fastai.evaluation.comparison import Comparison, compare_metrics, sign_test
from landmarks_fastai.evaluation.row_metrics import RowMetric


def nme_metric(values: np.ndarray) -> RowMetric:
    known = ~np.isnan(values)
    return RowMetric("nme", "NME", np.where(known, values, 0.0), known.astype(float), percent=True)


def compare(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None) -> Comparison:
    groups = np.arange(len(first)) if groups is None else groups
    return compare_metrics([nme_metric(first)], [nme_metric(second)], groups, ("a", "b"))


def test_comparison_finds_small_consistent_difference_that_unpaired_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.gamma(2, 0.02, 200)
    first = difficulty + rng.normal(0, 0.001, 200)
    second = difficulty - 0.0005 + rng.normal(0, 0.001, 200)
    result = compare(first, second)
    primary = result.primary
    assert primary.difference == pytest.approx(second.mean() - first.mean())
    assert primary.interval.low < -0.0005 < primary.interval.high < 0
    assert primary.p_value == pytest.approx(1 / 10_001)
    assert primary.is_significant
    assert primary.second_is_better
    (low,), (high,) = (
        bootstrap_intervals([nme_metric(values)], np.arange(200)) for values in (second, first)
    )
    assert low.high > high.low  # these overlap
    assert result.second_wins > result.first_wins
    assert result.sign_p_value < 0.01


def test_permutation_test_rejects_equal_models_in_5_percent_of_cases() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 4)
    rejected = 0
    for _ in range(100):
        difficulty = rng.gamma(2, 0.02, 30)[groups]
        first, second = (difficulty + rng.normal(0, 0.01, 30)[groups] for _ in "ab")
        rejected += compare(first, second, groups).primary.is_significant
    assert rejected <= 11


def test_p_value_of_few_groups_equals_exact_enumeration() -> None:
    first = np.array([0.05, 0.04, 0.06, 0.05, 0.03])
    second = np.array([0.04, 0.035, 0.05, 0.052, 0.02])
    differences = second - first
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    exact = (abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
    assert compare(first, second).primary.p_value == pytest.approx(exact, abs=0.02)


def test_p_value_of_root_metric_equals_exact_enumeration() -> None:
    first = np.array([1.0, 100.0, 2.0, 9.0, 1.0, 4.0])
    second = np.array([9.0, 64.0, 16.0, 4.0, 25.0, 6.0])
    metrics = [
        [nme_metric(values), RowMetric("rmse", "RMSE px", values, np.full(6, 2.0), root=True)]
        for values in (first, second)
    ]
    result = compare_metrics(metrics[0], metrics[1], np.arange(6), ("a", "b"))
    rmse = result.metrics[1]
    assert (rmse.first, rmse.second) == pytest.approx((math.sqrt(117 / 12), math.sqrt(124 / 12)))
    swaps = np.array(np.meshgrid(*[[False, True]] * 6)).reshape(6, -1).T
    a, b = np.where(swaps, second, first).sum(axis=1), np.where(swaps, first, second).sum(axis=1)
    differences = abs(np.sqrt(b / 12) - np.sqrt(a / 12))
    exact = (differences >= abs(rmse.difference) - 1e-12).mean()
    assert rmse.p_value == pytest.approx(exact, abs=0.02)
    assert result.primary.difference == pytest.approx(7 / 6)


def test_comparison_of_model_with_itself_has_no_difference() -> None:
    values = np.random.default_rng(3).gamma(2, 0.02, 20)
    result = compare(values, values)
    assert (result.primary.difference, result.primary.p_value) == (0.0, 1.0)
    assert (result.primary.interval.low, result.primary.interval.high) == (0.0, 0.0)
    assert (result.first_wins, result.second_wins) == (0, 0)
    assert math.isnan(result.sign_p_value)


def test_comparison_is_antisymmetric() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.gamma(2, 0.02, 50), rng.gamma(2, 0.025, 50)
    there, back = compare(first, second), compare(second, first)
    assert there.primary.interval.low == pytest.approx(-back.primary.interval.high)
    assert there.primary.p_value == back.primary.p_value
    assert (there.first_wins, there.second_wins) == (back.second_wins, back.first_wins)
    assert there.primary.second_is_better != back.primary.second_is_better


def test_comparison_of_one_group_has_no_p_value() -> None:
    values = np.array([0.1, 0.2])
    result = compare(values, values + 0.1, np.zeros(2, np.int64))
    assert math.isnan(result.primary.p_value)
    assert not result.primary.is_significant
    entries = result.to_dict()
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert entries["metrics"]["nme"]["p_value"] is None


@pytest.mark.parametrize(("wins", "p_value"), [((5, 0), 2 / 32), ((3, 3), 1.0), ((1, 9), 22 / 1024)])
def test_sign_test_equals_binomial_probability(wins: tuple[int, int], p_value: float) -> None:
    assert sign_test(*wins) == pytest.approx(p_value)
    assert sign_test(*reversed(wins)) == pytest.approx(p_value)
