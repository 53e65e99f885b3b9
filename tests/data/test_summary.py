"""What is counted is right, planted mistakes are found, and sound faces are left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.data.summary import SUSPICIOUS, summarise
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.schema import KAGGLE15
from landmarks_fastai.terminal import print_summary

FACES = draw_faces(200, seed=5, size=64)
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


def test_counts():
    points, images = FACES.points.copy(), FACES.images.copy()
    points[:5, 3], points[4:7, 0] = np.nan, np.nan
    images[7:9] = images[6]
    summary = summarise(dataclasses.replace(FACES, points=points, images=images))
    assert (summary.rows, summary.size, summary.channels) == (200, 64, 1)
    assert summary.labelled["left_eye_outer_corner"] == 195
    assert summary.labelled["left_eye_center"] == 197
    assert list(summary.labelled) == list(KAGGLE15.points)
    assert summary.complete == 193
    assert summary.duplicates == 2


def test_sound_faces_are_left_alone():
    assert len(summarise(FACES).suspicions) <= 6  # of 3,000 points


def moved(row, point, angle):
    """Move a point by a quarter of its face."""
    points = FACES.points.copy()
    step = 0.25 * np.ptp(points[row], axis=0).max()
    points[row, point] += step * np.array([np.cos(angle), np.sin(angle)])
    return points


def rank(points, row, point):
    """Count the rows that are told before this point's; None if it isn't told."""
    before = set()
    for suspicion in summarise(with_points(points)).suspicions:
        if suspicion.row == FACES.names[row] and KAGGLE15.points[point] in suspicion.reason:
            return len(before - {FACES.names[row]})
        before.add(suspicion.row)
    return None


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 199), point=st.integers(0, 9), angle=st.floats(0, 6.28))
def test_an_eye_or_brow_moved_by_a_quarter_of_the_face_is_found_first(row, point, angle):
    assert rank(moved(row, point, angle), row, point) == 0


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 99), point=st.sampled_from([*range(11), 13]), angle=st.floats(0, 6.28))
def test_found_among_rows_of_four_points(row, point, angle):
    points = moved(row, point, angle)
    points[100:, np.setdiff1d(np.arange(15), KAGGLE4)] = np.nan  # as in most of Kaggle's rows
    found = rank(points, row, point)
    assert found is not None
    assert found <= 4  # a sound mouth that is open wide may be odder


def test_most_moved_mouths_are_found():
    rng = np.random.default_rng(3)  # not all: some moves only open the mouth wide
    cases = [(int(rng.integers(200)), int(rng.choice([11, 12, 14])), rng.uniform(0, 6.28)) for _ in range(40)]
    found = [rank(moved(*case), *case[:2]) for case in cases]
    assert sum(place is not None and place <= 2 for place in found) >= 32


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, 199), pairs=st.sampled_from([EYES[:2], EYES]))
def test_swapped_eyes_are_found_first(row, pairs):
    points = FACES.points.copy()
    points[row, list(pairs)] = points[row, [KAGGLE15.flip_index[i] for i in pairs]]
    first = summarise(with_points(points)).suspicions[0]
    assert first.row == FACES.names[row]
    assert "left_eye_center and right_eye_center" in first.reason
    assert first.reason.endswith("look swapped")


@pytest.mark.parametrize("labelled", [list(range(15)), list(KAGGLE4)])
def test_a_face_whose_left_and_right_are_swapped_throughout(labelled):
    points = FACES.points.copy()
    points[11] = points[11][list(KAGGLE15.flip_index)]
    points[11, np.setdiff1d(np.arange(15), labelled)] = np.nan
    first = summarise(with_points(points)).suspicions[0]
    assert (first.row, first.point) == (FACES.names[11], None)
    assert "swapped" in first.reason


def test_all_rows_turned_or_scaled_alike_stay_sound():
    angle = np.radians(70)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = (FACES.points - 31.5) @ turn.T * 0.7 + 31.5
    assert len(summarise(with_points(turned)).suspicions) == len(summarise(FACES).suspicions)


def test_two_points_on_one_pixel():
    points = FACES.points.copy()
    points[3, 10] = points[3, 13]  # the nose tip on the upper lip
    found = [s for s in summarise(with_points(points)).suspicions if "same pixel" in s.reason]
    assert [s.row for s in found] == [FACES.names[3]]
    assert "nose_tip and mouth_center_top_lip" in found[0].reason


def test_a_point_outside_is_told_even_of_few_rows():
    points = FACES.points.copy()
    points[1, 10] = (70, 20)
    few = with_points(points).rows(np.arange(3))
    (only,) = summarise(few).suspicions
    assert (only.row, only.point) == (FACES.names[1], "nose_tip")
    assert only.score > SUSPICIOUS
    assert "(70.0, 20.0)" in only.reason


def test_odd_tables_are_no_trouble():
    nothing = with_points(np.full_like(FACES.points, np.nan))
    assert summarise(nothing).suspicions == ()
    never = FACES.points.copy()
    never[:, 4] = np.nan
    assert summarise(with_points(never)).labelled["right_eye_inner_corner"] == 0
    assert summarise(with_points(np.full_like(FACES.points, 20))).rows == 200
    assert summarise(FACES.rows(np.arange(0))).rows == 0


def test_printed(capsys):
    points = FACES.points.copy()
    points[:12, 10] += 30
    points[20, 3] = np.nan
    summary = summarise(with_points(points))
    print_summary(summary, "my [own] faces")
    printed = capsys.readouterr().out
    assert "my [own] faces: 200 rows of 64 × 64 px, gray" in printed
    assert "complete: 199 rows   exact duplicates: 0 images" in printed
    line = next(line for line in printed.splitlines() if "left_eye_outer_corner" in line and "199" in line)
    assert line.replace("│", " ").split() == ["left_eye_outer_corner", "199", "1"]
    rows = list(dict.fromkeys(s.row for s in summary.suspicions))
    assert f"  {rows[9]}: " in printed
    assert f"  {rows[10]}: " not in printed
    assert f"and {len(rows) - 10} more rows" in printed
    print_summary(dataclasses.replace(summary, suspicions=()), "x")
    assert "suspicious labels: none" in capsys.readouterr().out
