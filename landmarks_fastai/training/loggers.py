"""Logging to TensorBoard and Weights & Biases."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fastai.callback.core import Callback

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.training.run_folder import TENSORBOARD


def check_loggers(config: TrainConfig) -> None:
    """Check that the packages of the config's loggers are installed.

    Raises
    ------
    UserError
        If one of them is not installed.
    """
    if config.training.tensorboard:
        _require("tensorboard", "training.tensorboard")
    if config.training.wandb is not None:
        _require("wandb", "training.wandb")


def check_no_live_logger(folder: Path) -> None:
    """Check that no logger of this process still writes into a folder that is about to be replaced.

    Raises
    ------
    UserError
        If the current run of Weights & Biases does.
    """
    run = getattr(sys.modules.get("wandb"), "run", None)
    if run is not None and Path(run.dir).resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{folder}: a run of Weights & Biases writes into it; call wandb.finish() first, or choose"
            " another --out"
        )


@contextmanager
def open_loggers(config: TrainConfig, folder: Path) -> Iterator[list[Callback]]:
    """Yield fastai's callbacks for the config's loggers, which are closed at the end of the block.

    A run of Weights & Biases that the caller has started is used and left open.

    Parameters
    ----------
    config
        `training.tensorboard` and `training.wandb` select the loggers.
    folder
        The run folder, in which they write their local files.
    """
    with ExitStack() as stack:
        callbacks: list[Callback] = []
        if config.training.tensorboard:
            from fastai.callback.tensorboard import TensorBoardCallback

            tensorboard = TensorBoardCallback(folder / TENSORBOARD, trace_model=False, log_preds=False)
            stack.callback(_close_tensorboard, tensorboard)
            callbacks.append(tensorboard)
        if config.training.wandb is not None:
            import wandb
            from fastai.callback.wandb import WandbCallback

            if wandb.run is None:
                wandb.init(project=config.training.wandb, dir=folder, config=config.model_dump())
                stack.callback(wandb.finish)
            callbacks.append(WandbCallback(log=None, log_preds=False, log_model=False))
        yield callbacks


def _close_tensorboard(callback: Callback) -> None:
    """Close the file of the log, which fastai does only at the end of a fit that does not fail."""
    if hasattr(callback, "writer"):
        callback.writer.close()


def _require(package: str, option: str) -> None:
    """Raise UserError if an optional package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{option}: the package {package} is not installed; pip install {package}")
