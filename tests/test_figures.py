"""What the figures say: titles, units, and every value where it belongs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landmarks_fastai.calibration import calibrate
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import evaluate_points
from landmarks_fastai.figures import (
    calibration_figure,
    ced_figure,
    history_figure,
    lr_find_figure,
    point_error_figure,
    schedule_figure,
)
from landmarks_fastai.schema import KAGGLE15

NAN = float("nan")


def history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    fall = np.exp(-epoch / 5)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 9 * fall + 0.5,
            "valid_loss": 8 * fall + 0.6,
            "rmse": np.abs(epoch - 30.0) + 1.5,
            "nme": 0.2 * fall + 0.04,
            "lr": 1e-3 * fall,
        }
    )


def test_history_figure_marks_the_best_epoch():
    figure = history_figure(history(40))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss",
        "Validation RMSE: 1.50 px at epoch 30",
        f"Validation NME: {20 * np.exp(-6) + 4:.2f} % at epoch 30",
        "Learning rate",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "RMSE (px)", "NME (%)", "learning rate"]
    assert figure.axes[1].get_yscale() == "log"


def test_history_figure_of_a_short_or_partial_history():
    assert len(history_figure(history(1)).axes) == 4
    some = history(6).drop(columns="lr")
    some["nme"] = NAN
    some.loc[[0, 2, 4], ["valid_loss", "rmse"]] = NAN  # validated every other epoch
    loss, rmse = history_figure(some).axes
    assert [len(line.get_xdata()) for line in loss.lines] == [6, 3]
    assert rmse.get_title(loc="left").endswith("at epoch 6")
    with pytest.raises(UserError, match="no epoch"):
        history_figure(history(0))


def test_ced_figure_draws_the_steps():
    figure = ced_figure({"one": [0.02, 0.06, 0.5, NAN]}, threshold=0.08)
    line = figure.axes[0].lines[-1]
    np.testing.assert_allclose(line.get_xdata(), [0, 2, 6, 10])
    np.testing.assert_allclose(line.get_ydata(), [0, 100 / 3, 200 / 3, 200 / 3])
    # (0.75 + 0.25 + 0) / 3 and 1 of 3
    assert line.get_label() == "one: AUC 33.3 %, failures 33.3 %"
    with pytest.raises(UserError, match="no NME"):
        ced_figure({})


def test_point_error_figure_has_a_bar_a_landmark():
    rng = np.random.default_rng(0)
    true = rng.uniform(10, 86, (9, 15, 2))
    true[:, 3] = NAN
    report = evaluate_points(
        np.nan_to_num(true) + rng.normal(0, 1, true.shape), true, KAGGLE15, np.zeros(9, bool), 96
    )
    axes = point_error_figure(report.points).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, [np.nan_to_num(point.mean_distance) for point in report.points])
    assert [label.get_text() for label in axes.get_yticklabels()][3] == "left_eye_outer_corner (0)"
    with pytest.raises(UserError, match="no point"):
        point_error_figure(())


def test_calibration_figure_has_a_dot_a_bin():
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 96, (40, 15, 2))
    scales = rng.uniform(1, 3, (40, 15))
    calibration = calibrate(true + rng.laplace(size=true.shape) * 2 * scales[..., None], true, scales, 96)
    assert calibration is not None
    shares, errors = calibration_figure(calibration).axes
    for axes, claimed, found, factor in (
        (shares, "claimed", "true", 100),
        (errors, "claimed_error", "true_error", 1),
    ):
        diagonal, dots = axes.lines
        assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
        np.testing.assert_allclose(dots.get_xdata(), [factor * getattr(b, claimed) for b in calibration.bins])
        np.testing.assert_allclose(dots.get_ydata(), [factor * getattr(b, found) for b in calibration.bins])
        assert axes.get_xlim() == axes.get_ylim()  # else the diagonal would not be one
        assert axes.get_xlim()[1] >= max(*dots.get_xdata(), *dots.get_ydata())


def test_schedule_figure_keeps_the_peaks_of_a_long_schedule():
    lrs = np.full(300_000, 1e-4)
    lrs[123_457] = 0.012
    rate, momentum = schedule_figure(lrs, momenta=np.linspace(0.95, 0.85, 300_000)).axes
    drawn = rate.lines[0]
    assert len(drawn.get_xdata()) < 10_000
    assert drawn.get_xdata()[np.argmax(drawn.get_ydata())] == 123_457
    assert momentum.get_ylabel() == "momentum"
    assert len(schedule_figure([0.1, 0.2, 0.1]).axes[0].lines[0].get_xdata()) == 3
    with pytest.raises(UserError, match="no step"):
        schedule_figure([])


def test_lr_find_figure_shows_the_suggestion_and_cuts_the_divergence():
    lrs = np.geomspace(1e-6, 1, 60)
    losses = np.where(lrs < 1e-2, 1 - 0.5 * (lrs > 1e-4), 100 * lrs)
    losses[-1] = NAN
    axes = lr_find_figure(lrs, losses, suggestion=2e-4).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] < 2
    assert "0.0002 suggested" in axes.get_title(loc="left")
    with pytest.raises(UserError, match="lower learning rate"):
        lr_find_figure([1e-3], [NAN])


def test_matplotlib_comes_late_and_pyplot_never():
    program = (
        "import sys, numpy as np\n"
        "from landmarks_fastai import figures\n"
        "assert not {'matplotlib', 'PIL', 'torch', 'pandas'} & set(sys.modules), 'not late'\n"
        "figures.schedule_figure([1e-3, 1e-2]).savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
