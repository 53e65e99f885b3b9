"""COCO's average precision: equality with OKS, order by confidence, and the message if it is missing."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.coco_ap import coco_scores
from landmarks_fastai.evaluation.oks import oks
from landmarks_fastai.evaluation.sigmas import Sigmas
from landmarks_fastai.landmarks import Landmarks

SIGMAS = Sigmas(np.linspace(0.02, 0.06, 15), "test")


def predict(dataset: LandmarkDataset, confidence: np.ndarray | None = None) -> Landmarks:
    noise = np.random.default_rng(0).normal(0, np.linspace(0.1, 6, len(dataset))[:, None, None], (60, 15, 2))
    points = (np.nan_to_num(dataset.points) + noise).astype(np.float32)
    unknown = np.full((60, 15), np.nan, np.float32)
    scores = unknown if confidence is None else np.repeat(confidence[:, None], 15, axis=1).astype(np.float32)
    return Landmarks(points, dataset.schema, scores, unknown)


def test_recall_of_coco_equals_fraction_of_rows_above_oks_thresholds(dataset: LandmarkDataset) -> None:
    predicted = predict(dataset)
    values = oks(predicted.points, dataset.points, SIGMAS.values)
    scores = coco_scores(predicted, dataset.points, SIGMAS)
    # with one detection of the same score for each object, the recall is the fraction of matched objects
    recalls = [(values >= threshold).mean() for threshold in np.arange(0.5, 0.96, 0.05)]
    assert scores.ar == pytest.approx(np.mean(recalls))
    assert 0.2 < scores.ar < 0.95
    assert scores.objects == 60


def test_confidence_that_sorts_detections_increases_ap(dataset: LandmarkDataset) -> None:
    order = np.linspace(0.9, 0.1, 60)  # the noise grows with the row
    good, bad = (coco_scores(predict(dataset, c), dataset.points, SIGMAS) for c in (order, 1 - order))
    assert good.ap > bad.ap + 0.1
    assert good.ar == pytest.approx(bad.ar)
    assert good.ap_50 >= good.ap >= 0
    assert good.ap_50 >= good.ap_75


def test_exact_predictions_have_an_ap_of_1_and_rows_without_box_are_left_out(
    dataset: LandmarkDataset,
) -> None:
    true = dataset.points.copy()
    true[3, 2:] = math.nan  # two landmarks make no box
    predicted = Landmarks.from_points(np.nan_to_num(true), dataset.schema)
    scores = coco_scores(predicted, true, SIGMAS)
    assert scores.objects == 59
    assert (scores.ap, scores.ap_50, scores.ap_75, scores.ar) == pytest.approx((1, 1, 1, 1))


def test_landmark_without_sigma_has_no_effect(dataset: LandmarkDataset) -> None:
    values = SIGMAS.values.copy()
    values[0] = math.nan
    predicted = predict(dataset)
    moved = predicted.points.copy()
    moved[:, 0] += 1000
    unknown = predicted.confidence
    scores = [
        coco_scores(Landmarks(points, dataset.schema, unknown, unknown), dataset.points, Sigmas(values, "t"))
        for points in (predicted.points, moved)
    ]
    assert scores[0] == scores[1]


def test_missing_package_is_one_line_with_remedy(
    dataset: LandmarkDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_coco(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("faster_coco_eval"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_coco)
    with pytest.raises(UserError, match=r"^COCO AP needs faster-coco-eval: pip install 'landmarks-fastai"):
        coco_scores(predict(dataset), dataset.points, SIGMAS)
