"""Estimation of the label bias, the horizontal offset of labels that mirroring reverses."""

from __future__ import annotations

import math

import torch
from fastai.callback.core import Callback
from torch import Tensor

from landmarks_fastai.training.augmentation import AugmentBatch


class EstimateLabelBias(Callback):
    """Estimate during training how far labels lie to the right of the true positions.

    Trackers and annotators often place all landmarks a little to one side. In mirrored images, the offset is
    reversed, so that a network trained on both learns neither: relative to the labels, its predictions are
    too far left in the original images and too far right in the mirrored ones. Half the difference of the two
    mean errors is the correction that `AugmentBatch.label_bias` still needs.

    Parameters
    ----------
    augment
        Mirrors the images of each batch; its `label_bias` is updated.
    """

    order = 20
    run_valid = False

    RATE = 0.02
    """Fraction of each batch's correction that is applied: small enough to average out noise, large enough to
    converge within an epoch."""

    def __init__(self, augment: AugmentBatch) -> None:
        self.augment = augment

    @torch.no_grad()
    def after_pred(self) -> None:
        """Update the label bias by the errors on mirrored images and on the others."""
        mirrored = self.augment.mirrored[:, None]
        errors = (self.learn.pred[..., 0] - self.learn.y[..., 0]).as_subclass(Tensor).float()
        nan = torch.full_like(errors, math.nan)
        # no boolean index and no condition, which would wait for a GPU
        difference = (
            torch.where(mirrored, errors, nan).nanmean() - torch.where(mirrored, nan, errors).nanmean()
        )
        correction = difference / 4  # half of it, as a fraction of the side, which is 2
        finite = correction.isfinite()  # not so if all rows or none are mirrored
        self.augment.correct_label_bias(torch.where(finite, self.RATE * correction, 0.0))
