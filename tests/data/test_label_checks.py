"""Label checks: they find injected label errors and report few correct labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.data.label_checks import SUSPICIOUS, find_label_issues
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.schema import KAGGLE15

FACES = draw_synthetic_faces(200, seed=5, size=64)
EYES = KAGGLE15.indices(
    [
        f"{side}_eye_{part}"
        for part in ("center", "inner_corner", "outer_corner")
        for side in ("left", "right")
    ]
)
KAGGLE4 = KAGGLE15.indices(["left_eye_center", "right_eye_center", "nose_tip", "mouth_center_bottom_lip"])


def with_points(points):
    return dataclasses.replace(FACES, points=points.astype(np.float32))


def test_find_label_issues_rarely_reports_correct_labels():
    assert len(find_label_issues(FACES)) <= 6  # of 3,000 landmarks


def move_landmark(row, landmark, angle):
    """Return the points with one landmark moved by a quarter of the size of its face."""
    points = FACES.points.copy()
    step = 0.25 * np.ptp(points[row], axis=0).max()
    points[row, landmark] += step * np.array([np.cos(angle), np.sin(angle)])
    return points


def rank(points, row, landmark):
    """Return how many rows are reported before this landmark; None if it is not reported."""
    earlier = set()
    for issue in find_label_issues(with_points(points)):
        if issue.row == FACES.names[row] and KAGGLE15.names[landmark] in issue.reason:
            return len(earlier - {FACES.names[row]})
        earlier.add(issue.row)
    return None


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 199), landmark=st.integers(0, 9), angle=st.floats(0, 6.28))
def test_find_label_issues_moved_eye_or_eyebrow_is_first(row, landmark, angle):
    assert rank(move_landmark(row, landmark, angle), row, landmark) == 0


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 99), landmark=st.sampled_from([*range(11), 13]), angle=st.floats(0, 6.28))
def test_find_label_issues_moved_landmark_among_incomplete_rows_is_near_top(row, landmark, angle):
    points = move_landmark(row, landmark, angle)
    points[100:, np.setdiff1d(np.arange(15), KAGGLE4)] = np.nan  # as in most rows of Kaggle's data
    position = rank(points, row, landmark)
    assert position is not None
    assert position <= 4  # a mouth that is wide open may be more unusual


def test_find_label_issues_most_moved_mouth_landmarks_are_near_top():
    rng = np.random.default_rng(3)  # most, because some moved landmarks look like an open mouth
    cases = [(int(rng.integers(200)), int(rng.choice([11, 12, 14])), rng.uniform(0, 6.28)) for _ in range(40)]
    ranks = [rank(move_landmark(*case), *case[:2]) for case in cases]
    assert sum(position is not None and position <= 2 for position in ranks) >= 32


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 199), pairs=st.sampled_from([EYES[:2], EYES]))
def test_find_label_issues_swapped_eyes_are_first(row, pairs):
    points = FACES.points.copy()
    points[row, list(pairs)] = points[row, [KAGGLE15.flip_index[i] for i in pairs]]
    first = find_label_issues(with_points(points))[0]
    assert first.row == FACES.names[row]
    assert "left_eye_center and right_eye_center" in first.reason
    assert first.reason.endswith("look swapped")


@pytest.mark.parametrize("labeled", [list(range(15)), list(KAGGLE4)])
def test_find_label_issues_mirrored_face_is_reported_as_swapped(labeled):
    points = FACES.points.copy()
    points[11] = points[11][list(KAGGLE15.flip_index)]
    points[11, np.setdiff1d(np.arange(15), labeled)] = np.nan
    first = find_label_issues(with_points(points))[0]
    assert (first.row, first.landmark) == (FACES.names[11], None)
    assert "swapped" in first.reason


def test_find_label_issues_ignores_common_rotation_and_scale():
    angle = np.radians(70)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rotated = (FACES.points - 31.5) @ rotation.T * 0.7 + 31.5
    assert len(find_label_issues(with_points(rotated))) == len(find_label_issues(FACES))


def test_find_label_issues_landmarks_on_same_pixel_are_reported():
    points = FACES.points.copy()
    points[3, 10] = points[3, 13]  # move the nose tip to the upper lip
    issues = [issue for issue in find_label_issues(with_points(points)) if "same pixel" in issue.reason]
    assert [issue.row for issue in issues] == [FACES.names[3]]
    assert "nose_tip and mouth_center_top_lip" in issues[0].reason


def test_find_label_issues_landmark_outside_image_is_reported_in_small_data_set():
    points = FACES.points.copy()
    points[1, 10] = (70, 20)
    few = with_points(points).subset(np.arange(3))
    (issue,) = find_label_issues(few)
    assert (issue.row, issue.landmark) == (FACES.names[1], "nose_tip")
    assert issue.score > SUSPICIOUS
    assert "(70.0, 20.0)" in issue.reason


def test_find_label_issues_accepts_missing_and_degenerate_labels():
    assert find_label_issues(with_points(np.full_like(FACES.points, np.nan))) == []
    without_one = FACES.points.copy()
    without_one[:, 4] = np.nan
    issues = find_label_issues(with_points(without_one))
    assert not any("right_eye_inner_corner" in issue.reason for issue in issues)
    assert find_label_issues(with_points(np.full_like(FACES.points, 20))) == []
    assert find_label_issues(FACES.subset(np.arange(0))) == []
