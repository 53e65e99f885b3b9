"""The minimum confidence of faces: its default, and what it discards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.models import make_header

from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.ensemble import Ensemble
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.rejection import (
    choose_min_confidence,
    default_min_confidence,
    describe_discarded,
    describe_discarded_detections,
    discard_unconfident,
    typical_confidence,
)
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.schemas import schema_from_names

EYES = schema_from_names("eyes", ["left_eye", "right_eye"])


def header_with(metrics: dict[str, Any], scales: bool = True) -> ModelHeader:
    return make_header(32, EYES, head={"scales": scales}, metrics=metrics)


def predictor_with(metrics: dict[str, Any], scales: bool = True) -> Predictor:
    return Predictor(header_with(metrics, scales), lambda crops: ())


def landmarks_with(confidence: list[list[float]]) -> Landmarks:
    """Return faces at (0, 0), (1, 1) …, with the given confidence of each landmark."""
    values = np.array(confidence, np.float32)
    points = np.repeat(np.arange(len(values), dtype=np.float32), 4).reshape(-1, 2, 2)
    return Landmarks(points, EYES, values, np.ones_like(values))


# --- the default ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "size", "expected"),
    # erf(0.025 * size / (error * sqrt(pi)))²
    [(0.969012, 96, 0.9060), (0.969012 * 2, 96 * 2, 0.9060), (3.0, 128, 0.3664), (9.6, 96, 0.0250)],
)
def test_typical_confidence_is_that_of_mean_error(error: float, size: int, expected: float) -> None:
    header = header_with({"l1": error, "image_size": size})
    assert typical_confidence(header) == pytest.approx(expected, abs=1e-4)
    assert default_min_confidence(header) == pytest.approx(0.55 * expected, abs=1e-4)


def test_typical_confidence_without_image_size_takes_that_of_kaggle() -> None:
    assert typical_confidence(header_with({"l1": 0.969012})) == pytest.approx(0.9060, abs=1e-4)


@pytest.mark.parametrize(
    "metrics", [{}, {"l1": None}, {"l1": 0.0}, {"l1": "1"}, {"l1": 1.0, "image_size": 0}]
)
def test_typical_confidence_without_error_is_unknown(metrics: dict[str, Any]) -> None:
    assert typical_confidence(header_with(metrics)) is None
    assert default_min_confidence(header_with(metrics)) == 0


def test_default_is_zero_without_confidence_and_mean_in_ensemble() -> None:
    accurate, inaccurate = predictor_with({"l1": 1.0}), predictor_with({"l1": 4.0})
    silent = predictor_with({"l1": 1.0}, scales=False)
    assert silent.default_min_confidence == 0
    assert accurate.default_min_confidence > inaccurate.default_min_confidence > 0
    mean = (accurate.default_min_confidence + inaccurate.default_min_confidence) / 2
    assert Ensemble([accurate, inaccurate]).default_min_confidence == pytest.approx(mean)
    assert Ensemble([accurate, silent]).default_min_confidence == 0


def test_choose_min_confidence_defaults_to_face_detectors_only() -> None:
    predictor = predictor_with({"l1": 1.0})
    assert choose_min_confidence(None, predictor, face_detector=True) == predictor.default_min_confidence
    assert choose_min_confidence(None, predictor, face_detector=False) == 0
    assert choose_min_confidence(0.3, predictor, face_detector=False) == 0.3
    assert choose_min_confidence(0.0, predictor, face_detector=True) == 0


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_choose_min_confidence_refuses_other_than_fraction(value: float) -> None:
    with pytest.raises(UserError, match="must be from 0 to 1"):
        choose_min_confidence(value, predictor_with({"l1": 1.0}), face_detector=True)


def test_choose_min_confidence_refuses_model_without_confidence() -> None:
    silent = predictor_with({"l1": 1.0}, scales=False)
    assert choose_min_confidence(None, silent, face_detector=True) == 0
    assert choose_min_confidence(0.0, silent, face_detector=True) == 0
    with pytest.raises(UserError, match="does not estimate confidence"):
        choose_min_confidence(0.5, silent, face_detector=True)


# --- discarding ----------------------------------------------------------------------------------


def test_discard_splits_faces_by_mean_confidence() -> None:
    nan = float("nan")
    found = landmarks_with([[0.9, 0.1], [0.4, 0.5], [nan, nan], [0.1, 0.2]])
    np.testing.assert_allclose(found.face_confidence, [0.5, 0.45, nan, 0.15])
    kept, discarded = discard_unconfident(found, 0.5)
    assert kept.points[:, 0, 0].tolist() == [0, 2]
    assert discarded.points[:, 0, 0].tolist() == [1, 3]
    everything, nothing = discard_unconfident(found, 0.0)
    assert (len(everything), len(nothing)) == (4, 0)


def test_discarded_faces_are_described_in_one_line() -> None:
    one = landmarks_with([[0.2, 0.3]])
    assert (
        describe_discarded(one, 0.5) == "1 face discarded: confidence 0.25 is below 0.50 (--min-confidence)"
    )
    many = landmarks_with([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]])
    assert describe_discarded(many, 0.5, "object") == (
        "4 objects discarded: confidence 0.10, 0.20, 0.30, … is below 0.50 (--min-confidence)"
    )
    assert describe_discarded_detections(2, 0.456) == (
        "2 detections discarded: confidence below 0.46 (--min-confidence)"
    )
