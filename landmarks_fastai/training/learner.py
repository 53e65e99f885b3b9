"""From a recipe and a table of faces to fastai's Learner: a composition of parts that stand alone too.

Knows which part a recipe's word stands for; writes nothing.
"""

from __future__ import annotations

import importlib.util
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

from landmarks_fastai.config import Model, Optimizer, Recipe, StandardAugment
from landmarks_fastai.data.split import Split
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.evaluation import box_size, inter_ocular_distance, nme, rmse
from landmarks_fastai.inference.modelfile import ModelHeader
from landmarks_fastai.inference.predictor import torch_device
from landmarks_fastai.network import Stages, build_head, cut_resnet, resnet, scale_points, stage_widths
from landmarks_fastai.schema import Schema
from landmarks_fastai.training.augment import AugmentBatch
from landmarks_fastai.training.blocks import face_dataloaders, pixel_statistics
from landmarks_fastai.training.callbacks import Autocast, AverageWeights, FindLabelShift, PointMetric
from landmarks_fastai.training.losses import MaskedLoss
from landmarks_fastai.training.schedules import ScheduleByStep

IMAGENET_STATS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and standard deviation that torchvision's weights were trained with."""


def choose_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Turn a recipe's `precision` into the type for autocast; None computes in float32.

    `auto` takes bfloat16 where the device multiplies it in hardware. Elsewhere it is emulated: measured
    sixteen times slower than float32 on a CPU without AVX512-BF16.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu":
        fast = torch.backends.cpu.get_cpu_capability() == "AVX512" and _cpu_has_bf16()
        return torch.bfloat16 if fast else None
    return None


def _cpu_has_bf16() -> bool:
    """Ask the CPU for AVX512-BF16 or AMX; torch's question has no public name yet."""
    asks = [
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(ask() for ask in asks if ask is not None)


def build_learner(recipe: Recipe, table: FaceTable, split: Split, folder: Path) -> Learner:
    """Build the learner that a recipe describes.

    Parameters
    ----------
    recipe
        Every choice.
    table, split
        The faces, and which rows train and which validate.
    folder
        fastai's `path`: `learn.export()` writes there.

    Returns
    -------
    Learner
        With `header`, the model file's header as a JSON-able dict.

    Raises
    ------
    UserError
        If the recipe asks for what is not there: an architecture, a device.
    RunError
        If the ImageNet weights can't be fetched.
    """
    device = torch.device(torch_device(recipe.training.device))
    channels = 3 if recipe.model.pretrained else table.channels
    if recipe.model.pretrained:
        mean, std = IMAGENET_STATS
    else:
        mean, std = pixel_statistics(table.images[split.train], channels)
    dls = face_dataloaders(table, split, recipe, mean, std, folder, device)
    learn = _vision_learner(recipe, dls, table, channels)
    mean_face = np.nan_to_num(_mean_face(table, split.train), nan=(table.size - 1) / 2)
    scaled_face = scale_points(torch.from_numpy(mean_face).float(), table.size)
    learn.model[1].start_at(scaled_face)
    learn.remove_cbs([ProgressCallback])
    dtype = choose_precision(recipe.training.precision, device)
    if dtype is not None:
        learn.add_cb(Autocast(device.type, dtype))
    learn.header = ModelHeader(
        arch=recipe.model.arch,
        head=head_options(recipe.model),
        channels=channels,
        input_size=recipe.model.input_size,
        mean=mean,
        std=std,
        schema=table.schema,
        mean_face=[(round(x, 5), round(y, 5)) for x, y in ((scaled_face + 1) / 2).tolist()],
        recipe=recipe.model_dump(),
    ).to_dict()
    return learn


def head_options(model: Model) -> dict[str, object]:
    """Return what `build_head` takes, and the model file's header keeps."""
    options = {**model.head.model_dump(), "scales": model.confidence}
    return {**options, "two_schemes": True} if model.two_schemes else options


def _mean_face(table: FaceTable, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of each point (K, 2) over the rows where it is labelled; NaN where it never is."""
    points = table.points[rows].astype(np.float64)
    count = (~np.isnan(points)).sum(0)
    return np.where(count > 0, np.nansum(points, 0) / np.maximum(count, 1), np.nan)


def _vision_learner(recipe: Recipe, dls: DataLoaders, table: FaceTable, channels: int) -> Learner:
    arch = resnet(recipe.model.arch)
    with torch.device("meta"):
        widths = stage_widths(cut_resnet(arch(weights=None)))
    try:
        learn = vision_learner(
            dls,
            arch,
            normalize=False,  # face_dataloaders has added it, with the right statistics
            n_out=2 * len(table.schema),
            pretrained=recipe.model.pretrained,
            n_in=channels,
            custom_head=build_head(head_options(recipe.model), widths, len(table.schema)),
            init=None,  # fastai's would overwrite the head's own
            loss_func=MaskedLoss(recipe.training.loss),
            opt_func=_optimizer(recipe.training.optimizer),
            wd=recipe.training.optimizer.weight_decay,
            metrics=point_metrics(table.schema, table.size),
            cbs=_callbacks(recipe, dls),
        )
    except OSError as error:  # urllib's errors are OSErrors
        raise RunError(
            f"model.pretrained: the ImageNet weights of {recipe.model.arch} can't be fetched ({error});"
            f" connect to a network once, or put the file into {torch.hub.get_dir()}/checkpoints,"
            " or train from scratch with --set model.pretrained=false"
        ) from error
    learn.model[0] = Stages(*learn.model[0])  # the same layers; heads may look at every stage
    learn.unfreeze()
    return learn


class TorchOptimizer(OptimWrapper):
    """fastai's wrapper of a torch optimiser that shows its numbers alone: loggers stumble over the rest."""

    @property
    def hypers(self) -> list[dict[str, float]]:
        """Return rate, momentum and the like of each parameter group."""
        return [
            {name: value for name, value in group.items() if type(value) is float} for group in super().hypers
        ]


def _optimizer(options: Optimizer) -> Callable[..., OptimWrapper]:
    """Return torch's own optimiser, as fastai takes it."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return partial(TorchOptimizer, opt=partial(kinds[options.name], fused=True))


def augmentation(dls: DataLoaders) -> AugmentBatch:
    """Return the transform that augments the training batches."""
    return next(step for step in dls.train.after_batch.fs if isinstance(step, AugmentBatch))


def _callbacks(recipe: Recipe, dls: DataLoaders) -> list[Callback]:
    """Return what the recipe asks for; what watches and writes a run is added by `run.py`."""
    callbacks: list[Callback] = [ScheduleByStep(recipe.training.schedule), ChannelsLast()]
    augment = augmentation(dls)
    if augment.flip and isinstance(recipe.augment, StandardAugment) and recipe.augment.label_shift is None:
        callbacks.append(FindLabelShift(augment))
    if recipe.training.ema:
        callbacks.append(AverageWeights(recipe.training.ema))
    if recipe.training.patience is not None:
        callbacks.append(EarlyStoppingCallback(monitor="valid_loss", patience=recipe.training.patience))
    return callbacks


def logging_callbacks(recipe: Recipe, folder: Path) -> list[Callback]:
    """Return fastai's callbacks for TensorBoard and Weights & Biases, where the recipe asks for them.

    Raises
    ------
    UserError
        If their package is not installed.
    """
    callbacks: list[Callback] = []
    if recipe.training.tensorboard:
        _require("tensorboard", "training.tensorboard")
        from fastai.callback.tensorboard import TensorBoardCallback

        callbacks.append(TensorBoardCallback(folder / "tensorboard", trace_model=False, log_preds=False))
    if recipe.training.wandb is not None:
        _require("wandb", "training.wandb")
        import wandb
        from fastai.callback.wandb import WandbCallback

        wandb.init(project=recipe.training.wandb, dir=folder, config=recipe.model_dump())
        callbacks.append(WandbCallback(log=None, log_preds=False, log_model=False))
    return callbacks


def _require(package: str, option: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{option}: the package {package} is not installed; pip install {package}")


def point_metrics(schema: Schema, size: int) -> list[PointMetric]:
    """Return RMSE in pixels of the source image, and NME by inter-ocular distance (by box without eyes)."""

    def mean_nme(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> float:
        by = box_size(true) if schema.inter_ocular is None else inter_ocular_distance(true, schema)
        each = nme(predicted, true, by)
        return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")

    return [PointMetric("rmse", rmse, size), PointMetric("nme", mean_nme, size)]
