"""Metrics as sums over rows equal the metrics of the report."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.small_faces import random_points
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.evaluation.metrics import normalizing_distance
from landmarks_fastai.evaluation.oks import oks
from landmarks_fastai.evaluation.pck import pck
from landmarks_fastai.evaluation.report import evaluate_landmarks
from landmarks_fastai.evaluation.row_metrics import row_metrics
from landmarks_fastai.schemas import KAGGLE15

SIGMAS = np.linspace(0.02, 0.1, 15)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_row_metrics_equal_those_of_report(seed: int) -> None:
    pred, true = random_points(seed, 20)
    normalizer = normalizing_distance(true, KAGGLE15)
    metrics = {metric.name: metric for metric in row_metrics(pred, true, normalizer, sigmas=SIGMAS)}
    overall = evaluate_landmarks(pred, true, KAGGLE15, np.ones(20, bool), 96).overall
    names = ("rmse", "nme", "failure_rate_8", "failure_rate_10", "auc_8", "auc_10")
    for name in names:
        assert metrics[name].value() == pytest.approx(getattr(overall, name), nan_ok=True), name
    for threshold in (0.05, 0.1, 0.2):
        expected = pck(pred, true, normalizer, threshold)
        assert metrics[f"pck_{threshold:g}"].value() == pytest.approx(expected, nan_ok=True)
    assert metrics["oks"].value() == pytest.approx(float(np.nanmean(oks(pred, true, SIGMAS))))
    assert len(metrics) == len(names) + 3 + 1


def test_row_metric_of_subset_equals_metric_of_these_rows() -> None:
    pred, true = random_points(3, 20)
    rows = np.arange(20) % 3 == 0
    normalizer = normalizing_distance(true, KAGGLE15)
    for whole, part in zip(
        row_metrics(pred, true, normalizer),
        row_metrics(pred[rows], true[rows], normalizer[rows]),
        strict=True,
    ):
        assert whole.subset(rows).value() == pytest.approx(part.value(), nan_ok=True)
    empty = row_metrics(pred, true, normalizer)[0].subset(np.zeros(20, bool))
    assert np.isnan(empty.value())


def test_row_metrics_know_which_direction_is_better() -> None:
    pred, true = random_points(3, 20)
    normalizer = normalizing_distance(true, KAGGLE15)
    exact = np.nan_to_num(true)
    worse, better = (row_metrics(points, true, normalizer, sigmas=SIGMAS) for points in (pred + 9, exact))
    for bad, good in zip(worse, better, strict=True):
        assert (good.value() > bad.value()) == good.higher_is_better, good.name
