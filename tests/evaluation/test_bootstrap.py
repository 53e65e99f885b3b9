"""Bootstrap over groups: coverage, width for dependent rows, and determinism."""

from __future__ import annotations

import math

import numpy as np
import pytest

from landmarks_fastai.evaluation import bootstrap
from landmarks_fastai.evaluation.bootstrap import (
    bootstrap_intervals,
    draw_counts,
    group_sums,
    number_of_replicates,
)
from landmarks_fastai.evaluation.row_metrics import RowMetric


def mean_metric(values: np.ndarray) -> RowMetric:
    return RowMetric("mean", "mean", values, np.ones(len(values)))


def test_interval_of_independent_rows_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    (interval,) = bootstrap_intervals([mean_metric(values)], np.arange(400))
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.15 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.15 * half_width)


def test_interval_contains_true_mean_of_grouped_rows_in_95_percent_of_cases() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 10)
    hits = naive_hits = 0
    for seed in range(200):
        # rows of a group share most of their error
        values = rng.normal(0, 1, 60)[groups] + rng.normal(0, 0.3, 600)
        (interval,) = bootstrap_intervals([mean_metric(values)], groups, seed=seed)
        (naive,) = bootstrap_intervals([mean_metric(values)], np.arange(600), seed=seed)
        hits += interval.low <= 0 <= interval.high
        naive_hits += naive.low <= 0 <= naive.high
    assert 180 <= hits <= 198
    assert naive_hits < 130  # rows as units: far too narrow


def test_interval_of_root_of_ratio_is_that_of_rmse() -> None:
    rng = np.random.default_rng(2)
    squares = rng.normal(0, 3, (300, 2)) ** 2
    metric = RowMetric("rmse", "RMSE", squares.sum(axis=1), np.full(300, 2.0), root=True)
    (interval,) = bootstrap_intervals([metric], np.arange(300))
    assert interval.low < metric.value() < interval.high
    assert metric.value() == pytest.approx(math.sqrt(squares.mean()))
    # standard error of the root of a mean of chi-squares: sigma / sqrt(2 * number of coordinates)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 3 / math.sqrt(2 * 600), rel=0.2)


def test_intervals_depend_on_seed_alone() -> None:
    metric = mean_metric(np.random.default_rng(3).normal(size=50))
    groups = np.arange(50) // 2
    assert bootstrap_intervals([metric], groups) == bootstrap_intervals([metric], groups)
    assert bootstrap_intervals([metric], groups) != bootstrap_intervals([metric], groups, seed=1)
    # group numbers are labels
    assert bootstrap_intervals([metric], groups) == bootstrap_intervals([metric], 7 * groups + 100)


def test_interval_of_one_group_is_undefined() -> None:
    values = np.array([1.0, 2.0, 3.0])
    (interval,) = bootstrap_intervals([mean_metric(values)], np.zeros(3, np.int64))
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    # the other group has no row that counts
    one = RowMetric("one", "one", np.array([1.0, 2.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    (interval,) = bootstrap_intervals([one], np.array([0, 0, 1]))
    assert math.isnan(interval.low)


def test_group_sums_add_rows_of_a_group() -> None:
    metric = RowMetric("x", "x", np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 2.0]))
    numerators, denominators = group_sums([metric], np.array([5, 2, 5]))
    assert numerators.tolist() == [[2.0], [5.0]]
    assert denominators.tolist() == [[1.0], [3.0]]


def test_draws_are_as_many_as_groups_and_fewer_samples_for_many_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", 1000)
    counts = np.concatenate(list(draw_counts(30, 0)))
    assert counts.shape == (2000, 30)
    assert (counts.sum(axis=1) == 30).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(30), abs=0.12)
    assert number_of_replicates(300_000) == 333
    assert number_of_replicates(10**7) == 200
