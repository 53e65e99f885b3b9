"""Losses of predicted landmarks, averaged over the labeled coordinates.

Losses are functions of errors as fractions of the side of the image, so that their options are independent of
the input size.

To add a loss:

1. Add a class of its options, with a `name`, to `config/options.py` and to the union `LossConfig` there.
2. Write a function of (errors, options) here that returns the elementwise loss, and add it to `LOSSES`.
3. Make sure that its gradient at an error of 0 is finite. Nothing fails if this is forgotten: unlabeled
   coordinates pass through the function as zeros, and 0 * inf turns the weights into NaN.

A loss that needs the predicted scales, as `LaplaceConfig` does, gets a branch in `MaskedLoss` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from landmarks_fastai.config.options import (
    L1Config,
    LaplaceConfig,
    LossConfig,
    MSEConfig,
    SmoothL1Config,
    WingConfig,
)
from landmarks_fastai.networks.heads import Head
from landmarks_fastai.networks.heatmaps import bin_centers
from landmarks_fastai.networks.outputs import split_output

SCALE_WEIGHT = 0.01
"""Weight of the negative log-likelihood of the scales, added to the loss of the points: one nat counts as
much as an L1 error of 1 % of the side."""

SIMCC_WEIGHT = 0.01
"""Weight of the cross-entropy of the bins, added to the loss of the points."""

VISIBILITY_WEIGHT = 0.01
"""Weight of the cross-entropy of visibility, added to the loss of the points, as for the scales. With
`LaplaceConfig`, whose unit is the nat, too, the weight is 1 (measured in benchmarks/visibility.md)."""

SIMCC_SMOOTHING = 0.01
"""Standard deviation of the target distribution over the bins, as a fraction of the side (the label smoothing
of SimCC)."""


def l1(error: Tensor, options: L1Config) -> Tensor:
    """Return the absolute error."""
    return error.abs()


def mse(error: Tensor, options: MSEConfig) -> Tensor:
    """Return the squared error."""
    return error.square()


def smooth_l1(error: Tensor, options: SmoothL1Config) -> Tensor:
    """Return the loss that is quadratic up to `beta` and linear beyond (Girshick 2015, Fast R-CNN, eq. 3)."""
    return functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=options.beta)


def wing(error: Tensor, options: WingConfig) -> Tensor:
    """Return w ln(1 + |x| / ε) for |x| < w, else |x| - C with C = w - w ln(1 + w / ε).

    See Feng et al. 2018, Wing Loss, eq. 5.
    """
    magnitude = error.abs()
    constant = options.width - options.width * math.log1p(options.width / options.curvature)
    near_zero = options.width * torch.log1p(magnitude / options.curvature)
    return torch.where(magnitude < options.width, near_zero, magnitude - constant)


LOSSES: dict[str, Callable[..., Tensor]] = {"l1": l1, "mse": mse, "smooth_l1": smooth_l1, "wing": wing}


def laplace_nll(error: Tensor, log_scale: Tensor) -> Tensor:
    """Return |x| / b + ln 2b, the negative log-likelihood of a Laplace distribution with scale b."""
    return error.abs() * (-log_scale).exp() + log_scale + math.log(2)


def simcc_cross_entropy(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of distributions over bins with Gaussians around the labels (SimCC).

    See Li et al. 2022, "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation".

    Parameters
    ----------
    log_probabilities
        (B, K, 2, N), of N bins along x and N bins along y, which span the image.
    targets
        (B, K, 2) normalized points.

    Returns
    -------
    Tensor
        (B, K, 2), for x and y of each landmark.
    """
    distances = bin_centers(log_probabilities) - targets[..., None]
    target_probabilities = (-0.5 * (distances / (2 * SIMCC_SMOOTHING)).square()).softmax(-1)
    return -(target_probabilities * log_probabilities).sum(-1)


def visibility_cross_entropy(logits: Tensor, flags: Tensor) -> tuple[Tensor, Tensor]:
    """Return the binary cross-entropy of log-odds of being visible, and the mask of the labeled ones.

    Parameters
    ----------
    logits
        (B, K) log-odds.
    flags
        (B, K): 1 visible, 0 occluded, NaN where this is not labeled.

    Returns
    -------
    tuple of Tensor
        (B, K) losses, 0 where not labeled, and the (B, K) mask.
    """
    known = ~flags.isnan()
    losses = functional.binary_cross_entropy_with_logits(logits, flags.nan_to_num(), reduction="none")
    return losses * known, known


class MaskedLoss:
    """The mean of a loss over all labeled coordinates of a batch, plus the losses of scales and bins.

    For a batch without labels, loss and gradient are zero.

    For log scales, the third value of a (B, K, 3) prediction, the negative log-likelihood of the Laplace
    distribution is added, weighted by `SCALE_WEIGHT` and with detached points, so that it trains only the
    scales. With `LaplaceConfig`, this likelihood alone trains points and scales. For bins, the values after
    the third, their cross-entropy is added, weighted by `SIMCC_WEIGHT`.

    For targets with visibility, the last value of a prediction is the log-odds of being visible, whose binary
    cross-entropy, averaged over the landmarks labeled as visible or occluded, is added, weighted by
    `VISIBILITY_WEIGHT`, or by 1 with `LaplaceConfig`. Occluded landmarks train the points like visible ones.

    Parameters
    ----------
    options
        Options of the loss of the points.
    """

    def __init__(self, options: LossConfig) -> None:
        self.options = options
        self.reduction = "mean"  # fastai sets it to "none" for one loss per row

    def __call__(self, predicted: Tensor, target: Tensor, reduction: str | None = None) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        predicted
            (B, K, C), the output of a head.
        target
            (B, K, 2) normalized points, NaN where unlabeled; (B, K, 3) with visibility, see `LoadPoints`.
        reduction
            "mean" or "none"; if None, the attribute `reduction`.

        Returns
        -------
        Tensor
            Scalar; (B,), the mean of each row, if the reduction is "none".
        """
        # fastai's typed tensors raise TypeError when combined with each other
        output, labels = predicted.as_subclass(Tensor), target.as_subclass(Tensor)
        labels, flags = labels[..., :2], labels[..., 2:]
        parts = split_output(output, visibility=bool(flags.shape[-1]))
        points, log_scale, bins = parts.points, parts.log_scales, parts.bins
        labeled = ~labels.isnan().any(-1, keepdim=True).expand_as(labels)
        # masked before the subtraction, because the gradient through NaN is NaN even if it is masked later
        error = torch.where(labeled, points - torch.where(labeled, labels, points.detach()), 0.0) / 2
        if isinstance(self.options, LaplaceConfig):
            values = laplace_nll(error, log_scale)
        else:
            values = LOSSES[self.options.name](error, self.options)
            if log_scale.shape[-1]:
                values = values + SCALE_WEIGHT * laplace_nll(error.detach(), log_scale)
        if bins.shape[-1]:
            by_axis = torch.stack(bins.chunk(2, -1), -2)
            values = values + SIMCC_WEIGHT * simcc_cross_entropy(by_axis, labels.nan_to_num())
        by_row = (reduction or self.reduction) == "none"
        loss = _masked_mean(values * labeled, labeled, by_row)
        if parts.visibility is not None:
            entropy, known = visibility_cross_entropy(parts.visibility, flags[..., 0])
            weight = 1.0 if isinstance(self.options, LaplaceConfig) else VISIBILITY_WEIGHT
            loss = loss + weight * _masked_mean(entropy, known, by_row)
        return loss

    def of_evaluated(self, head: Head, predicted: Tensor, target: Tensor) -> Tensor | None:
        """Return the loss of a training batch without the terms that exist in training mode only.

        It is the same quantity as the loss of a validation batch: `head` returns fewer values in eval mode
        (`Head.evaluated`).

        Parameters
        ----------
        head
            The head that predicted the batch.
        predicted, target
            See `__call__`; with two annotation protocols, both have 2 K landmarks.

        Returns
        -------
        Tensor or None
            Scalar without gradient; None if none of the landmarks that it refers to is labeled.
        """
        output, labels = predicted.detach().as_subclass(Tensor), target.as_subclass(Tensor)
        evaluated = head.evaluated(output)
        labels = labels[:, : evaluated.shape[1]]
        return None if labels.isnan().all() else self(evaluated, labels)

    def decodes(self, predicted: Tensor) -> Tensor:
        """Return the points of a prediction; called by fastai."""
        return predicted[..., :2]

    def activation(self, predicted: Tensor) -> Tensor:
        """Return the prediction unchanged, because heads have no final activation; called by fastai."""
        return predicted


def _masked_mean(values: Tensor, mask: Tensor, by_row: bool) -> Tensor:
    """Return the mean of the values over a mask, outside which they are 0: of each row, or of all rows."""
    if by_row:
        return values.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    return values.sum() / mask.sum().clamp(min=1)
