"""Scores of visibility: values computed by hand, and average precision against its definition."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.data.annotations import NOT_LABELED, OCCLUDED, VISIBLE
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.evaluation.visibility import average_precision, evaluate_visibility, score_visibility
from landmarks_fastai.landmarks import Landmarks


def test_average_precision_equals_value_computed_by_hand() -> None:
    # in order of score: hit, miss, hit, miss, with precision 1/1 and 2/3 at the hits
    assert average_precision([0.9, 0.8, 0.7, 0.1], [True, False, True, False]) == pytest.approx(
        0.5 * 1 + 0.5 * 2 / 3
    )


def test_average_precision_of_equal_scores_is_fraction_of_positives() -> None:
    assert average_precision([0.5] * 4, [True, False, False, False]) == pytest.approx(0.25)


def test_average_precision_without_positives_is_nan() -> None:
    assert math.isnan(average_precision([0.5, 0.2], [False, False]))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_average_precision_equals_sum_over_thresholds(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    if not positive.any():
        return
    total, previous = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = (chosen & positive).sum() / positive.sum()
        total += (recall - previous) * (chosen & positive).sum() / chosen.sum()
        previous = recall
    assert average_precision(scores, positive) == pytest.approx(total)


def test_score_visibility_equals_values_computed_by_hand() -> None:
    scores = score_visibility([0.9, 0.6, 0.5, 0.4, 0.2], [True, False, True, True, False])
    assert scores.visible.precision == pytest.approx(2 / 3)  # of 0.9, 0.6, 0.5
    assert scores.visible.recall == pytest.approx(2 / 3)  # 0.4 is missed
    assert scores.occluded.precision == pytest.approx(1 / 2)  # of 0.4, 0.2
    assert scores.occluded.recall == pytest.approx(1 / 2)  # 0.6 is missed
    assert scores.observed == pytest.approx(3 / 5)
    assert scores.mean_predicted == pytest.approx(0.52)
    # five bins of one landmark each
    assert scores.ece == pytest.approx((0.1 + 0.6 + 0.5 + 0.6 + 0.2) / 5)
    assert scores.brier == pytest.approx((0.01 + 0.36 + 0.25 + 0.36 + 0.04) / 5)


def test_calibrated_probabilities_have_small_calibration_error() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0, 1, 20_000)
    labels = rng.random(20_000) < probabilities
    assert score_visibility(probabilities, labels).ece < 0.02
    assert score_visibility(probabilities**2, labels).ece > 0.1


def _with_visibility(dataset: LandmarkDataset) -> LandmarkDataset:
    visibility = np.where(dataset.labeled, VISIBLE, NOT_LABELED).astype(np.uint8)
    visibility[::2, 0] = OCCLUDED
    visibility[1, 1] = NOT_LABELED
    return replace(dataset, visibility=np.where(dataset.labeled, visibility, NOT_LABELED).astype(np.uint8))


def test_evaluate_visibility_separates_errors_and_ignores_unlabeled(dataset: LandmarkDataset) -> None:
    labeled = _with_visibility(dataset)
    assert labeled.visibility is not None
    points = np.nan_to_num(dataset.points)
    points[labeled.visibility == OCCLUDED] += [3, 4]
    points[labeled.visibility == NOT_LABELED] += 1000
    visibility = np.where(labeled.visibility == OCCLUDED, 0.1, 0.8).astype(np.float32)
    predicted = replace(Landmarks.from_points(points, dataset.schema), visibility=visibility)
    report = evaluate_visibility(predicted, labeled)
    assert report is not None
    assert report.prediction is not None
    assert report.visible.mean_distance == 0
    assert report.occluded.mean_distance == pytest.approx(5)
    assert report.occluded.rmse == pytest.approx(math.sqrt((9 + 16) / 2))
    assert report.occluded.landmarks == (labeled.visibility == OCCLUDED).sum()
    assert report.prediction.landmarks == (labeled.visibility != NOT_LABELED).sum()
    assert report.prediction.occluded.average_precision == 1
    assert report.to_dict()["prediction"]["occluded"]["recall"] == 1


def test_evaluate_visibility_of_model_without_it_has_only_errors(dataset: LandmarkDataset) -> None:
    labeled = _with_visibility(dataset)
    report = evaluate_visibility(Landmarks.from_points(dataset.points, dataset.schema), labeled)
    assert report is not None
    assert report.prediction is None
    assert report.to_dict()["prediction"] is None


@pytest.mark.parametrize("value", [None, VISIBLE, OCCLUDED])
def test_evaluate_visibility_of_one_value_is_none(dataset: LandmarkDataset, value: int | None) -> None:
    flags = None if value is None else np.full(dataset.points.shape[:2], value, np.uint8)
    predicted = Landmarks.from_points(dataset.points, dataset.schema)
    assert evaluate_visibility(predicted, replace(dataset, visibility=flags)) is None
