"""Fixtures of the training tests: a small config, and a finished run with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.training.run import train_run


def _small_config(**training: object) -> TrainConfig:
    options: dict[str, object] = {
        "epochs": 4,
        "batch_size": 16,
        "loss": "l1",
        "optimizer": {"name": "adamw", "weight_decay": 0.01},
        "schedule": {"name": "one_cycle", "max_lr": 0.003},
        "ema": 0.9,
        "checkpoint_every": 2,
        "device": "cpu",
        "precision": "fp32",
    }
    return validate_config(
        {
            "seed": 3,
            "model": {"input_size": 32, "head": "soft-argmax"},
            "data": {"source": "synthetic", "count": 60},
            "training": options | training,
        },
        "test",
    )


@pytest.fixture(scope="session")
def small_config() -> Callable[..., TrainConfig]:
    """Return a function that builds the config of a run that takes seconds, with given `training` options."""
    return _small_config


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run of four epochs with the small config."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_run(_small_config(), folder, cache=tmp_path_factory.getbasetemp() / "cache")
    return folder
