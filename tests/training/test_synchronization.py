"""Augmentation, losses, EMA and label bias never wait for a GPU.

They run on torch's meta device, on which tensors have no values: whatever needs one raises. The few
operations that wait for a GPU but do not need a value are forbidden by name.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from landmarks_fastai.config.options import (
    L1Config,
    LaplaceConfig,
    LinearConfig,
    NoAugment,
    OriginalAugment,
    SimCCConfig,
    SmoothL1Config,
    SoftArgmaxConfig,
    StandardAugment,
    WingConfig,
)
from landmarks_fastai.networks.heads import build_head
from landmarks_fastai.training.augmentation import AugmentBatch
from landmarks_fastai.training.ema import ExponentialMovingAverage
from landmarks_fastai.training.label_bias import EstimateLabelBias
from landmarks_fastai.training.losses import MaskedLoss

FORBIDDEN = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::is_nonzero",
    "aten::equal",
    "aten::linalg_inv_ex",
    "aten::_linalg_check_errors",
    "aten::unique",
)


class ForbidSynchronization(TorchDispatchMode):
    """Raises at operations that wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name.startswith(FORBIDDEN):
            raise AssertionError(f"{name} waits for the GPU")
        if name.startswith("aten::index.Tensor") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            raise AssertionError("a boolean index waits for the GPU")
        return func(*args, **(kwargs or {}))


def on_meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


@pytest.mark.parametrize("values", [lambda x: float(x), lambda x: x[x > 0], lambda x: x.nonzero()])
def test_detector_notices_synchronization(values: Any) -> None:
    with ForbidSynchronization(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        values(on_meta(1))
    with ForbidSynchronization(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        values(torch.ones(1))
    with ForbidSynchronization(), pytest.raises(AssertionError):
        torch.linalg.inv(on_meta(2, 3, 3))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("visibility", [False, True])
@pytest.mark.parametrize(
    "options", [StandardAugment(), StandardAugment(hard=0.5), OriginalAugment(), NoAugment()]
)
def test_augmentation_does_not_wait(options: Any, visibility: bool, channels: int) -> None:
    augment = AugmentBatch(options, 64, (1, 0, 2))
    with ForbidSynchronization():
        images, points = augment.augment(on_meta(4, channels, 96, 96), on_meta(4, 3, 2 + visibility))
    assert images.shape[:2] == (4, channels)
    assert points.shape == (4, 3, 2 + visibility)


@pytest.mark.parametrize("loss", [L1Config(), SmoothL1Config(), WingConfig(), LaplaceConfig()])
@pytest.mark.parametrize("head", [LinearConfig(), SoftArgmaxConfig(), SimCCConfig()])
def test_loss_and_its_gradient_do_not_wait(loss: Any, head: Any) -> None:
    with torch.device("meta"):
        network = build_head(
            {**head.model_dump(), "scales": True, "visibility": True}, [64, 128, 256, 512], 3
        ).train()
    stages = [on_meta(4, width, side, side) for width, side in ((64, 16), (128, 8), (256, 4), (512, 2))]
    with ForbidSynchronization():
        MaskedLoss(loss)(network(stages), on_meta(4, 3, 3)).backward()


def test_average_of_weights_does_not_wait() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).to("meta")
    ema = ExponentialMovingAverage(0.9)
    ema.learn = SimpleNamespace(model=model, training=True, train_iter=1)
    ema.before_fit()
    with ForbidSynchronization():
        ema.after_batch()
        ema.after_batch()


def test_label_bias_does_not_wait() -> None:
    augment = AugmentBatch(StandardAugment(), 64, (1, 0, 2))
    callback = EstimateLabelBias(augment)
    callback.learn = SimpleNamespace(pred=on_meta(4, 3, 3), y=on_meta(4, 3, 2))
    with ForbidSynchronization():
        augment.augment(on_meta(4, 1, 96, 96), on_meta(4, 3, 2))
        callback.after_pred()
        augment.augment(on_meta(4, 1, 96, 96), on_meta(4, 3, 2))


def test_average_of_weights_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    ema = ExponentialMovingAverage(0.5)
    ema.learn = SimpleNamespace(model=model, training=True, train_iter=100)
    ema.before_fit()
    assert ema.average is not None
    expected = {name: value.clone() for name, value in ema.average.items()}
    for step in range(3):
        if step == 1:  # as when a checkpoint is restored
            ema.average = {name: value.clone() for name, value in ema.average.items()}
        model(torch.randn(8, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        ema.after_batch()
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                expected[name].lerp_(value, 0.5)
            else:
                expected[name].copy_(value)
    assert all(torch.equal(ema.average[name], expected[name]) for name in expected)
