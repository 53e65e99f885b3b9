"""Loggers: their files, when they are closed, and packages that are not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from fastai.callback.core import Callback

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.training.loggers import check_no_live_logger, open_loggers
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


class FakeWandb(ModuleType):
    """The functions of the package wandb that are used.

    Attributes
    ----------
    run
        The current run.
    events
        What was called.
    """

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: SimpleNamespace | None = None
        self.events: list[str] = []

    def init(self, *, project: str, dir: Path, config: dict[str, object]) -> None:
        self.events.append(f"init {project}")
        (dir / "wandb").mkdir()
        self.run = SimpleNamespace(dir=str(dir / "wandb"))

    def finish(self) -> None:
        self.events.append("finish")
        self.run = None


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    """Install a fake of the package wandb, and of fastai's callback."""
    fake, callback = FakeWandb(), ModuleType("fastai.callback.wandb")
    callback.WandbCallback = lambda **_: Callback()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setitem(sys.modules, "fastai.callback.wandb", callback)
    return fake


def test_run_of_wandb_is_finished_even_if_training_fails(
    tmp_path: Path, small_config: Callable[..., TrainConfig], wandb: FakeWandb
) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        loggers = open_loggers(small_config(wandb="faces"), tmp_path / folder)
        with pytest.raises(ZeroDivisionError), loggers as callbacks:
            raise_error(callbacks)
    assert wandb.events == ["init faces", "finish", "init faces", "finish"]


def raise_error(callbacks: list[Callback]) -> None:
    assert len(callbacks) == 1
    raise ZeroDivisionError


def test_run_of_wandb_that_the_caller_started_stays_open(
    tmp_path: Path, small_config: Callable[..., TrainConfig], wandb: FakeWandb
) -> None:
    wandb.init(project="mine", dir=tmp_path, config={})
    with open_loggers(small_config(wandb="faces"), tmp_path / "run"):
        pass
    assert wandb.events == ["init mine"]


def test_folder_of_live_logger_is_not_replaced(
    tmp_path: Path, small_config: Callable[..., TrainConfig], wandb: FakeWandb
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    wandb.init(project="mine", dir=tmp_path / "run", config={})
    with pytest.raises(UserError, match=r"run: a run of Weights & Biases writes into it; call wandb\.finish"):
        train_run(small_config(wandb="faces"), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "wandb").is_dir()
    wandb.finish()
    check_no_live_logger(tmp_path / "run")
