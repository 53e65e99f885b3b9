"""Plots: titles, axis labels, and the plotted values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import measure_calibration
from landmarks_fastai.evaluation.report import evaluate_landmarks
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.visualization.plots import (
    plot_calibration,
    plot_ced,
    plot_history,
    plot_landmark_errors,
    plot_lr_finder,
    plot_schedule,
)

NAN = float("nan")


def make_history(epochs: int) -> pd.DataFrame:
    """Return a history whose RMSE is lowest in epoch 30."""
    epoch = np.arange(1, epochs + 1)
    decay = np.exp(-epoch / 5)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 9 * decay + 0.5,
            "valid_loss": 8 * decay + 0.6,
            "rmse": np.abs(epoch - 30.0) + 1.5,
            "nme": 0.2 * decay + 0.04,
            "lr": 1e-3 * decay,
        }
    )


def test_history_plot_marks_best_epoch() -> None:
    figure = plot_history(make_history(40))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss",
        "Validation RMSE: 1.50 px at epoch 30",
        f"Validation NME: {20 * np.exp(-6) + 4:.2f} % at epoch 30",
        "Learning rate",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "RMSE (px)", "NME (%)", "learning rate"]
    assert figure.axes[1].get_yscale() == "log"


def test_history_plot_of_one_epoch_has_all_panels() -> None:
    assert len(plot_history(make_history(1)).axes) == 4


def test_history_plot_leaves_out_missing_columns_and_values() -> None:
    history = make_history(6).drop(columns="lr")
    history["nme"] = NAN
    history.loc[[0, 2, 4], ["valid_loss", "rmse"]] = NAN  # validation in every other epoch
    loss, rmse = plot_history(history).axes
    assert [len(line.get_xdata()) for line in loss.lines] == [6, 3]
    assert rmse.get_title(loc="left").endswith("at epoch 6")


def test_history_plot_without_epochs_is_refused() -> None:
    with pytest.raises(UserError, match="no epoch"):
        plot_history(make_history(0))


def test_ced_plot_has_step_at_each_nme() -> None:
    axes = plot_ced({"model": [0.02, 0.06, 0.5, NAN]}, threshold=0.08).axes[0]
    line = axes.lines[-1]
    np.testing.assert_allclose(line.get_xdata(), [0, 2, 6, 10])
    np.testing.assert_allclose(line.get_ydata(), [0, 100 / 3, 200 / 3, 200 / 3])
    # (0.75 + 0.25 + 0) / 3, and 1 of 3
    assert line.get_label() == "model: AUC 33.3 %, failures 33.3 %"
    assert axes.get_xlabel() == "NME (% of the inter-ocular distance)"


def test_ced_plot_without_models_is_refused() -> None:
    with pytest.raises(UserError, match="no NME"):
        plot_ced({})


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


def test_schedule_plot_keeps_peak_of_long_schedule() -> None:
    lrs = np.full(300_000, 1e-4)
    lrs[123_457] = 0.012
    rate, momentum = plot_schedule(lrs, momenta=np.linspace(0.95, 0.85, 300_000)).axes
    curve = rate.lines[0]
    assert len(curve.get_xdata()) < 10_000
    assert curve.get_xdata()[np.argmax(curve.get_ydata())] == 123_457
    assert momentum.get_ylabel() == "momentum"


def test_schedule_plot_keeps_all_steps_of_short_schedule() -> None:
    assert len(plot_schedule([0.1, 0.2, 0.1]).axes[0].lines[0].get_xdata()) == 3


def test_schedule_plot_without_steps_is_refused() -> None:
    with pytest.raises(UserError, match="no step"):
        plot_schedule([])


def test_lr_finder_plot_marks_suggestion_and_cuts_divergence() -> None:
    lrs = np.geomspace(1e-6, 1, 60)
    losses = np.where(lrs < 1e-2, 1 - 0.5 * (lrs > 1e-4), 100 * lrs)
    losses[-1] = NAN
    axes = plot_lr_finder(lrs, losses, suggestion=2e-4).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] < 2
    assert axes.get_title(loc="left") == "Learning rate finder: 0.0002 suggested"


def test_lr_finder_plot_without_finite_loss_is_refused() -> None:
    with pytest.raises(UserError, match="lower learning rate"):
        plot_lr_finder([1e-3], [NAN])


def test_plots_import_matplotlib_when_used_and_never_pyplot() -> None:
    program = (
        "import sys\n"
        "from landmarks_fastai.visualization import plots\n"
        "heavy = {'matplotlib', 'PIL', 'torch', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, f'imported before use: {heavy}'\n"
        "plots.plot_schedule([1e-3, 1e-2]).savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
