"""Logging to TensorBoard and Weights & Biases."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastai.callback.core import Callback

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError


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


def logging_callbacks(config: TrainConfig, folder: Path) -> list[Callback]:
    """Return fastai's callbacks for the config's loggers.

    Parameters
    ----------
    config
        `training.tensorboard` and `training.wandb` select the loggers.
    folder
        The run folder, in which they write their local files.
    """
    callbacks: list[Callback] = []
    if config.training.tensorboard:
        from fastai.callback.tensorboard import TensorBoardCallback

        callbacks.append(TensorBoardCallback(folder / "tensorboard", trace_model=False, log_preds=False))
    if config.training.wandb is not None:
        import wandb
        from fastai.callback.wandb import WandbCallback

        wandb.init(project=config.training.wandb, dir=folder, config=config.model_dump())
        callbacks.append(WandbCallback(log=None, log_preds=False, log_model=False))
    return callbacks


def _require(package: str, option: str) -> None:
    """Raise UserError if an optional package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{option}: the package {package} is not installed; pip install {package}")
