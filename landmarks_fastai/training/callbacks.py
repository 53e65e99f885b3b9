"""fastai callbacks: metrics of landmarks, ending a fit early, and finding a callback of a learner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner, Metric
from numpy.typing import NDArray
from torch import Tensor

from landmarks_fastai.errors import RunError
from landmarks_fastai.networks.coordinates import denormalize_points
from landmarks_fastai.training.reporting import EpochLog
from landmarks_fastai.utils.interrupt import Interrupt

MetricFunction = Callable[[NDArray[np.floating], NDArray[np.floating]], float]
"""Computes a number from (N, K, 2) predicted points and labels in pixels."""

AnyCallback = TypeVar("AnyCallback", bound=Callback)


def find_callback(learn: Learner, kind: type[AnyCallback]) -> AnyCallback | None:
    """Return the callback of class `kind` of a learner; None if it has none."""
    return next((callback for callback in learn.cbs if isinstance(callback, kind)), None)


class LandmarkMetric(Metric):
    """A metric over all validation points at once, in pixels of the data set's images.

    Parameters
    ----------
    name
        Name of the metric in the history.
    function
        Computes it from predicted points and labels.
    size
        Side of the data set's images in pixels.
    """

    def __init__(self, name: str, function: MetricFunction, size: int) -> None:
        self.metric_name, self.function, self.size = name, function, size
        self.reset()

    def reset(self) -> None:
        """Discard the points of the previous validation."""
        self.predicted: list[Tensor] = []
        self.labels: list[Tensor] = []

    def accumulate(self, learn: Any) -> None:
        """Keep the points of a batch."""
        self.predicted.append(learn.pred.detach().as_subclass(Tensor)[..., :2].float().cpu())
        self.labels.append(learn.y.detach().as_subclass(Tensor)[..., :2].float().cpu())

    @property
    def value(self) -> float:
        """The metric of all points kept; NaN if there are none."""
        if not self.predicted:
            return math.nan
        predicted, labels = (
            denormalize_points(torch.cat(batches), self.size).numpy()
            for batches in (self.predicted, self.labels)
        )
        return self.function(predicted, labels)

    @property
    def name(self) -> str:
        """The name that fastai's Recorder shows."""
        return self.metric_name


class StopOnInterrupt(Callback):
    """End the fit between two batches or epochs after Ctrl-C or SIGTERM.

    Parameters
    ----------
    interrupt
        Entered and exited by the caller of `fit`, because fastai skips `after_fit` if a fit fails.
    """

    order = 90

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def after_batch(self) -> None:
        """End the fit if an interrupt was requested."""
        if self.interrupt.requested:
            raise CancelFitException

    def after_epoch(self) -> None:
        """End the fit if an interrupt was requested while files were written."""
        self.after_batch()


class FailOnDivergence(Callback):
    """End the run with an error if the loss of a batch, or that of the validation rows, is NaN or infinite.

    The weights are useless from then on, so this comes before files are written. It does not wait for a GPU,
    because the `EpochLog` has already read the loss.

    Parameters
    ----------
    log
        Has the loss of the last training batch, and the validation loss.
    """

    order = 56  # after the EpochLog

    def __init__(self, log: EpochLog) -> None:
        self.log = log

    def after_batch(self) -> None:
        """Raise RunError if the loss of a training batch is not finite."""
        if self.training and not math.isfinite(self.log.last_loss):
            step = f"iteration {self.iter + 1:,} of {self.n_iter:,}"
            raise self._error(f"{step}: the training loss is {self.log.last_loss}")

    def after_epoch(self) -> None:
        """Raise RunError if the validation loss is not finite."""
        loss = self.log.rows[-1]["valid_loss"]
        if not math.isfinite(loss):
            self.log.rows.pop()
            raise self._error(f"the validation loss is {loss}")

    def _error(self, what: str) -> RunError:
        lr = max(hypers["lr"] for hypers in self.opt.hypers)
        kept = "; the last checkpoint before it is kept" if self.epoch else ""
        return RunError(
            f"epoch {self.epoch + 1}, {what}, so the run has diverged{kept}; train again with a lower --lr"
            f" (it was {lr:.2g} there), or look for damaged rows with the command data"
        )


class StopWhenDiverged(Callback):
    """End a learning rate search when the loss has risen above its start by as much as it fell below it.

    fastai's own rule, four times the lowest loss, ends the search at once if the loss is negative, as a
    negative log-likelihood can be.

    Parameters
    ----------
    warmup
        Number of batches that count as the start; their learning rates are too low for divergence.
    """

    order = 70  # after LRFinder

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup

    def before_fit(self) -> None:
        """Discard the losses of an earlier fit."""
        self.smoothed: list[float] = []

    def after_batch(self) -> None:
        """End the fit if the loss is above the limit or NaN."""
        self.smoothed.append(float(self.smooth_loss))
        start = max(self.smoothed[: self.warmup])
        limit = start + (start - min(self.smoothed))
        if len(self.smoothed) > self.warmup and not self.smoothed[-1] <= limit:
            raise CancelFitException
