"""Reports on hand-computed cases, as JSON, and of data sets."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from helpers.small_faces import COMPLETE, EYELESS, PRED, TRIANGLE, TRUE, random_points
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.report import evaluate_dataset, evaluate_landmarks
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import KAGGLE15

NAN = math.nan
DIVERGED = PRED.copy()
DIVERGED[2, 1] = NAN


def test_report_equals_hand_computed_scores() -> None:
    report = evaluate_landmarks(PRED, TRUE, TRIANGLE, COMPLETE, 96)
    assert (report.schema, report.normalizer, report.image_size) == ("triangle", "inter_ocular", 96)
    np.testing.assert_allclose(report.nme, [11 / 30, 0.1, 0.04])
    assert report.worst(2) == (0, 1)

    overall = report.overall
    assert (overall.faces, overall.faces_with_nme) == (3, 3)
    assert overall.nme_inter_ocular == pytest.approx((11 / 30 + 0.1 + 0.04) / 3)
    # two boxes: (11 / 3) / sqrt(120) and 0.4 / 10
    assert overall.nme_box == pytest.approx((11 / 3 / math.sqrt(120) + 0.04) / 2)
    assert (overall.failure_rate_8, overall.failure_rate_10) == pytest.approx((2 / 3, 1 / 3))
    # only the third face contributes: 1 - 0.04 / 0.08 and 1 - 0.04 / 0.10
    assert (overall.auc_8, overall.auc_10) == pytest.approx((0.5 / 3, 0.6 / 3))

    # complete: 13 + 1.2 over 12 coordinates; partial: 2 over 4, squares 1 + 1
    assert (report.complete.faces, report.partial.faces) == (2, 1)
    assert (report.complete.l1, report.partial.l1) == pytest.approx((14.2 / 12, 0.5))
    assert report.partial.rmse == pytest.approx(math.sqrt(0.5))
    assert math.isnan(report.partial.nme_box)

    eye, _, chin = report.landmarks
    # left eye: errors (3, 4), (1, 0), (0.4, 0); distances 5, 1, 0.4
    assert (eye.name, eye.labeled) == ("left_eye", 3)
    assert eye.mean_distance == pytest.approx(6.4 / 3)
    assert eye.rmse == pytest.approx(math.sqrt((9 + 16 + 1 + 0.16) / 6))
    assert (eye.bias_x, eye.bias_y) == pytest.approx((4.4 / 3, 4 / 3))
    # 95 % of the way over two gaps: 0.9 of the way from 1 to 5
    assert eye.p95 == pytest.approx(4.6)
    assert chin.labeled == 2


def test_report_of_schema_without_eyes_is_normalized_by_box() -> None:
    report = evaluate_landmarks(PRED, TRUE, EYELESS, COMPLETE, 96)
    assert report.normalizer == "box"
    np.testing.assert_allclose(report.nme, [11 / 3 / math.sqrt(120), NAN, 0.04])
    assert report.overall.faces_with_nme == 2
    assert report.overall.failure_rate_8 == 0.5
    assert math.isnan(report.overall.nme_inter_ocular)
    assert report.worst(3) == (0, 2)  # without the face that has no NME


@pytest.mark.parametrize(
    ("schema", "name", "mean"),
    [
        (TRIANGLE, "inter-ocular distance", (11 / 30 + 0.14) / 3),
        (EYELESS, "box size", (11 / 3 / math.sqrt(120) + 0.04) / 2),
    ],
)
def test_report_names_its_normalizer_and_uses_it_for_mean_nme(
    schema: LandmarkSchema, name: str, mean: float
) -> None:
    report = evaluate_landmarks(PRED, TRUE, schema, COMPLETE, 96)
    assert report.normalizer_name == name
    assert report.mean_nme(report.overall) == pytest.approx(mean)


def test_report_to_dict_is_json_with_null_for_nan() -> None:
    report = evaluate_landmarks(PRED, TRUE, TRIANGLE, np.ones(3, bool), 96)
    entries = report.to_dict(per_face=True)
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert entries["partial"]["rmse"] is None
    assert entries["partial"]["faces"] == 0
    assert entries["nme"] == [0.366667, 0.1, 0.04]
    assert "nme" not in report.to_dict()


def test_report_to_dict_has_keys_of_fields() -> None:
    entries = evaluate_landmarks(PRED, TRUE, TRIANGLE, COMPLETE, 80, np.ones((3, 3))).to_dict()
    assert [scores["name"] for scores in entries["landmarks"]] == ["left_eye", "right_eye", "chin"]
    assert (entries["calibration"]["landmarks"], entries["calibration"]["radius"]) == (8, 2.0)
    assert entries["calibration"]["bins"][0].keys() == {
        "landmarks",
        "mean_confidence",
        "observed",
        "expected_error",
        "observed_error",
    }


def test_report_of_perfect_prediction_has_no_error() -> None:
    true = TRUE[[0, 2]]
    report = evaluate_landmarks(true, true, TRIANGLE, [True, True], 96)
    assert (report.overall.rmse, report.overall.nme_box, report.overall.failure_rate_8) == (0, 0, 0)
    assert (report.overall.auc_8, report.overall.auc_10) == (1, 1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_report_ignores_predictions_of_unlabeled_landmarks(seed: int) -> None:
    pred, true = random_points(seed)
    changed = np.where(np.isnan(true), 1e6, pred)
    complete = ~np.isnan(true).any(axis=(1, 2))
    report = evaluate_landmarks(pred, true, KAGGLE15, complete, 96)
    masked = evaluate_landmarks(changed, true, KAGGLE15, complete, 96)
    assert masked.to_dict(per_face=True) == report.to_dict(per_face=True)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"pred": DIVERGED}, r"'right_eye' in face 2 is not a number \(1 such value\): .* diverged"),
        ({"schema": KAGGLE15}, "15 landmarks, but the faces have 3"),
        ({"true": np.full_like(TRUE, NAN)}, "evaluation needs labels"),
        ({"complete": [True]}, "values of complete"),
        ({"pred": PRED[:1]}, "must have the same shape"),
    ],
)
def test_evaluation_of_invalid_input_is_refused(case: dict[str, object], message: str) -> None:
    valid = {"pred": PRED, "true": TRUE, "schema": TRIANGLE, "complete": COMPLETE, "image_size": 96}
    with pytest.raises(UserError, match=message):
        evaluate_landmarks(**{**valid, **case})  # type: ignore[arg-type]


def test_evaluate_dataset_equals_evaluation_of_its_arrays(dataset: LandmarkDataset) -> None:
    points = np.nan_to_num(dataset.points, nan=48.0) + np.float32(1)
    scales = np.full(points.shape[:2], 2, np.float32)
    predicted = Landmarks(points, KAGGLE15, np.full_like(scales, 0.5), scales)
    report = evaluate_dataset(predicted, dataset)
    expected = evaluate_landmarks(points, dataset.points, KAGGLE15, dataset.complete, 96, scales)
    assert report.to_dict(per_face=True) == expected.to_dict(per_face=True)
    assert report.overall.rmse == pytest.approx(1, abs=1e-5)
    assert (report.complete.faces, report.partial.faces) == (51, 9)
    assert report.calibration is not None


def test_evaluate_dataset_without_scales_has_no_calibration(dataset: LandmarkDataset) -> None:
    predicted = Landmarks.from_points(np.nan_to_num(dataset.points), KAGGLE15)
    assert evaluate_dataset(predicted, dataset).calibration is None


def test_evaluate_dataset_selects_landmarks_of_dataset(dataset: LandmarkDataset) -> None:
    order = list(reversed(range(15)))
    schema = LandmarkSchema("reversed", tuple(KAGGLE15.names[i] for i in order))
    predicted = Landmarks.from_points(np.nan_to_num(dataset.points)[:, order], schema)
    assert evaluate_dataset(predicted, dataset).overall.rmse == 0


def test_evaluate_dataset_of_other_landmarks_is_refused(dataset: LandmarkDataset) -> None:
    predicted = Landmarks.from_points(np.zeros((len(dataset), 3, 2)), TRIANGLE)
    with pytest.raises(UserError, match="choose other data"):
        evaluate_dataset(predicted, dataset)
