"""The analysis: its numbers agree with the report, its notes say what they rest on, its JSON is plain."""

from __future__ import annotations

import json

import numpy as np
import pytest

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.analysis import Analysis, analyze
from landmarks_fastai.evaluation.report import Report, evaluate_dataset
from landmarks_fastai.evaluation.row_groups import ROWS, RowGroups
from landmarks_fastai.evaluation.sigmas import Sigmas
from landmarks_fastai.evaluation.slices import Slice
from landmarks_fastai.landmarks import Landmarks

SIGMAS = Sigmas(np.full(15, 0.05), "a test")
GROUPS = RowGroups(np.arange(60), ROWS)
HALVES = [Slice("half", name, np.arange(60) // 30 == half) for half, name in enumerate(("first", "second"))]


def analyze_noise(dataset: LandmarkDataset, **options: object) -> tuple[Report, Analysis]:
    noise = np.random.default_rng(0).normal(0, np.where(np.arange(60) < 30, 1, 3)[:, None, None], (60, 15, 2))
    predicted = Landmarks.from_points(np.nan_to_num(dataset.points) + noise, dataset.schema)
    report = evaluate_dataset(predicted, dataset)
    arguments = {"groups": GROUPS, "sigmas": SIGMAS, "slices": HALVES, **options}
    return report, analyze(report, predicted, dataset, **arguments)  # type: ignore[arg-type]


def test_metrics_agree_with_report_and_lie_in_their_intervals(dataset: LandmarkDataset) -> None:
    report, analysis = analyze_noise(dataset)
    for name in ("rmse", "nme", "failure_rate_8", "failure_rate_10", "auc_8", "auc_10"):
        assert analysis.metrics[name].value == pytest.approx(getattr(report.overall, name))
    for measured in analysis.metrics.values():
        assert measured.interval.low <= measured.value <= measured.interval.high
    assert analysis.notes == ("95% intervals by a bootstrap over 60 rows", "sigmas of the OKS: a test")


def test_slices_are_scored_on_their_rows(dataset: LandmarkDataset) -> None:
    report, analysis = analyze_noise(dataset)
    first, second = analysis.slices
    assert (first.by, first.value, first.faces, first.groups) == ("half", "first", 30, 30)
    assert first.metrics["nme"].value == pytest.approx(np.nanmean(report.nme[:30]))
    assert second.metrics["nme"].value == pytest.approx(np.nanmean(report.nme[30:]))
    assert first.metrics["nme"].interval.high < second.metrics["nme"].interval.low


def test_analysis_without_sigmas_has_no_oks_and_says_so(dataset: LandmarkDataset) -> None:
    for sigmas in (None, Sigmas(np.full(15, np.nan), "nothing")):
        _, analysis = analyze_noise(dataset, sigmas=sigmas)
        assert "oks" not in analysis.metrics
        assert analysis.to_dict()["oks"] is None
        assert analysis.notes[-1].startswith("no OKS: too few labels")
        with pytest.raises(UserError, match=r"^--coco-ap: too few labels"):
            analyze_noise(dataset, sigmas=sigmas, coco=True)


def test_notes_name_landmarks_without_sigma_and_few_groups(dataset: LandmarkDataset) -> None:
    values = np.full(15, 0.05)
    values[10] = np.nan
    groups = RowGroups(np.arange(60) // 6, "groups of the data")
    _, analysis = analyze_noise(dataset, sigmas=Sigmas(values, "a test"), groups=groups)
    assert analysis.notes == (
        "95% intervals by a bootstrap over 10 groups of the data",
        "intervals of fewer than 20 groups are too narrow to rely on",
        "sigmas of the OKS: a test",
        "the OKS leaves out 1 landmark with too few labels to estimate a sigma, such as 'nose_tip'",
    )


def test_analysis_to_dict_is_json_and_adds_no_key_of_the_report(dataset: LandmarkDataset) -> None:
    report, analysis = analyze_noise(dataset, coco=True, pck_thresholds=(0.07,))
    entries = analysis.to_dict()
    assert json.loads(json.dumps(entries, allow_nan=False)) == entries
    assert not entries.keys() & report.to_dict().keys()
    assert entries["pck"].keys() == {"0.07"}
    assert entries["pck"]["0.07"] == pytest.approx(analysis.metrics["pck_0.07"].value, abs=1e-6)
    intervals = entries["intervals"]
    assert (intervals["groups"], intervals["grouping"], intervals["level"]) == (60, "rows", 0.95)
    low, high = intervals["nme"]
    assert low < report.overall.nme < high
    assert entries["slices"][1]["intervals"]["rmse"][0] < entries["slices"][1]["metrics"]["rmse"]
    assert entries["sigmas"]["values"]["nose_tip"] == 0.05
    assert entries["coco"]["objects"] == 60
