"""Autocast: the forward pass runs in it, nothing else does, also when the forward pass raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from torch import Tensor, nn

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.training.learner import build_learner
from landmarks_fastai.training.precision import Autocast


class FailError(RuntimeError):
    """Raised by the tests."""


class Recording(Callback):
    """Record whether autocast is enabled after the forward pass and in the loss."""

    order = 5  # before Autocast

    def __init__(self) -> None:
        self.states: list[bool] = []

    def before_batch(self) -> None:
        self.states.append(torch.is_autocast_enabled("cpu"))

    def after_pred(self) -> None:
        self.states.append(torch.is_autocast_enabled("cpu"))

    def after_loss(self) -> None:
        self.states.append(torch.is_autocast_enabled("cpu"))


@pytest.fixture
def learn(dataset: LandmarkDataset, small_config: Callable[..., TrainConfig], tmp_path: Path) -> Learner:
    """Return a learner that runs in bfloat16 on the CPU."""
    config = small_config(precision="bf16")
    learn = build_learner(config, dataset, split_dataset(dataset, "random", 0.25, 0), tmp_path)
    assert any(isinstance(callback, Autocast) for callback in learn.cbs)
    return learn


def record_forward(module: nn.Module, fail_at: int | None = None) -> list[bool]:
    """Record whether autocast is enabled in each forward pass of a module; raise in one of them."""
    states: list[bool] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        states.append(torch.is_autocast_enabled("cpu"))
        if len(states) - 1 == fail_at:
            raise FailError("stopped")

    module[0].register_forward_pre_hook(hook)
    return states


def test_only_the_forward_pass_runs_in_autocast(learn: Learner) -> None:
    forward, recording = record_forward(learn.model), Recording()
    with learn.no_logging():
        learn.fit(1, cbs=[recording])
    assert forward
    assert all(forward)
    assert recording.states
    assert not any(recording.states)
    assert "forward" not in vars(learn.model)  # an export would contain it


@pytest.mark.parametrize("fail_at", [0, 1, 2], ids=["first batch", "second batch", "validation"])
def test_autocast_is_left_when_the_forward_pass_raises(learn: Learner, fail_at: int) -> None:
    record_forward(learn.model, fail_at)
    with learn.no_logging(), pytest.raises(FailError):
        learn.fit(1)
    assert not torch.is_autocast_enabled("cpu")
    assert "forward" not in vars(learn.model)
    product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.float32


def test_autocast_is_left_when_predictions_raise(learn: Learner) -> None:
    record_forward(learn.model, 0)
    with learn.no_bar(), learn.no_logging(), pytest.raises(FailError):
        learn.get_preds(ds_idx=1)
    assert not torch.is_autocast_enabled("cpu")


def test_fit_after_a_failed_batch_runs_in_autocast_again(learn: Learner) -> None:
    class FailBeforeForward(Callback):
        order = 20  # after Autocast

        def before_batch(self) -> None:
            raise FailError("stopped")

    with learn.no_logging(), pytest.raises(FailError):
        learn.fit(1, cbs=[FailBeforeForward()])
    assert not torch.is_autocast_enabled("cpu")
    learn.remove_cbs([FailBeforeForward])
    forward = record_forward(learn.model)
    with learn.no_logging():
        learn.fit(1)
    assert len(forward) == 3
    assert all(forward)
    assert "forward" not in vars(learn.model)
