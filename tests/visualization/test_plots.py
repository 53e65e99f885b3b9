"""Plots: titles, axis labels, and the plotted values."""

from __future__ import annotations

import numpy as np
import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import measure_calibration
from landmarks_fastai.evaluation.report import evaluate_landmarks
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.visualization.plots import plot_calibration, plot_ced, plot_landmark_errors

NAN = float("nan")


def test_ced_plot_has_step_at_each_nme() -> None:
    axes = plot_ced({"model": [0.02, 0.06, 0.5, NAN]}, "box size", threshold=0.08).axes[0]
    line = axes.lines[-1]
    np.testing.assert_allclose(line.get_xdata(), [0, 2, 6, 10])
    np.testing.assert_allclose(line.get_ydata(), [0, 100 / 3, 200 / 3, 200 / 3])
    # (0.75 + 0.25 + 0) / 3, and 1 of 3
    assert line.get_label() == "model: AUC 33.3 %, failures 33.3 %"
    assert axes.get_xlabel() == "NME (% of the box size)"


def test_ced_plot_without_models_is_refused() -> None:
    with pytest.raises(UserError, match="no NME"):
        plot_ced({}, "box size")


def test_landmark_error_plot_has_bar_for_each_landmark() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(10, 86, (9, 15, 2))
    true[:, 3] = NAN
    report = evaluate_landmarks(
        np.nan_to_num(true) + rng.normal(0, 1, true.shape), true, KAGGLE15, np.zeros(9, bool), 96
    )
    axes = plot_landmark_errors(report.landmarks).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, [np.nan_to_num(scores.mean_distance) for scores in report.landmarks])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [scores.p95 for scores in report.landmarks])
    assert [label.get_text() for label in axes.get_yticklabels()][3] == "left_eye_outer_corner (0)"


def test_landmark_error_plot_without_landmarks_is_refused() -> None:
    with pytest.raises(UserError, match="no landmark"):
        plot_landmark_errors(())


def test_calibration_plot_has_dot_for_each_bin() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 96, (40, 15, 2))
    scales = rng.uniform(1, 3, (40, 15))
    calibration = measure_calibration(
        true + rng.laplace(size=true.shape) * 2 * scales[..., None], true, scales, 96
    )
    assert calibration is not None
    confidence, errors = plot_calibration(calibration).axes
    assert confidence.get_xlabel() == "confidence: within 2.4 px (%)"
    assert confidence.get_ylabel() == "observed: within 2.4 px of the label (%)"
    for axes, predicted, observed, factor in (
        (confidence, "mean_confidence", "observed", 100),
        (errors, "expected_error", "observed_error", 1),
    ):
        diagonal, dots = axes.lines
        assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
        bins = calibration.bins
        np.testing.assert_allclose(dots.get_xdata(), [factor * getattr(one, predicted) for one in bins])
        np.testing.assert_allclose(dots.get_ydata(), [factor * getattr(one, observed) for one in bins])
        assert axes.get_xlim() == axes.get_ylim()  # otherwise the diagonal would not be one
        assert axes.get_xlim()[1] >= max(*dots.get_xdata(), *dots.get_ydata())
