"""Small fastai callbacks, one behaviour each, removable without a trace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Metric
from numpy.typing import NDArray
from torch import Tensor

from landmarks_fastai.interrupt import Interrupt
from landmarks_fastai.network import unscale_points
from landmarks_fastai.training.augment import AugmentBatch

Measure = Callable[[NDArray[np.floating], NDArray[np.floating]], float]


class PointMetric(Metric):
    """A number over all validation points at once, in pixels of the source image.

    Parameters
    ----------
    name
        What the number is called in the history.
    measure
        From (N, K, 2) predicted and true points in pixels to the number.
    size
        Side of the source images, in pixels.
    """

    def __init__(self, name: str, measure: Measure, size: int) -> None:
        self.label, self.measure, self.size = name, measure, size
        self.reset()

    def reset(self) -> None:
        """Forget the last epoch."""
        self.predicted: list[Tensor] = []
        self.true: list[Tensor] = []

    def accumulate(self, learn: Any) -> None:
        """Keep a batch's points."""
        self.predicted.append(learn.pred.detach().as_subclass(Tensor)[..., :2].float().cpu())
        self.true.append(learn.y.detach().as_subclass(Tensor).float().cpu())

    @property
    def value(self) -> float:
        """The number over all that was kept."""
        if not self.predicted:
            return math.nan
        both = (unscale_points(torch.cat(part), self.size) for part in (self.predicted, self.true))
        return self.measure(*(part.numpy() for part in both))

    @property
    def name(self) -> str:
        """What fastai's tables call it."""
        return self.label


class Autocast(Callback):
    """Run the forward pass in `dtype` on any device: fastai's MixedPrecision knows CUDA alone."""

    order = 10

    def __init__(self, device_type: str, dtype: torch.dtype) -> None:
        self.device_type, self.dtype = device_type, dtype
        self.context: torch.autocast | None = None

    def before_batch(self) -> None:
        """Enter."""
        self.context = torch.autocast(self.device_type, dtype=self.dtype)
        self.context.__enter__()  # type: ignore[no-untyped-call]

    def after_pred(self) -> None:
        """Leave, so that loss and metrics are computed in full precision."""
        if self.context is not None:
            self.context.__exit__(None, None, None)
            self.context = None


class AverageWeights(Callback):
    """Validate and keep the exponential moving average of the weights (Polyak & Juditsky 1992).

    Parameters
    ----------
    decay
        Share of the average that stays at each iteration; smaller in the first iterations, so that the
        random start is soon forgotten.
    """

    order = 70

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] | None = None
        self.trained: dict[str, Tensor] | None = None

    def before_fit(self) -> None:
        """Start from the present weights, unless a checkpoint brought an average along."""
        if self.average is None:
            self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def after_batch(self) -> None:
        """Move the average towards the present weights."""
        if not self.training or self.average is None:
            return
        done = self.train_iter  # TrainEvalCallback has counted this batch already
        keep = min(self.decay, (1 + done) / (10 + done))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    def before_validate(self) -> None:
        """Put the average in."""
        assert self.average is not None
        self.trained = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)

    def after_validate(self) -> None:
        """Train on with the trained weights."""
        if self.trained is not None:
            self.model.load_state_dict(self.trained)
            self.trained = None


def weights_to_keep(learn: Any) -> dict[str, Tensor]:
    """Return the weights that validation saw: the moving average where there is one."""
    averaging = getattr(learn, "average_weights", None)
    weights: dict[str, Tensor] = learn.model.state_dict()
    return averaging.average if averaging is not None and averaging.average is not None else weights


class FindLabelShift(Callback):
    """Find how far labels lie to the right of what they mark, and mirror faces accordingly.

    Trackers and annotators often mark all points a little to one side, which a network learns from the
    faces as they are, and unlearns from their mirror images. What it finds between the two lies to the left
    of the labels in the ones and to the right in the others; half the difference is what
    `AugmentBatch.label_shift` still lacks.

    Parameters
    ----------
    augment
        Mirrors the faces of each batch.
    """

    order = 20
    run_valid = False

    RATE = 0.02
    """Share of what a batch finds lacking that is added: so a batch's noise goes, and an epoch is enough."""

    def __init__(self, augment: AugmentBatch) -> None:
        self.augment = augment

    @torch.no_grad()
    def after_pred(self) -> None:
        """Compare mirrored faces with the others."""
        mirrored = self.augment.mirrored
        if mirrored.all() or not mirrored.any():
            return
        missed = (self.learn.pred[..., 0] - self.learn.y[..., 0]).as_subclass(Tensor).float()
        means = [missed[mirrored].nanmean(), missed[~mirrored].nanmean()]
        lacking = float(means[0] - means[1]) / 4  # half of it, and the side is 2 long
        if math.isfinite(lacking):
            self.augment.label_shift += self.RATE * lacking


class Reporter(Protocol):
    """Who is told how training goes: the command line draws a bar, tests keep a list."""

    def note(self, text: str) -> None:
        """Hear a sentence about the run."""

    def batch(self, done: int, total: int, loss: float, lr: float) -> None:
        """Hear of an iteration."""

    def epoch(self, row: dict[str, float]) -> None:
        """Hear of an epoch's numbers."""


class EpochLog(Callback):
    """Keep each epoch's numbers as `rows`, and tell the reporter of every batch and epoch."""

    order = 55  # after fastai's Recorder, before the checkpoints that keep the rows

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.rows: list[dict[str, float]] = []

    def before_epoch(self) -> None:
        """Start the sums."""
        self.started, self.sum, self.batches = time.perf_counter(), 0.0, 0

    def after_batch(self) -> None:
        """Add up the training loss."""
        if self.training:
            loss, lr = float(self.loss.detach()), float(self.opt.hypers[-1]["lr"])
            self.sum += loss
            self.batches += 1
            self.reporter.batch(self.train_iter, self.n_iter * self.n_epoch, loss, lr)

    def after_epoch(self) -> None:
        """Keep the row."""
        row = {
            "epoch": self.epoch + 1,
            "train_loss": self.sum / max(self.batches, 1),
            "valid_loss": float(self.recorder.loss.value),
            **{metric.name: float(metric.value) for metric in self.metrics},
            "lr": float(self.opt.hypers[-1]["lr"]),
            "seconds": round(time.perf_counter() - self.started, 2),
        }
        self.rows.append(row)
        self.reporter.epoch(row)


class StopOnInterrupt(Callback):
    """Ctrl-C ends the run between two batches; a second one ends the program at once."""

    order = 90

    def __init__(self, interrupt: Interrupt) -> None:
        # whoever fits holds it open: fastai leaves out after_fit where a fit fails
        self.interrupt = interrupt

    def after_batch(self) -> None:
        """End the run where it was asked for."""
        if self.interrupt.asked:
            raise CancelFitException


class StopDiverged(Callback):
    """End a search for a learning rate where the loss has risen above its beginning as far as it fell below.

    fastai's own rule, four times the least loss, ends it at once where that is negative: a likelihood's is.

    Parameters
    ----------
    first
        So many batches are its beginning; their rates are too low for it to diverge.
    """

    order = 70  # after LRFinder

    def __init__(self, first: int) -> None:
        self.first = first

    def before_fit(self) -> None:
        """Begin."""
        self.smoothed: list[float] = []

    def after_batch(self) -> None:
        """Stop, also where the loss is no number any more."""
        self.smoothed.append(float(self.smooth_loss))
        begun = max(self.smoothed[: self.first])
        limit = begun + (begun - min(self.smoothed))
        if len(self.smoothed) > self.first and not self.smoothed[-1] <= limit:
            raise CancelFitException
