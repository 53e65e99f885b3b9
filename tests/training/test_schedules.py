"""Schedules: equal to those of torch and fastai at every iteration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from fastai.callback.schedule import combined_cos

from landmarks_fastai.config.options import CyclicConfig, FlatCosConfig, OneCycleConfig, ScheduleConfig
from landmarks_fastai.training.schedules import Hyperparameters, ScheduleByStep, cyclic, flat_cos, one_cycle


@pytest.mark.parametrize(
    ("mode", "gamma"),
    [("triangular", None), ("triangular2", None), ("exp_range", 0.99995), ("exp_range", None)],
)
@pytest.mark.parametrize(("up", "down"), [(2000, None), (2400, 700), (5, 5)])
def test_cyclic_equals_torch_at_every_step(mode: str, gamma: float | None, up: int, down: int | None) -> None:
    options = CyclicConfig(mode=mode, gamma=gamma, step_up=up, step_down=down)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.0001, 0.012, up, down, mode=mode, gamma=gamma or 1.0, cycle_momentum=False
    )
    optimizer.step()  # torch warns if a scheduler steps before the optimizer
    for step in range(10_000):
        assert abs(cyclic(step, 0, options).lr - scheduler.get_last_lr()[0]) < 1e-12
        scheduler.step()


def test_one_cycle_equals_fastai_at_every_step() -> None:
    from fastai.basics import SGD, Learner
    from fastai.callback.core import Callback
    from fastai.test_utils import synth_dbunch

    class RecordHyperparameters(Callback):
        order = 65  # right after ParamScheduler

        def before_batch(self) -> None:
            if self.training:
                recorded.append((self.opt.hypers[-1]["lr"], self.opt.hypers[-1]["mom"]))

    recorded: list[tuple[float, float]] = []
    model = torch.nn.Linear(1, 1)
    dls = synth_dbunch(bs=16, n_train=5, n_valid=1, cuda=False)
    learn = Learner(dls, model, loss_func=torch.nn.functional.mse_loss, opt_func=SGD)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(3, 0.01, cbs=RecordHyperparameters())
    options = OneCycleConfig(max_lr=0.01)
    computed = [one_cycle(step, len(recorded), options) for step in range(len(recorded))]
    assert len(recorded) == 15
    assert [h.lr for h in computed] == pytest.approx([lr for lr, _ in recorded], abs=1e-12)
    assert [h.mom for h in computed] == pytest.approx([mom for _, mom in recorded], abs=1e-12)


def test_flat_cos_equals_fastai_and_ends_near_zero() -> None:
    options = FlatCosConfig(max_lr=0.01, pct_start=0.75)
    rates = [flat_cos(step, 100, options).lr for step in range(100)]
    expected = combined_cos(0.75, 0.01, 0.01, 0.01 / 1e5)
    assert rates == pytest.approx([expected(step / 100) for step in range(100)], abs=1e-15)
    assert rates[74] == pytest.approx(0.01)
    assert rates[99] < 1e-4


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        (CyclicConfig(step_up=4), cyclic),
        (OneCycleConfig(max_lr=0.01), one_cycle),
        (FlatCosConfig(max_lr=0.01), flat_cos),
    ],
)
def test_callback_sets_hyperparameters_of_every_training_batch(
    options: ScheduleConfig, schedule: Callable[..., Hyperparameters]
) -> None:
    from fastai.basics import SGD, Learner
    from fastai.callback.core import Callback
    from fastai.test_utils import synth_dbunch

    class RecordHyperparameters(Callback):
        order = ScheduleByStep.order + 1

        def before_batch(self) -> None:
            hypers = self.opt.hypers[-1]
            (trained if self.training else validated).append((hypers["lr"], hypers["mom"]))

    trained: list[tuple[float, float]] = []
    validated: list[tuple[float, float]] = []
    dls = synth_dbunch(bs=16, n_train=5, n_valid=2, cuda=False)
    optimizer = partial(SGD, mom=0.8)
    loss = torch.nn.functional.mse_loss
    learn = Learner(dls, torch.nn.Linear(1, 1), loss_func=loss, opt_func=optimizer)
    with learn.no_bar(), learn.no_logging():
        learn.fit(3, 1.0, cbs=[ScheduleByStep(options), RecordHyperparameters()])
    expected = [schedule(step, 15, options) for step in range(15)]
    assert [lr for lr, _ in trained] == pytest.approx([one.lr for one in expected], abs=1e-15)
    own = [0.8 if one.mom is None else one.mom for one in expected]
    assert [mom for _, mom in trained] == pytest.approx(own, abs=1e-15)
    # in validation, the values of the last training batch stay
    assert validated == [row for row in trained[4::5] for _ in range(2)]
