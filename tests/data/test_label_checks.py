"""Label checks: they find injected label errors, whatever their number, and report few correct labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from landmarks_fastai.data.label_checks import (
    SUSPICIOUS,
    VIEWERS_SIDES,
    check_labels,
    find_label_issues,
    shows_swapped_sides,
)
from landmarks_fastai.data.label_issues import IssueKind
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15

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


@settings(max_examples=12, deadline=None)
@given(row=st.integers(0, 199), landmark=st.integers(0, 9), angle=st.floats(0, 6.28))
def test_find_label_issues_moved_eye_or_eyebrow_is_first(row, landmark, angle):
    assert rank(move_landmark(row, landmark, angle), row, landmark) == 0


@settings(max_examples=12, deadline=None)
@given(row=st.integers(0, 99), landmark=st.sampled_from([*range(11), 13]), angle=st.floats(0, 6.28))
@example(row=7, landmark=10, angle=3.25)  # of 200 moved nose tips the most similar to a turned head
def test_find_label_issues_moved_landmark_among_incomplete_rows_is_near_top(row, landmark, angle):
    points = move_landmark(row, landmark, angle)
    points[100:, np.setdiff1d(np.arange(15), KAGGLE4)] = np.nan  # as in most rows of Kaggle's data
    position = rank(points, row, landmark)
    assert position is not None
    assert position <= 4  # a mouth that is wide open may be more unusual


def test_find_label_issues_most_moved_mouth_landmarks_are_near_top():
    rng = np.random.default_rng(3)  # most, because some moved landmarks look like an open mouth
    cases = [(int(rng.integers(200)), int(rng.choice([11, 12, 14])), rng.uniform(0, 6.28)) for _ in range(20)]
    ranks = [rank(move_landmark(*case), *case[:2]) for case in cases]
    assert sum(position is not None and position <= 2 for position in ranks) >= 16


@settings(max_examples=12, deadline=None)
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
    assert check_labels(FACES.subset(np.arange(0))).notes == ()
    issues = find_label_issues(with_points(np.full_like(FACES.points, 20)))
    assert [issue.row for issue in issues] == list(FACES.names)
    assert {issue.reason for issue in issues} == {"15 landmarks are at exactly one position, (20.0, 20.0)"}


# --- many bad rows -------------------------------------------------------------------------------


BAD, GOOD = np.split(np.random.default_rng(1).permutation(200), [140])
ELEVEN = np.random.default_rng(2).permutation(15)[:11]
CLEAN_ISSUES = {issue.row for issue in find_label_issues(FACES)}


def blamed(checks, rows):
    """Return how many of the rows have an issue that the correct labels have not."""
    return len({issue.row for issue in checks.issues} & ({FACES.names[row] for row in rows} - CLEAN_ISSUES))


def test_check_labels_of_rows_filled_with_zeros_blames_no_other_row():
    points = FACES.points.copy()
    points[np.ix_(BAD, ELEVEN)] = 0
    checks = check_labels(with_points(points))
    assert checks.notes[0] == (
        "11 landmarks at exactly (0, 0) in 140 rows: leave the cell empty where a landmark is not labeled"
    )
    assert blamed(checks, range(200)) == 0


@pytest.mark.parametrize("wrong", ["one position", "random", "five random", "exchanged"])
def test_check_labels_seventy_percent_bad_rows_are_found_and_others_not_blamed(wrong):
    points, rng = FACES.points.copy(), np.random.default_rng(3)
    for row in BAD.tolist():
        if wrong == "one position":
            points[row, ELEVEN] = 40.25
        elif wrong == "random":
            points[row, ELEVEN] = rng.uniform(0, 63, (11, 2))
        elif wrong == "five random":
            points[row, rng.permutation(15)[:5]] = rng.uniform(0, 63, (5, 2))
        else:
            points[row] = points[row][rng.permutation(15)]
    checks = check_labels(with_points(points))
    assert blamed(checks, GOOD) <= 1
    assert blamed(checks, BAD) >= 135


@pytest.mark.parametrize("count", [3, 80, 140])
@pytest.mark.parametrize("reflected", [False, True])
def test_check_labels_finds_rows_with_swapped_sides(count, reflected):
    points = FACES.points.copy()
    rows = BAD[:count]
    if reflected:
        points[rows, :, 0] = 63 - points[rows, :, 0]
    else:
        points[rows] = points[rows][:, list(KAGGLE15.flip_index)]
    checks = check_labels(with_points(points))
    mirrored = {issue.row for issue in checks.issues if issue.kind is IssueKind.MIRRORED}
    assert mirrored == {FACES.names[row] for row in rows}
    (note,) = (note for note in checks.notes if "left and right" in note)
    assert note.startswith(f"{count} rows in which left and right look swapped: synthetic face ")
    assert note.count("synthetic face") == 3


def test_check_labels_with_the_sides_of_the_viewer_has_one_note():
    flipped = FACES.points[:, list(KAGGLE15.flip_index)]
    checks = check_labels(with_points(flipped))
    assert checks.notes[0] == VIEWERS_SIDES
    assert not any(issue.kind is IssueKind.MIRRORED for issue in checks.issues)
    assert blamed(checks, range(200)) <= 2
    assert VIEWERS_SIDES not in check_labels(FACES).notes


def test_shows_swapped_sides_compares_the_eyes_in_any_rotation():
    shape = (FACES.points[0] @ np.array([1, 1j]))[:]
    for angle in (0, 1, 2, 3, 4, 5):
        rotated = shape * np.exp(1j * angle) / 30
        assert not shows_swapped_sides(rotated, KAGGLE15)
        assert shows_swapped_sides(rotated[list(KAGGLE15.flip_index)], KAGGLE15)
    without_eyes = dataclasses.replace(KAGGLE15, eyes=None)
    assert not shows_swapped_sides(rotated[list(KAGGLE15.flip_index)], without_eyes)
    rotated[0] = np.nan
    assert not shows_swapped_sides(rotated[list(KAGGLE15.flip_index)], KAGGLE15)


@pytest.mark.parametrize(("count", "reported"), [(10, True), (60, False)])
def test_check_labels_reflected_rows_without_flip_pairs_are_reported_if_few(count, reported):
    names = tuple("abcdefghij")
    schema = dataclasses.replace(KAGGLE15, name="own", names=names, flip_pairs=(), skeleton=(), eyes=None)
    points = FACES.points[:, [0, 2, 3, 6, 7, 10, 11, 12, 13, 14]].copy()
    points[:count, :, 0] = 63 - points[:count, :, 0]
    checks = check_labels(dataclasses.replace(FACES, points=points, schema=schema))
    notes = [note for note in checks.notes if note.startswith(f"{count} rows with the mirror image")]
    assert len(notes) == reported
    reflected = {issue.row for issue in checks.issues if issue.kind is IssueKind.REFLECTED}
    assert reflected == (set(FACES.names[:count]) if reported else set())


# --- notes ---------------------------------------------------------------------------------------


def test_check_labels_normalized_coordinates_are_an_error():
    with pytest.raises(UserError, match="between 0 and 1, but pixels are needed"):
        check_labels(with_points(FACES.points / 64))


def test_check_labels_notes_name_landmarks_that_no_row_labels():
    points = FACES.points.copy()
    points[:, [4, 10]] = np.nan
    assert check_labels(with_points(points)).notes[0] == (
        "2 landmarks that no row labels, and that cannot be learned: right_eye_inner_corner, nose_tip"
    )


@pytest.mark.parametrize(("copies", "is_noted"), [(10, False), (11, True)])
def test_check_labels_notes_mention_many_duplicates_only(copies, is_noted):
    images = FACES.images[:].copy()
    images[50 : 50 + copies] = images[0]
    notes = check_labels(dataclasses.replace(FACES, images=images)).notes
    line = (
        "11 of 200 images are exact duplicates of an earlier one: remove them, because they count repeatedly"
    )
    assert (line in notes) == is_noted


def test_check_labels_notes_have_one_line_per_kind_with_the_worst_rows_first():
    points = FACES.points.copy()
    points[:6, 10, 0] += np.array([30, 31, 32, 36, 34, 33])
    notes = [note for note in check_labels(with_points(points)).notes if "far from their usual" in note]
    assert len(notes) == 1
    outside = [i for i in range(6) if points[i, 10, 0] > 63.5]
    checks = check_labels(with_points(points))
    assert any(f"{len(outside)} row" in note and "outside the image" in note for note in checks.notes)


def test_check_labels_is_the_same_in_blocks(monkeypatch):
    points = FACES.points.copy()
    points[5, 10] += 20
    points[150:155] = points[150:155][:, list(KAGGLE15.flip_index)]
    points[30:40, 3] = np.nan
    points[60:70, :11] = 0
    expected = check_labels(with_points(points))
    monkeypatch.setattr("landmarks_fastai.data.annotation_checks.BLOCK_POINTS", 100)
    found = check_labels(with_points(points))
    assert found.notes == expected.notes
    assert [(i.row, i.reason) for i in found.issues] == [(i.row, i.reason) for i in expected.issues]
