"""Losses: hand-worked values, and what is unlabelled plays no part."""

import math

import pytest
import torch
from fastai.vision.all import TensorPoint
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.config import L1Loss, LaplaceLoss, MSELoss, SmoothL1Loss, WingLoss
from landmarks_fastai.training.losses import MaskedLoss, missed_cells

ALL = [L1Loss(), MSELoss(), SmoothL1Loss(beta=0.1), WingLoss(width=0.1, curvature=0.02)]


@pytest.mark.parametrize(
    ("options", "small", "large"),
    [
        # errors of 0.08 and 1.2 in scaled units are 0.04 and 0.6 of the side
        (L1Loss(), 0.04, 0.6),
        (MSELoss(), 0.0016, 0.36),
        (SmoothL1Loss(beta=0.1), 0.5 * 0.0016 / 0.1, 0.6 - 0.05),
        (WingLoss(width=0.1, curvature=0.02), 0.1 * math.log(3), 0.6 - (0.1 - 0.1 * math.log(6))),
    ],
)
def test_values_by_hand(options, small, large) -> None:
    target = torch.zeros(2, 1, 2)
    predicted = torch.tensor([[[0.08, -0.08]], [[1.2, 1.2]]])
    each = MaskedLoss(options)(predicted, TensorPoint(target), reduction="none")
    assert each.tolist() == pytest.approx([small, large], rel=1e-5)
    assert MaskedLoss(options)(predicted, target).item() == pytest.approx((small + large) / 2, rel=1e-5)


@pytest.mark.parametrize("options", ALL, ids=lambda options: options.name)
@given(data=st.data())
def test_unlabelled_points_change_nothing(options, data) -> None:
    seed = data.draw(st.integers(0, 2**20))
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(3, 5, 2, generator=generator) * 2 - 1
    hidden = torch.rand(3, 5, generator=generator) < 0.5
    target[hidden] = math.nan
    predicted = torch.rand(3, 5, 2, generator=generator, requires_grad=True)
    value = MaskedLoss(options)(predicted, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.equal(predicted.grad[hidden], torch.zeros_like(predicted.grad[hidden]))
    shown = ~hidden
    if shown.any():
        alone = MaskedLoss(options)(predicted.detach()[shown][None], target[shown][None])
        assert value.item() == pytest.approx(alone.item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("options", ALL, ids=lambda options: options.name)
def test_a_batch_without_labels_costs_nothing(options) -> None:
    predicted = torch.rand(2, 3, 2, requires_grad=True)
    value = MaskedLoss(options)(predicted, torch.full((2, 3, 2), math.nan))
    value.backward()
    assert value.item() == 0
    assert not predicted.grad.any()


def test_the_scale_is_taught_beside_the_point() -> None:
    # one coordinate off by 0.04 of the side, the other by 0.02, with b = 0.03: |x| / b + ln 2b each
    predicted = torch.tensor([[[0.08, -0.04, math.log(0.03)]]], requires_grad=True)
    value = MaskedLoss(L1Loss())(predicted, torch.zeros(1, 1, 2))
    likelihood = (0.04 / 0.03 + 0.02 / 0.03) / 2 + math.log(0.06)
    assert value.item() == pytest.approx(0.03 + 0.01 * likelihood, rel=1e-5)
    value.backward()
    # the scale moves; the point is pulled just as the plain loss pulls it
    assert predicted.grad[0, 0, 2].item() == pytest.approx(0.01 * (1 - 1.0), abs=1e-6)
    plain = predicted.detach()[..., :2].requires_grad_()
    MaskedLoss(L1Loss())(plain, torch.zeros(1, 1, 2)).backward()
    assert torch.equal(predicted.grad[..., :2], plain.grad)


def test_the_best_scale_is_the_mean_error() -> None:
    error = torch.tensor([0.01, 0.02, 0.06])
    target = torch.stack([2 * error, 2 * error], 1)[:, None]
    costs = []
    for scale in (0.025, 0.03, 0.035):
        predicted = torch.tensor([0.0, 0.0, math.log(scale)]).expand(3, 1, 3)
        costs.append(MaskedLoss(L1Loss())(predicted, target).item())
    assert costs[1] < min(costs[0], costs[2])


def test_laplace_moves_a_point_the_less_the_less_sure_it_is() -> None:
    predicted = torch.tensor([[[0.08, 0.0, math.log(0.02)], [0.08, 0.0, math.log(0.2)]]], requires_grad=True)
    value = MaskedLoss(LaplaceLoss())(predicted, torch.zeros(1, 2, 2))
    each = [0.04 / b / 2 + math.log(2 * b) for b in (0.02, 0.2)]
    assert value.item() == pytest.approx(sum(each) / 2, rel=1e-5)
    value.backward()
    sure, unsure = predicted.grad[0, :, 0].tolist()
    assert sure == pytest.approx(10 * unsure, rel=1e-4)


def test_the_right_cells_cost_least() -> None:
    truth = torch.tensor([[[-0.5, 0.25]]])
    cells = (torch.arange(200) + 0.5) / 100 - 1
    right = torch.stack([-0.5 * ((cells - place) / 0.02) ** 2 for place in truth[0, 0]]).log_softmax(-1)
    least = missed_cells(right[None, None], truth)
    for beside in (right.roll(3, -1), right / 2, right * 2):
        assert (missed_cells(beside.log_softmax(-1)[None, None], truth) > least).all()


def test_cells_are_taught_where_the_point_is_labelled() -> None:
    chances = torch.zeros(1, 2, 2, 10).log_softmax(-1).flatten(2)
    predicted = torch.cat([torch.zeros(1, 2, 3), chances], -1).requires_grad_()
    target = torch.tensor([[[0.5, 0.5], [math.nan, math.nan]]])
    MaskedLoss(L1Loss())(predicted, target).backward()
    assert predicted.grad[0, 0, 3:].any()
    assert not predicted.grad[0, 1].any()
