"""The exponential moving average (EMA) of the weights, which is evaluated and saved."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from torch import Tensor

from landmarks_fastai.training.callbacks import find_callback


class ExponentialMovingAverage(Callback):
    """Average the weights over the iterations and validate with the average (Polyak & Juditsky 1992).

    Parameters
    ----------
    decay
        Fraction of the average that is kept in each iteration; smaller in the first iterations, so that the
        random initial weights are forgotten quickly.

    Attributes
    ----------
    average
        The averaged state dict; None before the first fit. A checkpoint restores it.
    """

    order = 70

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] | None = None
        self.trained: dict[str, Tensor] | None = None
        self.pairs = _Pairs({}, {})

    def before_fit(self) -> None:
        """Start from the current weights, unless there is an average from an earlier fit."""
        if self.average is None:
            self.average = _copy_state(self.model)

    @torch.no_grad()
    def after_batch(self) -> None:
        """Update the average with the current weights."""
        if not self.training or self.average is None:
            return
        iterations = self.train_iter  # TrainEvalCallback has already counted this batch
        decay = min(self.decay, (1 + iterations) / (10 + iterations))
        if self.pairs.average is not self.average:
            self.pairs = _Pairs(self.average, self.model.state_dict())
        self.pairs.update(1 - decay)

    def before_validate(self) -> None:
        """Load the average into the model."""
        assert self.average is not None
        self.trained = _copy_state(self.model)
        self.model.load_state_dict(self.average)

    def after_validate(self) -> None:
        """Load the trained weights back into the model."""
        if self.trained is not None:
            self.model.load_state_dict(self.trained)
            self.trained = None


class _Pairs:
    """The tensors of an average and of a model, in lists, which torch updates in few kernels on a GPU.

    A state dict refers to the tensors of its model, so one serves for all iterations.
    """

    def __init__(self, average: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        self.average = average
        floats = [name for name, value in state.items() if value.dtype.is_floating_point]
        others = [name for name in state if name not in floats]
        self.floats = [average[name] for name in floats], [state[name] for name in floats]
        self.others = [average[name] for name in others], [state[name] for name in others]

    def update(self, weight: float) -> None:
        """Move the average toward the model; counters are copied."""
        torch._foreach_lerp_(*self.floats, weight)
        torch._foreach_copy_(*self.others)


def _copy_state(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def evaluated_weights(learn: Learner) -> dict[str, Tensor]:
    """Return the state dict that validation uses: the average if there is one, else the current weights."""
    ema = find_callback(learn, ExponentialMovingAverage)
    if ema is not None and ema.average is not None:
        return ema.average
    weights: dict[str, Tensor] = learn.model.state_dict()
    return weights
