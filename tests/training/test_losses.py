"""Losses: values computed by hand, and masking of unlabeled landmarks."""

from __future__ import annotations

import math

import pytest
import torch
from fastai.vision.all import TensorPoint
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.config.options import L1Config, LaplaceConfig, MSEConfig, SmoothL1Config, WingConfig
from landmarks_fastai.training.losses import MaskedLoss, simcc_cross_entropy

LOSS_OPTIONS = [L1Config(), MSEConfig(), SmoothL1Config(beta=0.1), WingConfig(width=0.1, curvature=0.02)]


@pytest.mark.parametrize(
    ("options", "small", "large"),
    [
        # normalized errors of 0.08 and 1.2 are 0.04 and 0.6 of the side
        (L1Config(), 0.04, 0.6),
        (MSEConfig(), 0.0016, 0.36),
        (SmoothL1Config(beta=0.1), 0.5 * 0.0016 / 0.1, 0.6 - 0.05),
        (WingConfig(width=0.1, curvature=0.02), 0.1 * math.log(3), 0.6 - (0.1 - 0.1 * math.log(6))),
    ],
)
def test_loss_of_small_and_large_error_equals_formula(options, small, large) -> None:
    target = torch.zeros(2, 1, 2)
    predicted = torch.tensor([[[0.08, -0.08]], [[1.2, 1.2]]])
    by_row = MaskedLoss(options)(predicted, TensorPoint(target), reduction="none")
    assert by_row.tolist() == pytest.approx([small, large], rel=1e-5)
    assert MaskedLoss(options)(predicted, target).item() == pytest.approx((small + large) / 2, rel=1e-5)


@pytest.mark.parametrize("options", LOSS_OPTIONS, ids=lambda options: options.name)
@given(data=st.data())
def test_loss_ignores_unlabeled_landmarks(options, data) -> None:
    seed = data.draw(st.integers(0, 2**20))
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(3, 5, 2, generator=generator) * 2 - 1
    unlabeled = torch.rand(3, 5, generator=generator) < 0.5
    target[unlabeled] = math.nan
    predicted = torch.rand(3, 5, 2, generator=generator, requires_grad=True)
    value = MaskedLoss(options)(predicted, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.equal(predicted.grad[unlabeled], torch.zeros_like(predicted.grad[unlabeled]))
    labeled = ~unlabeled
    if labeled.any():
        loss_of_labeled = MaskedLoss(options)(predicted.detach()[labeled][None], target[labeled][None])
        assert value.item() == pytest.approx(loss_of_labeled.item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("options", LOSS_OPTIONS, ids=lambda options: options.name)
def test_loss_of_batch_without_labels_is_zero_with_zero_gradient(options) -> None:
    predicted = torch.rand(2, 3, 2, requires_grad=True)
    value = MaskedLoss(options)(predicted, torch.full((2, 3, 2), math.nan))
    value.backward()
    assert value.item() == 0
    assert not predicted.grad.any()


def test_loss_with_scales_adds_likelihood_without_moving_points() -> None:
    # errors of 0.04 and 0.02 of the side with b = 0.03: |x| / b + ln 2b each
    predicted = torch.tensor([[[0.08, -0.04, math.log(0.03)]]], requires_grad=True)
    value = MaskedLoss(L1Config())(predicted, torch.zeros(1, 1, 2))
    likelihood = (0.04 / 0.03 + 0.02 / 0.03) / 2 + math.log(0.06)
    assert value.item() == pytest.approx(0.03 + 0.01 * likelihood, rel=1e-5)
    value.backward()
    assert predicted.grad[0, 0, 2].item() == pytest.approx(0.01 * (1 - 1.0), abs=1e-6)
    points = predicted.detach()[..., :2].requires_grad_()
    MaskedLoss(L1Config())(points, torch.zeros(1, 1, 2)).backward()
    assert torch.equal(predicted.grad[..., :2], points.grad)


def test_loss_with_scales_is_lowest_at_mean_absolute_error() -> None:
    error = torch.tensor([0.01, 0.02, 0.06])
    target = torch.stack([2 * error, 2 * error], 1)[:, None]
    losses = []
    for scale in (0.025, 0.03, 0.035):
        predicted = torch.tensor([0.0, 0.0, math.log(scale)]).expand(3, 1, 3)
        losses.append(MaskedLoss(L1Config())(predicted, target).item())
    assert losses[1] < min(losses[0], losses[2])


def test_laplace_gradient_of_point_is_inversely_proportional_to_its_scale() -> None:
    predicted = torch.tensor([[[0.08, 0.0, math.log(0.02)], [0.08, 0.0, math.log(0.2)]]], requires_grad=True)
    value = MaskedLoss(LaplaceConfig())(predicted, torch.zeros(1, 2, 2))
    by_landmark = [0.04 / b / 2 + math.log(2 * b) for b in (0.02, 0.2)]
    assert value.item() == pytest.approx(sum(by_landmark) / 2, rel=1e-5)
    value.backward()
    small_scale, large_scale = predicted.grad[0, :, 0].tolist()
    assert small_scale == pytest.approx(10 * large_scale, rel=1e-4)


def test_simcc_cross_entropy_is_lowest_for_target_distribution() -> None:
    target = torch.tensor([[[-0.5, 0.25]]])
    centers = (torch.arange(200) + 0.5) / 100 - 1
    expected = torch.stack([-0.5 * ((centers - x) / 0.02) ** 2 for x in target[0, 0]]).log_softmax(-1)
    lowest = simcc_cross_entropy(expected[None, None], target)
    for other in (expected.roll(3, -1), expected / 2, expected * 2):
        assert (simcc_cross_entropy(other.log_softmax(-1)[None, None], target) > lowest).all()


def test_loss_with_bins_has_gradient_only_at_labeled_landmarks() -> None:
    log_probabilities = torch.zeros(1, 2, 2, 10).log_softmax(-1).flatten(2)
    predicted = torch.cat([torch.zeros(1, 2, 3), log_probabilities], -1).requires_grad_()
    target = torch.tensor([[[0.5, 0.5], [math.nan, math.nan]]])
    MaskedLoss(L1Config())(predicted, target).backward()
    assert predicted.grad[0, 0, 3:].any()
    assert not predicted.grad[0, 1].any()


# --- weights of the added terms ------------------------------------------------------------------


def cross_entropy(log_odds: float, visible: bool) -> float:
    return math.log1p(math.exp(-log_odds if visible else log_odds))


@pytest.mark.parametrize(("options", "weight"), [(L1Config(), 0.01), (LaplaceConfig(), 1.0)])
def test_loss_with_visibility_adds_cross_entropy_of_labeled_flags(options, weight) -> None:
    points = torch.tensor([[[0.08, -0.04], [0.0, 0.0], [0.02, 0.02]]])
    log_scales = torch.full((1, 3, 1), math.log(0.03))
    log_odds = torch.tensor([[[0.7], [-1.2], [5.0]]])
    labels = torch.zeros(1, 3, 2)
    flags = torch.tensor([[[1.0], [0.0], [math.nan]]])  # the third is not labeled as visible or occluded
    without = MaskedLoss(options)(torch.cat([points, log_scales], -1), labels)
    predicted = torch.cat([points, log_scales, log_odds], -1)
    target = torch.cat([labels, flags], -1)
    added = (cross_entropy(0.7, True) + cross_entropy(-1.2, False)) / 2
    assert MaskedLoss(options)(predicted, target).item() == pytest.approx(
        without.item() + weight * added, rel=1e-5
    )
    by_row = MaskedLoss(options)(predicted, target, reduction="none")
    assert by_row.tolist() == pytest.approx([without.item() + weight * added], rel=1e-5)
    target[0, 1, 2] = math.nan  # one flag is left
    one = without.item() + weight * cross_entropy(0.7, True)
    assert MaskedLoss(options)(predicted, target).item() == pytest.approx(one, rel=1e-5)
    by_row = MaskedLoss(options)(predicted, target, reduction="none")
    assert by_row.tolist() == pytest.approx([one], rel=1e-5)


def test_loss_by_row_averages_over_the_labeled_landmarks_of_each_row() -> None:
    target = torch.zeros(2, 3, 2)
    target[0, 1:] = math.nan
    target[1] = math.nan
    predicted = torch.full((2, 3, 2), 0.2)
    by_row = MaskedLoss(L1Config())(predicted, target, reduction="none")
    assert by_row.tolist() == pytest.approx([0.1, 0.0])
    assert MaskedLoss(L1Config())(predicted, target).item() == pytest.approx(0.1)


def test_loss_with_bins_adds_cross_entropy_of_both_axes() -> None:
    generator = torch.Generator().manual_seed(0)
    bins = torch.randn(1, 2, 2, 20, generator=generator).log_softmax(-1)
    target = torch.tensor([[[0.5, -0.25], [0.1, 0.3]]])
    predicted = torch.cat([target, torch.full((1, 2, 1), math.log(0.03)), bins.flatten(2)], -1)
    likelihood = math.log(0.06)  # the points are exact
    entropy = simcc_cross_entropy(bins, target).mean().item()
    value = MaskedLoss(L1Config())(predicted, target).item()
    assert value == pytest.approx(0.01 * likelihood + 0.01 * entropy, rel=1e-4)


def test_fastai_decodes_points_and_leaves_activation() -> None:
    predicted = torch.arange(12.0).reshape(1, 2, 6)
    assert torch.equal(MaskedLoss(L1Config()).decodes(predicted), predicted[..., :2])
    assert MaskedLoss(L1Config()).activation(predicted) is predicted
