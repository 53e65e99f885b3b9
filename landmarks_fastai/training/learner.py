"""Building fastai's Learner from a config and a data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastai.vision.learner import vision_learner
from numpy.typing import NDArray
from torch import Tensor

from landmarks_fastai.config.options import ModelConfig, OptimizerConfig, TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.errors import RunError
from landmarks_fastai.evaluation.metrics import nme, normalizing_distance, rmse
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.networks.coordinates import normalize_points
from landmarks_fastai.networks.heads import build_head
from landmarks_fastai.networks.resnet import ResNetStages, get_resnet, resnet_stages, stage_channels
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.training.augmentation import AugmentBatch
from landmarks_fastai.training.callbacks import LandmarkMetric
from landmarks_fastai.training.dataloaders import (
    IMAGENET_STATISTICS,
    PixelStatistics,
    build_dataloaders,
    learns_visibility,
    pixel_statistics,
)
from landmarks_fastai.training.distributed import local_device
from landmarks_fastai.training.ema import ExponentialMovingAverage
from landmarks_fastai.training.gpu_images import keep_images_on_gpu
from landmarks_fastai.training.label_bias import EstimateLabelBias
from landmarks_fastai.training.losses import MaskedLoss
from landmarks_fastai.training.precision import Autocast, choose_kernels, choose_precision
from landmarks_fastai.training.schedules import ScheduleByStep


def build_learner(config: TrainConfig, dataset: LandmarkDataset, split: Split, folder: Path) -> Learner:
    """Build the learner for a config.

    Parameters
    ----------
    config
        The config.
    dataset, split
        The data set, and its training and validation rows.
    folder
        `Learner.path` of fastai: the folder that `learn.export()` writes to.

    Returns
    -------
    Learner
        Its attribute `header` is the model file's header as JSON-serializable values (`ModelHeader.to_dict`).

    Raises
    ------
    UserError
        If there is no such architecture or device, or the data does not fit the config.
    RunError
        If pretrained weights cannot be downloaded.
    """
    device = torch.device(local_device(config.training.device))
    if config.model.pretrained:
        statistics = IMAGENET_STATISTICS
    else:
        statistics = pixel_statistics(dataset.images.select(split.train), dataset.channels)
    dls = build_dataloaders(dataset, split, config, statistics, path=folder, device=device)
    keep_images_on_gpu(dls, config.training.workers)
    head = head_options(config.model, learns_visibility(config, dataset, split))
    learn = _vision_learner(config, dls, dataset, statistics.channels, head)
    mean_shape = _mean_shape(dataset, split.train)
    learn.model[1].initialize_output(mean_shape)
    learn.remove_cbs([ProgressCallback])
    choose_kernels(config.training.precision, device, config.training.reproducible)
    dtype = choose_precision(config.training.precision, device)
    if dtype is not None:
        learn.add_cb(Autocast(device.type, dtype))
    learn.header = _header(config, statistics, dataset, mean_shape, head).to_dict()
    return learn


def _header(
    config: TrainConfig,
    statistics: PixelStatistics,
    dataset: LandmarkDataset,
    mean_shape: Tensor,
    head: dict[str, object],
) -> ModelHeader:
    """Return the header of the model file with the entries that are known before training."""
    fractions = [(round(x, 5), round(y, 5)) for x, y in ((mean_shape + 1) / 2).tolist()]
    return ModelHeader(
        arch=config.model.arch,
        head=head,
        channels=statistics.channels,
        input_size=config.model.input_size,
        image_size=dataset.size,
        mean=list(statistics.mean),
        std=list(statistics.std),
        schema=dataset.schema,
        mean_shape=fractions,
        config=config.model_dump(),
    )


def head_options(model: ModelConfig, visibility: bool = False) -> dict[str, object]:
    """Return the options of the head in the form that `build_head` takes and the header stores."""
    options = {**model.head.model_dump(), "scales": model.confidence}
    if visibility:
        options["visibility"] = True
    return {**options, "two_protocols": True} if model.two_protocols else options


def _mean_shape(dataset: LandmarkDataset, rows: NDArray[np.int64]) -> Tensor:
    """Return the (K, 2) mean of each landmark over the rows where it is labeled, in normalized coordinates.

    A landmark that is labeled in no row is at the center.
    """
    points = dataset.points[rows].astype(np.float64)
    count = (~np.isnan(points)).sum(0)
    mean = np.where(count > 0, np.nansum(points, 0) / np.maximum(count, 1), (dataset.size - 1) / 2)
    return normalize_points(torch.from_numpy(mean).float(), dataset.size)


def _vision_learner(
    config: TrainConfig,
    dls: DataLoaders,
    dataset: LandmarkDataset,
    channels: int,
    head: dict[str, object],
) -> Learner:
    """Return fastai's vision_learner with the backbone, head, loss, optimizer and metrics of the config."""
    arch = get_resnet(config.model.arch)
    with torch.device("meta"):
        backbone_channels = stage_channels(resnet_stages(arch(weights=None)))
    try:
        learn = vision_learner(
            dls,
            arch,
            normalize=False,  # build_dataloaders has added it
            n_out=2 * len(dataset.schema),
            pretrained=config.model.pretrained,
            n_in=channels,
            custom_head=build_head(head, backbone_channels, len(dataset.schema)),
            init=None,  # fastai's initialization would overwrite that of the head
            loss_func=MaskedLoss(config.training.loss),
            opt_func=_optimizer(config.training.optimizer),
            wd=config.training.optimizer.weight_decay,
            metrics=landmark_metrics(dataset.schema, dataset.size),
            cbs=_callbacks(config, dls),
        )
    except OSError as error:  # urllib's errors are OSErrors
        raise RunError(
            f"model.pretrained: the ImageNet weights of {config.model.arch} cannot be downloaded ({error});"
            f" connect to the internet once, copy the file to {torch.hub.get_dir()}/checkpoints,"
            " or train from scratch with --set model.pretrained=false"
        ) from error
    learn.model[0] = ResNetStages(*learn.model[0])  # the same layers, but it returns every stage
    learn.unfreeze()
    return learn


class TorchOptimizer(OptimWrapper):
    """fastai's wrapper of a torch optimizer, with only the numeric hyperparameters.

    Loggers fail on other values of a parameter group, such as `fused=True`.
    """

    @property
    def hypers(self) -> list[dict[str, float]]:
        """The hyperparameters of each parameter group that are floats, such as the learning rate."""
        return [
            {name: value for name, value in group.items() if type(value) is float} for group in super().hypers
        ]


def _optimizer(options: OptimizerConfig) -> Callable[..., OptimWrapper]:
    """Return a function that creates the optimizer, for fastai's `opt_func`."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return partial(TorchOptimizer, opt=partial(kinds[options.name], fused=True))


def get_augmentation(dls: DataLoaders) -> AugmentBatch:
    """Return the transform that augments the training batches."""
    return next(step for step in dls.train.after_batch.fs if isinstance(step, AugmentBatch))


def _callbacks(config: TrainConfig, dls: DataLoaders) -> list[Callback]:
    """Return the callbacks that affect the weights; `run.py` adds those that report and write files."""
    callbacks: list[Callback] = [ScheduleByStep(config.training.schedule), ChannelsLast()]
    augment = get_augmentation(dls)
    if augment.estimates_label_bias:
        callbacks.append(EstimateLabelBias(augment))
    if config.training.ema:
        callbacks.append(ExponentialMovingAverage(config.training.ema))
    if config.training.patience is not None:
        callbacks.append(EarlyStoppingCallback(monitor="valid_loss", patience=config.training.patience))
    return callbacks


def landmark_metrics(schema: LandmarkSchema, size: int) -> list[LandmarkMetric]:
    """Return the metrics of the history: the RMSE in pixels of images of side `size`, and the NME.

    The NME is normalized by `normalizing_distance`.
    """

    def mean_nme(predicted: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
        by_row = nme(predicted, labels, normalizing_distance(labels, schema))
        return float(np.nanmean(by_row)) if np.isfinite(by_row).any() else float("nan")

    return [LandmarkMetric("rmse", rmse, size), LandmarkMetric("nme", mean_nme, size)]
