"""Losses over the labelled points alone.

Every loss sees errors as shares of the image's side, so that its numbers mean the same at each input
size. Where the network also says how far off its points may be, that is taught beside the points. Knows
nothing about pixels or schedules.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from landmarks_fastai.config import L1Loss, LaplaceLoss, Loss, MSELoss, SmoothL1Loss, WingLoss
from landmarks_fastai.network import cell_centres


def l1(error: Tensor, options: L1Loss) -> Tensor:
    """Absolute error."""
    return error.abs()


def mse(error: Tensor, options: MSELoss) -> Tensor:
    """Squared error."""
    return error.square()


def smooth_l1(error: Tensor, options: SmoothL1Loss) -> Tensor:
    """Squared up to `beta`, absolute beyond (Girshick 2015, Fast R-CNN, eq. 3)."""
    return functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=options.beta)


def wing(error: Tensor, options: WingLoss) -> Tensor:
    """Return w ln(1 + |x| / ε) for |x| < w, else |x| - C (Feng et al. 2018, Wing Loss, eq. 5)."""
    size = error.abs()
    gap = options.width - options.width * math.log1p(options.width / options.curvature)
    return torch.where(
        size < options.width, options.width * torch.log1p(size / options.curvature), size - gap
    )


LOSSES: dict[str, Callable[..., Tensor]] = {"l1": l1, "mse": mse, "smooth_l1": smooth_l1, "wing": wing}


SCALE_WEIGHT = 0.01
"""Of the scales' likelihood beside the points' loss: as much as an error of 1 % of the side."""


def laplace(error: Tensor, log_scale: Tensor) -> Tensor:
    """Return |x| / b + ln 2b, the negative log-likelihood of Laplace's distribution of scale b."""
    return error.abs() * (-log_scale).exp() + log_scale + math.log(2)


CELL_WEIGHT = 0.01
"""Of the cells' cross-entropy beside the points' loss."""

CELL_BLUR = 0.01
"""Standard deviation of the cells that count as right, as a share of the side (label smoothing of SimCC)."""


def missed_cells(log_chances: Tensor, truth: Tensor) -> Tensor:
    """Return the cross-entropy (B, K, 2) of cells with Gaussians around the truth (Li et al. 2022, SimCC).

    Parameters
    ----------
    log_chances
        (B, K, 2, N): along x and along y, of N cells from edge to edge.
    truth
        (B, K, 2) scaled points.
    """
    wanted = (-0.5 * ((cell_centres(log_chances) - truth[..., None]) / (2 * CELL_BLUR)).square()).softmax(-1)
    return -(wanted * log_chances).sum(-1)


class MaskedLoss:
    """The mean of a loss over all labelled coordinates of a batch.

    A batch without a labelled point gives zero, with a gradient of zero, not NaN. Where the network gives
    (B, K, 3), the third numbers are log scales: their likelihood is added, with the error held fixed, so
    that a point is never moved to suit the scale (but for `LaplaceLoss`, which is this likelihood). What
    follows are a classifying head's cells: to miss the right ones is added too.

    Parameters
    ----------
    options
        Which loss, and its numbers.
    """

    def __init__(self, options: Loss) -> None:
        self.options = options
        self.reduction = "mean"  # fastai sets "none" here to get one loss a face

    def __call__(self, predicted: Tensor, target: Tensor, reduction: str | None = None) -> Tensor:
        """Compare (B, K, 2 and more) predictions with (B, K, 2) scaled points; NaN is unlabelled.

        Returns
        -------
        Tensor
            One number, or (B,) where the reduction is "none".
        """
        whole, truth = predicted.as_subclass(Tensor), target.as_subclass(Tensor)
        plain, log_scale, cells = whole[..., :2], whole[..., 2:3], whole[..., 3:]
        labelled = ~truth.isnan().any(-1, keepdim=True).expand_as(truth)
        # the mask comes before the difference: a gradient through NaN is NaN even where it is dropped
        error = torch.where(labelled, plain - torch.where(labelled, truth, plain.detach()), 0.0) / 2
        if isinstance(self.options, LaplaceLoss):
            values = laplace(error, log_scale)
        else:
            values = LOSSES[self.options.name](error, self.options)
            if log_scale.shape[-1]:
                values = values + SCALE_WEIGHT * laplace(error.detach(), log_scale)
        if cells.shape[-1]:
            values = values + CELL_WEIGHT * missed_cells(
                torch.stack(cells.chunk(2, -1), -2), truth.nan_to_num()
            )
        values = values * labelled
        if (reduction or self.reduction) == "none":
            return values.sum((1, 2)) / labelled.sum((1, 2)).clamp(min=1)
        return values.sum() / labelled.sum().clamp(min=1)

    def decodes(self, predicted: Tensor) -> Tensor:
        """Return the points alone."""
        return predicted[..., :2]

    def activation(self, predicted: Tensor) -> Tensor:
        """Return the prediction as it is: the heads have no last activation."""
        return predicted
