"""The fastai callback that trains one model in several processes, each with a part of every batch.

fastai's own `DistributedTrainer` hands single rows to the loaders, needs a GPU for the order of the rows, and
replaces `learn.model`, so that the names of all weights change. Here, the batches are those of a single
process with the same config: the same rows, with the same mean of the loss over all labeled coordinates.
"""

from __future__ import annotations

from inspect import signature
from itertools import chain
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from landmarks_fastai.errors import UserError
from landmarks_fastai.training.callbacks import LandmarkMetric, find_callback
from landmarks_fastai.training.distributed import Processes
from landmarks_fastai.training.ema import ExponentialMovingAverage
from landmarks_fastai.training.label_bias import EstimateLabelBias
from landmarks_fastai.training.reporting import EpochLog
from landmarks_fastai.utils.interrupt import Interrupt

MIN_ROWS = 2
"""Smallest number of rows of an iteration per process, because batch normalization needs a variance."""


class TrainInParallel(Callback):
    """Divide every batch among the processes, and share what must be the same in all of them.

    - Gradients are averaged by torch's DistributedDataParallel, which only the forward pass of training uses.
    - Losses are means over all processes, weighted by the number of labeled coordinates.
    - Batch normalization uses the statistics of all processes on GPUs (SyncBatchNorm, as in fastai), and
      those of its own process on CPUs, for which torch has no such layer. Running statistics are averaged.
    - The label bias is the average; metrics are computed from the predictions of all processes.

    Parameters
    ----------
    processes
        The processes.
    interrupt
        Ctrl-C or SIGTERM in this process.

    Attributes
    ----------
    agreed
        Requests a stop in all processes at the same iteration, after the interrupt of one of them.
    """

    order = 45  # before fastai's Recorder and the callbacks that read losses and metrics, and before the EMA

    def __init__(self, processes: Processes, interrupt: Interrupt) -> None:
        self.processes, self.interrupt = processes, interrupt
        self.agreed = Interrupt()

    def before_fit(self) -> None:
        """Divide the batches, and prepare the model."""
        self.divided = list(self.dls.loaders)
        for loader in self.divided:
            loader.processes = self.processes
        device = self.dls.device
        on_gpu = device.type == "cuda"
        self.replaced = synchronize_batch_norm(self.model) if on_gpu else {}
        self.parallel = DistributedDataParallel(
            self.model, device_ids=[device] if on_gpu else None, **_keep_buffers()
        )

    def before_batch(self) -> None:
        """Let the forward pass of training prepare the exchange of gradients."""
        if self.training:
            self.learn.model = self.parallel

    def after_pred(self) -> None:
        """Put the model itself back."""
        if self.training:
            self.learn.model = self.parallel.module

    def after_loss(self) -> None:
        """Weight the loss, so that the gradients average to the gradient of the mean over all labels."""
        if not self.training:
            return
        loss = self.learn.loss_grad
        labeled = (~self.learn.y.as_subclass(Tensor)[..., :2].isnan()).sum().to(loss.dtype)
        summed = self.processes.total(torch.stack([loss.detach().as_subclass(Tensor) * labeled, labeled]))
        total, count = summed.unbind()
        self.learn.loss_grad = loss * (labeled * self.processes.count / count.clamp(min=1))
        self.learn.loss = total / count.clamp(min=1)

    def after_batch(self) -> None:
        """Share label bias and interrupts."""
        if self.training:
            self._share()

    def before_validate(self) -> None:
        """Average the running statistics of batch normalization, of the model and of its EMA."""
        buffers = dict(self.model.named_buffers())
        ema = find_callback(self.learn, ExponentialMovingAverage)
        averaged = {} if ema is None or ema.average is None else ema.average
        self._average([*buffers.values(), *(averaged[name] for name in buffers if name in averaged)])

    def after_validate(self) -> None:
        """Collect losses and predictions of all processes."""
        loss = self.recorder.loss
        totals = self.processes.gather((float(loss.total), int(loss.count)))
        loss.total, loss.count = sum(total for total, _ in totals), sum(count for _, count in totals)
        for metric in self.metrics:
            if isinstance(metric, LandmarkMetric):
                metric.predicted = self._gather_batches(metric.predicted)
                metric.labels = self._gather_batches(metric.labels)

    def after_epoch(self) -> None:
        """Share interrupts, and the losses of training that only the log uses."""
        self._share()
        log = find_callback(self.learn, EpochLog)
        if log is not None:
            log.evaluated_losses = list(chain(*self.processes.gather(log.evaluated_losses)))

    def after_fit(self) -> None:
        """Restore loaders and model for the use in this process alone."""
        for loader in self.divided:
            del loader.processes
        restore_modules(self.model, self.replaced)
        del self.parallel

    def _share(self) -> None:
        """Average the label bias, and let all processes know whether one of them was interrupted."""
        bias = find_callback(self.learn, EstimateLabelBias)
        label_bias = 0.0 if bias is None else float(bias.augment.label_bias)
        shared = self.processes.total(
            torch.tensor([label_bias, float(self.interrupt.requested)], dtype=torch.float64)
        )
        if bias is not None:
            bias.augment.label_bias = float(shared[0]) / self.processes.count
        self.agreed.requested = bool(shared[1] > 0)

    def _average(self, tensors: list[Tensor]) -> None:
        """Replace tensors of floats by their averages over the processes."""
        floats = [tensor for tensor in tensors if tensor.dtype.is_floating_point]
        if not floats:
            return
        flat = self.processes.total(torch.cat([tensor.flatten() for tensor in floats]))
        parts = torch.split(flat / self.processes.count, [tensor.numel() for tensor in floats])
        for tensor, average in zip(floats, parts, strict=True):
            tensor.copy_(average.view_as(tensor))

    def _gather_batches(self, batches: list[Tensor]) -> list[Tensor]:
        """Return the validation batches of all processes in the order of a single process."""
        parts = self.processes.gather(batches)
        return [part[number] for number in range(len(parts[0])) for part in parts if number < len(part)]


def prepare_parallel(learn: Learner, processes: Processes, seed: int) -> None:
    """Give each process random numbers of its own, and check that there are enough rows for all.

    The main process keeps its generators, so that its order of the rows is that of a single process.

    Raises
    ------
    UserError
        If an iteration has too few rows.
    """
    rows = learn.dls.train.bs
    if rows // processes.count < MIN_ROWS:
        raise UserError(
            f"training.batch_size: {rows} rows per iteration are not enough for {processes.count} processes,"
            f" which need {MIN_ROWS} each; start fewer processes, or use a larger --batch-size"
        )
    if not processes.is_main:
        set_seed((seed + 7919 * processes.rank) % 2**32, reproducible=True)


def _keep_buffers() -> dict[str, Any]:
    """Return the option of torch to leave the running statistics of each process alone in a forward pass."""
    recent, former = "forward_sync_buffers", "broadcast_buffers"
    return {recent if recent in signature(DistributedDataParallel).parameters else former: False}


def synchronize_batch_norm(model: nn.Module) -> dict[str, nn.Module]:
    """Replace batch normalization by SyncBatchNorm with the same tensors; return the former layers."""
    replaced: dict[str, nn.Module] = {
        name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)
    }
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return replaced


def restore_modules(model: nn.Module, modules: dict[str, nn.Module]) -> None:
    """Put modules back into a model, under their dotted names."""
    for name, module in modules.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, module.train(model.training))
