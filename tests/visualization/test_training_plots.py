"""Plots of a training: the kept epoch is marked, and long curves keep their extremes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.visualization.training_plots import plot_history, plot_lr_finder, plot_schedule

NAN = float("nan")


def make_history(epochs: int, **columns: object) -> pd.DataFrame:
    """Return a history with the lowest validation loss in epoch 20 and the lowest RMSE in epoch 30."""
    epoch = np.arange(1, epochs + 1)
    decay = np.exp(-epoch / 5)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 9 * decay + 0.5,
            "valid_loss": np.abs(epoch - 20.0) / 10 + 0.6,
            "rmse": np.abs(epoch - 30.0) + 1.5,
            "nme": 0.2 * decay + 0.04,
            "lr": 1e-3 * decay,
            **columns,
        }
    )


def test_history_plot_marks_the_epoch_with_the_lowest_validation_loss() -> None:
    figure = plot_history(make_history(40))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss",
        "Validation RMSE: 11.50 px at epoch 20",
        f"Validation NME: {20 * np.exp(-4) + 4:.2f} % at epoch 20",
        "Learning rate",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "RMSE (px)", "NME (%)", "learning rate"]
    assert figure.axes[1].get_yscale() == "log"
    loss, rmse, nme, lr = figure.axes
    for axes, value in ((loss, 0.6), (rmse, 11.5), (nme, 20 * np.exp(-4) + 4)):
        mark = axes.lines[-1]
        assert mark.get_label() == "epoch 20, kept"
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (20, pytest.approx(value))
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "training",
        "validation",
        "epoch 20, kept",
    ]
    assert len(lr.lines) == 1


def test_history_plot_marks_the_first_of_two_epochs_with_the_same_loss() -> None:
    history = make_history(6, valid_loss=[5.0, 3.0, 4.0, 3.0, 6.0, 7.0])
    assert plot_history(history).axes[1].get_title(loc="left").endswith("at epoch 2")


def test_history_plot_shows_further_terms_of_the_training_loss_apart() -> None:
    figure = plot_history(make_history(8, head_loss=np.arange(8.0) + 1))
    assert len(figure.axes) == 5
    panel = figure.axes[1]
    assert panel.get_title(loc="left") == "Further terms of the training loss"
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), np.arange(8) + 1)


def test_history_plot_of_one_epoch_has_all_panels() -> None:
    assert len(plot_history(make_history(1)).axes) == 4


def test_history_plot_leaves_out_missing_columns_and_values() -> None:
    history = make_history(6).drop(columns="lr")
    history["nme"] = NAN
    history.loc[[0, 2, 4], ["valid_loss", "rmse"]] = NAN  # validation in every other epoch
    loss, rmse = plot_history(history).axes
    assert [len(line.get_xdata()) for line in loss.lines] == [6, 3, 1]
    assert rmse.get_title(loc="left").endswith("at epoch 6")


def test_history_plot_without_epochs_is_refused() -> None:
    with pytest.raises(UserError, match="no epoch"):
        plot_history(make_history(0))


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
        "from landmarks_fastai.visualization import plots, training_plots as training\n"
        "heavy = {'matplotlib', 'PIL', 'torch', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, f'imported before use: {heavy}'\n"
        "training.plot_schedule([1e-3, 1e-2]).savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
