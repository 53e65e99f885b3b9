"""The ranking of label errors: injected errors rank first, difficult faces do not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers.label_errors import (
    DIFFICULT,
    FACES,
    LANDMARK_OFFSET,
    SHIFT_OFFSET,
    inject_label_errors,
    sample_predictions,
    without_confidence,
)

from landmarks_fastai.evaluation.label_errors import FACE, LANDMARK, SHIFT, rank_label_errors
from landmarks_fastai.evaluation.out_of_fold import OutOfFoldPredictions
from landmarks_fastai.landmarks import Landmarks


@pytest.mark.parametrize("seed", range(3))
def test_ranking_puts_injected_errors_first_with_their_kind(seed: int) -> None:
    ranking = rank_label_errors(inject_label_errors(FACES), sample_predictions(FACES, seed))
    assert len(ranking) == 120
    assert sum(error.row < 20 for error in ranking[:22]) >= 19
    assert all(first.score >= second.score for first, second in pairwise(ranking))
    by_row = {error.row: error for error in ranking}
    assert all(by_row[row].kind in (FACE, SHIFT) for row in range(10))
    for row in range(10, 15):
        assert by_row[row].kind == SHIFT
        assert by_row[row].shift == pytest.approx(SHIFT_OFFSET, abs=2)
    for row in range(15, 20):
        assert (by_row[row].kind, by_row[row].landmark) == (LANDMARK, 3)
        assert by_row[row].distance == pytest.approx(np.hypot(*LANDMARK_OFFSET), abs=6)


def test_ranking_does_not_prefer_difficult_faces_with_low_confidence() -> None:
    predictions = sample_predictions(FACES, 0)
    first = rank_label_errors(FACES, predictions)[:20]
    assert sum(error.row >= DIFFICULT.start for error in first) < 10
    first = rank_label_errors(FACES, without_confidence(predictions))[:20]
    assert sum(error.row >= DIFFICULT.start for error in first) > 15


def test_ranking_without_confidence_is_relative_to_median_of_each_landmark() -> None:
    rng = np.random.default_rng(3)
    noise = rng.laplace(size=FACES.points.shape)
    noise[:, 14] *= 8  # a landmark that is difficult in every face
    noise[40, 0] = 10, -8
    landmarks = Landmarks.from_points(FACES.points + noise, FACES.schema)
    first = rank_label_errors(FACES, OutOfFoldPredictions(np.ones(120, np.int64), landmarks))[0]
    assert (first.row, first.kind, first.landmark) == (40, LANDMARK, 0)


def test_ranking_ignores_unlabeled_landmarks_and_faces() -> None:
    dataset = inject_label_errors(FACES)
    points = dataset.points.copy()
    points[30] = np.nan
    points[:, 5] = np.nan
    points[20:60, 2:9] = np.nan
    predictions = sample_predictions(FACES, 1)
    predictions.landmarks.points[15, 5] = 1e4
    ranking = rank_label_errors(replace(dataset, points=points), predictions)
    assert sorted(error.row for error in ranking) == [row for row in range(120) if row != 30]
    assert all(np.isfinite((error.score, error.distance)).all() and error.landmark != 5 for error in ranking)
    assert sum(error.row < 20 for error in ranking[:22]) >= 18
