"""The table about visibility that `evaluate` prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from landmarks_fastai.cli.visibility_tables import print_visibility
from landmarks_fastai.evaluation.visibility import VisibilityErrors, VisibilityReport, score_visibility

REPORT = VisibilityReport(
    visible=VisibilityErrors(30, 1.25, 1.0, 1.5),
    occluded=VisibilityErrors(10, 3.5, 3.0, 4.75),
    prediction=score_visibility([0.9, 0.6, 0.2, 0.7], [True, True, False, False]),
)


def test_print_visibility_shows_errors_and_scores(capsys: pytest.CaptureFixture[str]) -> None:
    print_visibility(REPORT)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "visible 30 1.25 1.50 0.667 1.000 0.833" in lines
    assert "occluded 10 3.50 4.75 1.000 0.500 0.833" in lines
    assert any("60.0% on average, observed 50.0% of 4 landmarks" in line for line in lines)


def test_print_visibility_of_model_without_it_shows_errors(capsys: pytest.CaptureFixture[str]) -> None:
    print_visibility(replace(REPORT, prediction=None))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "occluded 10 3.50 4.75" in lines
    assert "this model does not predict visibility" in lines


def test_print_visibility_of_labels_without_it_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_visibility(None)
    assert capsys.readouterr().out == ""
