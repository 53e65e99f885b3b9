"""Summaries of data sets: counts, label issues, and the printed table."""

from __future__ import annotations

import dataclasses

import numpy as np

from landmarks_fastai.cli.tables import print_summary
from landmarks_fastai.data.label_checks import find_label_issues
from landmarks_fastai.data.summary import summarize
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.schemas import KAGGLE15

FACES = draw_synthetic_faces(200, seed=5, size=64)


def test_summarize_counts_rows_labels_and_duplicates():
    points, images = FACES.points.copy(), FACES.images[:].copy()
    points[:5, 3], points[4:7, 0] = np.nan, np.nan
    images[7:9] = images[6]
    summary = summarize(dataclasses.replace(FACES, points=points, images=images))
    assert (summary.rows, summary.size, summary.channels) == (200, 64, 1)
    assert summary.labeled["left_eye_outer_corner"] == 195
    assert summary.labeled["left_eye_center"] == 197
    assert list(summary.labeled) == list(KAGGLE15.names)
    assert summary.complete == 193
    assert summary.duplicates == 2


def test_summarize_lists_label_issues():
    points = FACES.points.copy()
    points[:3, 10] += 30
    dataset = dataclasses.replace(FACES, points=points)
    assert summarize(dataset).issues == tuple(find_label_issues(dataset))
    assert len(summarize(dataset).issues) >= 3


def test_summarize_lists_flip_pairs_and_each_note_once():
    points = FACES.points.copy()
    points[:20, 10] = 0
    zeros = "1 landmark at exactly (0, 0) in 20 rows: leave the cell empty where a landmark is not labeled"
    dataset = dataclasses.replace(FACES, points=points, notes=("read", zeros))
    summary = summarize(dataset)
    assert summary.flip_pairs == KAGGLE15.flip_pairs
    assert summary.notes[:2] == ("read", zeros)
    assert zeros not in summary.notes[2:]
    assert summarize(dataclasses.replace(dataset, notes=())).notes[0] == zeros


def test_summarize_accepts_empty_and_degenerate_data_sets():
    without_one = FACES.points.copy()
    without_one[:, 4] = np.nan
    summary = summarize(dataclasses.replace(FACES, points=without_one))
    assert summary.labeled["right_eye_inner_corner"] == 0
    assert summarize(dataclasses.replace(FACES, points=np.full_like(FACES.points, 20))).rows == 200
    assert summarize(FACES.subset(np.arange(0))).rows == 0


def test_print_summary_prints_counts_and_label_issues(capsys):
    points = FACES.points.copy()
    points[:12, 10] += 30
    points[20, 3] = np.nan
    summary = summarize(dataclasses.replace(FACES, points=points))
    print_summary(summary, "custom [data] faces")
    printed = capsys.readouterr().out
    assert "custom [data] faces: 200 rows of 64 × 64 px, gray" in printed
    assert "complete: 199 rows   exact duplicates: 0 images" in printed
    line = next(line for line in printed.splitlines() if "left_eye_outer_corner" in line and "199" in line)
    assert line.replace("│", " ").split() == ["left_eye_outer_corner", "199", "1"]
    rows = list(dict.fromkeys(issue.row for issue in summary.issues))
    assert f"  {rows[9]}: " in printed
    assert f"  {rows[10]}: " not in printed
    assert f"and {len(rows) - 10} more rows" in printed
    print_summary(dataclasses.replace(summary, issues=()), "x")
    assert "suspicious labels: none" in capsys.readouterr().out
