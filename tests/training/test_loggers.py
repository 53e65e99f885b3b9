"""Loggers: the files of TensorBoard, and packages that are not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.training.run import train_run


def test_tensorboard_writes_log_into_run_folder(
    tmp_path: Path, small_config: Callable[..., TrainConfig]
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    train_run(small_config(epochs=1, tensorboard=True), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_logger_that_is_not_installed_raises(
    tmp_path: Path, small_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^training\.wandb: the package wandb is not installed; pip install"):
        train_run(small_config(wandb="project"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
