"""Roll and yaw of projected 3-D points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.evaluation.pose import estimate_pose
from landmarks_fastai.schema import LandmarkSchema

FACE = LandmarkSchema(
    "face",
    ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth"),
    (("left_eye", "right_eye"), ("left_mouth", "right_mouth")),
    eyes=(("left_eye",), ("right_eye",)),
)
HEAD = np.array([[1, -1, 0], [-1, -1, 0], [0, 0, 0.7], [0.6, 1, 0.1], [-0.6, 1, 0.1]])


def project(yaw: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Return (N, 5, 2) points of the head, turned to the right of the image by yaw and rolled, in degrees."""
    yaw, roll = np.radians(yaw), np.radians(roll)
    x = np.cos(yaw)[:, None] * HEAD[:, 0] + np.sin(yaw)[:, None] * HEAD[:, 2]
    y = np.broadcast_to(HEAD[:, 1], x.shape)
    cos, sin = np.cos(roll)[:, None], np.sin(roll)[:, None]
    return 50 + 20 * np.stack([cos * x - sin * y, sin * x + cos * y], axis=2)


def test_roll_and_yaw_of_projected_heads_are_recovered() -> None:
    rng = np.random.default_rng(0)
    yaw, roll = rng.uniform(-45, 45, 300), rng.uniform(-40, 40, 300)
    pose = estimate_pose(project(yaw, roll), FACE)
    assert np.abs(pose.roll - roll).max() < 6
    assert spearmanr(pose.yaw, yaw).statistic > 0.99
    assert (np.sign(pose.yaw) == np.sign(yaw))[abs(yaw) > 8].all()
    frontal = estimate_pose(project(np.zeros(20), np.zeros(20)), FACE)
    np.testing.assert_allclose(frontal.roll, 0, atol=1e-6)
    np.testing.assert_allclose(frontal.yaw, 0, atol=1e-6)


def test_pose_does_not_depend_on_scale_and_position() -> None:
    rng = np.random.default_rng(1)
    points = project(rng.uniform(-45, 45, 50), rng.uniform(-40, 40, 50))
    first, second = estimate_pose(points, FACE), estimate_pose(3 * points + [7, -900], FACE)
    np.testing.assert_allclose(second.roll, first.roll, atol=1e-3)
    np.testing.assert_allclose(second.yaw, first.yaw, atol=1e-3)


def test_mirrored_faces_have_opposite_pose() -> None:
    rng = np.random.default_rng(2)
    points = project(rng.uniform(-45, 45, 50), rng.uniform(-40, 40, 50))
    both = np.concatenate([points, (points * [-1, 1] + [100, 0])[:, list(FACE.flip_index)]])
    pose = estimate_pose(both, FACE)
    np.testing.assert_allclose(pose.roll[50:], -pose.roll[:50], atol=1e-3)
    np.testing.assert_allclose(pose.yaw[50:], -pose.yaw[:50], atol=1e-3)


def test_upside_down_rows_have_a_roll_of_180_degrees() -> None:
    roll = np.where(np.arange(30) < 5, 180.0, 0.0)
    pose = estimate_pose(project(np.zeros(30), roll), FACE)
    np.testing.assert_allclose(abs(pose.roll), roll, atol=1e-6)


def test_schema_without_pairs_has_roll_relative_to_most_rows_and_no_yaw() -> None:
    plain = LandmarkSchema("plain", FACE.names)
    roll = np.linspace(-30, 30, 41)
    pose = estimate_pose(project(np.zeros(41), roll), plain)
    np.testing.assert_allclose(pose.roll, roll, atol=0.5)
    assert np.isnan(pose.yaw).all()


def test_rows_with_too_few_landmarks_have_no_pose() -> None:
    points = project(np.zeros(30), np.zeros(30))
    points[0, 2:] = math.nan
    points[1] = 50.0  # all coincide
    pose = estimate_pose(points, FACE)
    assert np.isnan(pose.roll[:2]).all()
    assert np.isnan(pose.yaw[:2]).all()
    assert not np.isnan(pose.roll[2:]).any()
    nothing = estimate_pose(np.full((3, 5, 2), math.nan), FACE)
    assert np.isnan(nothing.roll).all()
    assert np.isnan(nothing.yaw).all()


def test_drawn_faces_are_mostly_upright(dataset: LandmarkDataset) -> None:
    pose = estimate_pose(dataset.points, dataset.schema)
    assert abs(np.median(pose.roll)) == pytest.approx(0, abs=5)
    assert np.isfinite(pose.yaw).all()
