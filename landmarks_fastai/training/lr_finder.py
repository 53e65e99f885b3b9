"""The learning rate finder: fastai's `lr_find` and its plot."""

from __future__ import annotations

import tempfile
from pathlib import Path

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.training.callbacks import StopWhenDiverged
from landmarks_fastai.training.distributed import check_single_process
from landmarks_fastai.training.ema import ExponentialMovingAverage
from landmarks_fastai.training.label_bias import EstimateLabelBias
from landmarks_fastai.training.preparation import check_config, prepare_run
from landmarks_fastai.training.run_folder import LR_PLOT_NAME
from landmarks_fastai.training.schedules import ScheduleByStep
from landmarks_fastai.training.weight_transfer import initialize_learner, open_initial_model
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.training_plots import plot_lr_finder

LR_STEPS = 100
"""Number of iterations; fastai's default."""


def find_lr(
    config: TrainConfig, folder: Path, *, cache: Path | None = None, progress: Progress | None = None
) -> tuple[float, Path]:
    """Search for a learning rate with fastai's `lr_find`.

    Parameters
    ----------
    config
        The config; its schedule, its EMA and the estimation of the label bias are not used.
    folder
        Folder of the plot.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.

    Returns
    -------
    tuple[float, Path]
        The learning rate that fastai's "valley" rule suggests, and the path of the plot.

    Raises
    ------
    UserError
        If the config or the data set is invalid.
    """
    check_single_process("--find-lr")
    check_config(config)
    run = prepare_run(config, folder, cache=cache, progress=progress)
    learn = run.learner
    if (model := open_initial_model(config)) is not None:
        initialize_learner(learn, model, run.dataset)
    learn.remove_cbs([ScheduleByStep, ExponentialMovingAverage, EstimateLabelBias])
    learn.add_cb(StopWhenDiverged(LR_STEPS // 3))
    # fastai saves the initial weights to `model_dir` and restores them at the end
    with learn.no_logging(), tempfile.TemporaryDirectory() as learn.model_dir:
        suggestion = float(learn.lr_find(num_it=LR_STEPS, stop_div=False, show_plot=False).valley)
    lrs, losses = (
        [float(value) for value in values] for values in (learn.recorder.lrs, learn.recorder.losses)
    )
    plot = folder / LR_PLOT_NAME
    save_png(plot, plot_lr_finder(lrs, losses, suggestion))
    return suggestion, plot
