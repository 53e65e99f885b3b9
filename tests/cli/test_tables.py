"""Printed tables: the report of an evaluation and the summary of a data set."""

from __future__ import annotations

import numpy as np
import pytest

from landmarks_fastai.cli.tables import print_report, print_summary
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.label_issues import LabelIssue
from landmarks_fastai.data.summary import DatasetSummary
from landmarks_fastai.evaluation.report import evaluate_dataset
from landmarks_fastai.landmarks import Landmarks


def test_report_without_confidence_has_scores_and_no_calibration(
    dataset: LandmarkDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted = Landmarks.from_points(np.nan_to_num(dataset.points) + np.array([3, 4]), dataset.schema)
    print_report(evaluate_dataset(predicted, dataset))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "errors in pixels of 96 px images; NME normalized by inter-ocular distance"
    assert [line.split()[:4] for line in lines[2:5]] == [
        ["all", "60", "3.536", "3.500"],
        ["complete", "51", "3.536", "3.500"],
        ["partial", "9", "3.536", "3.500"],
    ]
    assert [line.split() for line in lines if line.startswith("nose_tip")] == [
        ["nose_tip", "60", "5.00", "3.54", "5.00"]
    ]
    assert lines[-1] == "calibration: none, because this model does not estimate confidence"


def test_summary_lists_suspicious_rows_with_two_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    issues = [LabelIssue("row 1", "nose", f"[red]reason[/red] {number}", 9.0) for number in range(4)]
    issues += [LabelIssue(f"row {number}", None, "shifted", 8.0) for number in range(2, 14)]
    summary = DatasetSummary(
        rows=1200,
        size=96,
        channels=3,
        labeled={"nose": 1100},
        complete=1100,
        duplicates=2,
        flip_pairs=(("[left]", "right"), ("l", "r")),
        notes=("1 landmark at [0, 0]",),
        issues=tuple(issues),
    )
    print_summary(summary, "own.csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "own.csv: 1,200 rows of 96 × 96 px, RGB",
        "complete: 1,100 rows   exact duplicates: 2 images",
    ]
    assert lines[3].split() == ["nose", "1,100", "100"]
    assert lines[4:9] == [
        "flip pairs: [left] ↔ right, l ↔ r",
        "1 landmark at [0, 0]",
        "suspicious labels, the most suspicious first:",
        "  row 1: [red]reason[/red] 0; [red]reason[/red] 1; and 2 more",
        "  row 2: shifted",
    ]
    assert lines[-1] == "  and 3 more rows"
    assert len(lines) == 6 + 1 + 10 + 1


def test_summary_shortens_many_flip_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tuple((f"left {number}", f"right {number}") for number in range(60))
    print_summary(DatasetSummary(1, 96, 1, {"a": 1}, 1, 0, pairs, (), ()), "own.csv")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("flip pairs: "))
    assert line.startswith("flip pairs: left 0 ↔ right 0, left 1 ↔ right 1, ")
    assert line.endswith("left 49 ↔ right 49 and 10 more")
    print_summary(DatasetSummary(1, 96, 1, {"a": 1}, 1, 0, (), (), ()), "own.csv")
    assert "flip pairs: none\n" in capsys.readouterr().out


def test_summary_without_issues_says_none(capsys: pytest.CaptureFixture[str]) -> None:
    summary = DatasetSummary(
        rows=2,
        size=96,
        channels=1,
        labeled={"nose": 2},
        complete=2,
        duplicates=0,
        flip_pairs=(),
        notes=(),
        issues=(),
    )
    print_summary(summary, "synthetic")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "synthetic: 2 rows of 96 × 96 px, gray"
    assert lines[-1] == "suspicious labels: none"
