"""fastai DataLoaders of a landmark data set.

The images are memory-mapped uint8, and each batch is indexed in one step, without Python code per row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.load import DataLoader
from fastai.torch_core import to_detach
from fastai.vision.all import (
    DataBlock,
    DataLoaders,
    IntToFloatTensor,
    Normalize,
    TensorImage,
    TensorPoint,
    TfmdDL,
    TransformBlock,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.annotations import OCCLUDED, VISIBLE
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.data.splits import Split
from landmarks_fastai.errors import UserError
from landmarks_fastai.training.augmentation import AugmentBatch
from landmarks_fastai.training.distributed import SINGLE_PROCESS, Processes
from landmarks_fastai.training.schema_checks import check_mirroring
from landmarks_fastai.training.transforms import (
    LoadImage,
    LoadPoints,
    NormalizePoints,
    ResizeToInput,
    SplitProtocols,
)
from landmarks_fastai.utils.interrupt import STOP_SIGNALS, blocked_signals, obey_only_parent

ITEM_TYPES = (np.integer, int, str, Path, Image.Image, np.ndarray)
"""Types that `LoadImage` accepts."""


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and standard deviation of the pixel values, from 0 to 1, by which images are normalized.

    Parameters
    ----------
    mean, std
        One value per input channel of the network.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB."""
        return len(self.mean)


IMAGENET_STATISTICS = PixelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The statistics with which torchvision's pretrained weights were trained."""


def pixel_statistics(images: ImageArray, channels: int) -> PixelStatistics:
    """Return the statistics of (N, S, S, C) uint8 images; those of gray images are repeated for RGB."""
    # 500 images or more give three digits; converting all of them to floats would need a lot of memory
    sample = images[:: max(1, len(images) // 500)] / np.float32(255)
    mean = np.broadcast_to(sample.mean((0, 1, 2)), channels)
    std = np.broadcast_to(sample.std((0, 1, 2)), channels)
    return PixelStatistics(
        tuple(round(float(x), 6) for x in mean), tuple(max(round(float(x), 6), 1e-3) for x in std)
    )


class BatchedIndexLoader(TfmdDL):
    """A fastai DataLoader that takes each batch from the data set by index, in one step.

    Parameters
    ----------
    multiplier
        Number of times each row is used per epoch. Loaders that `new` creates from this one use each row
        once, so that predictions on the training set are not repeated.

    The other parameters are those of fastai's `TfmdDL`.

    Attributes
    ----------
    processes
        The processes that share an epoch. Each gets a part of every batch, so that together they use the
        batches of a single process. In validation, whose last batch can be smaller, each gets whole batches.
    """

    processes: Processes = SINGLE_PROCESS

    def __init__(
        self,
        dataset: Any,
        bs: int = 64,
        shuffle: bool = False,
        num_workers: int | None = None,
        verbose: bool = False,
        do_setup: bool = True,
        multiplier: int = 1,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("n") is None:
            kwargs["n"] = len(dataset) * multiplier
        super().__init__(dataset, bs, shuffle, num_workers, verbose, do_setup, **kwargs)

    def get_idxs(self) -> NDArray[np.int64]:
        """Return the order of the rows in an epoch, shuffled by torch's generator, which checkpoints save."""
        order = self.processes.broadcast(torch.randperm(self.n)) if self.shuffle else torch.arange(self.n)
        return order.numpy() % max(len(self.dataset), 1)

    def sample(self) -> Iterator[NDArray[np.int64]]:
        """Return an iterator over the batches of indices of this worker process."""
        order = np.asarray(self._DataLoader__idxs)  # set by fastai's __iter__ in the main process
        stop = len(order) - len(order) % self.bs if self.drop_last else len(order)
        batches = range(0, stop, self.bs)
        rank, count = self.processes.rank, self.processes.count
        if self.drop_last:
            taken = (order[start : start + self.bs] for start in batches[self.offs :: self.num_workers])
            return (np.array_split(rows, count)[rank] for rows in taken) if count > 1 else taken
        whole = batches[rank::count][self.offs :: self.num_workers]
        return (order[start : start + self.bs] for start in whole)

    def create_batches(self, samps: Iterator[NDArray[np.int64]]) -> Iterator[tuple[Tensor, ...]]:
        """Yield the batch of each array of indices."""
        items = self.dataset.items
        if isinstance(items, np.ndarray) and np.issubdtype(items.dtype, np.integer):
            yield from (self._take(items[indices]) for indices in samps)
        else:  # files or arrays given to test_dl, which are loaded one at a time
            for indices in samps:
                yield self.do_batch([self.do_item(int(index)) for index in indices])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the transforms of batches, whose tensors may be on a GPU, out of worker processes."""
        state = dict(vars(self))
        if get_spawning_popen() is not None:
            del state["after_batch"]
        return state

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches; workers inherit blocked signals, until `wif` decides what the signals do."""
        batches = super().__iter__()
        with blocked_signals(STOP_SIGNALS if self.fake_l.num_workers else ()):
            first = list(islice(batches, 1))
        yield from first
        yield from batches

    def wif(self) -> None:
        """Make a worker process ignore the signals that end a run; called by fastai in the process.

        A terminal or scheduler sends them to all processes, but only the training process decides when to
        end: at the next batch, which it needs the workers for. It ends its workers by SIGTERM.
        """
        obey_only_parent()

    def to_detach(self, b: Any, cpu: bool = True, gather: bool = True) -> Any:
        """Detach tensors; called by fastai, which would also collect those of all processes."""
        return to_detach(b, cpu, gather=False)

    def _take(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Return the images of the given rows and, if the loader has labels, their points."""
        batch = []
        for pipeline in self.dataset.tls:
            load = next(step for step in pipeline.tfms.fs if isinstance(step, (LoadImage, LoadPoints)))
            kind = TensorImage if isinstance(load, LoadImage) else TensorPoint
            batch.append(kind(load.take(rows)))
        return tuple(batch)

    def chunkify(self, b: Any) -> Any:
        """Return the batches unchanged, because `sample` has already formed them."""
        return b


def image_block(dataset: LandmarkDataset, channels: int, size: int) -> TransformBlock:
    """Return the block of the images: uint8 in memory, floats of side `size` on the device."""
    return TransformBlock(
        type_tfms=LoadImage(dataset, channels),
        batch_tfms=[IntToFloatTensor(), ResizeToInput(size)],
        dl_type=BatchedIndexLoader,
    )


def point_block(dataset: LandmarkDataset, size: int, visibility: bool = False) -> TransformBlock:
    """Return the block of the points; unlike fastai's, it has no half-pixel offset and keeps NaN.

    With `visibility`, each point has a third value, see `LoadPoints`.
    """
    return TransformBlock(type_tfms=LoadPoints(dataset, visibility), batch_tfms=NormalizePoints(size))


def learns_visibility(config: TrainConfig, dataset: LandmarkDataset, split: Split) -> bool:
    """Return True if the network is to predict visibility: training labels are occluded and visible."""
    if not config.model.visibility or dataset.visibility is None:
        return False
    flags = dataset.visibility[split.train]
    return bool((flags == OCCLUDED).any() and (flags == VISIBLE).any())


def scored_rows(dataset: LandmarkDataset, split: Split, two_protocols: bool) -> NDArray[np.int64]:
    """Return the validation rows whose labels follow the annotation protocol that the network predicts.

    With `two_protocols`, these are the complete rows. The labels of the others would count as errors of the
    network: in the validation loss, by which the epoch is chosen, in the calibration, and in the scores.

    Raises
    ------
    UserError
        If there is none.
    """
    if not two_protocols:
        return split.valid
    rows = split.valid[dataset.complete[split.valid]]
    if not len(rows):
        raise UserError(
            f"model.two_protocols: none of the {len(split.valid):,} validation rows is complete, so nothing"
            " can be scored; use a larger data.valid_fraction or another seed"
        )
    return rows


def protocol_notes(dataset: LandmarkDataset, split: Split, two_protocols: bool) -> tuple[str, ...]:
    """Return how many validation rows are not scored, in one line; nothing if all are."""
    left_out = len(split.valid) - len(scored_rows(dataset, split, two_protocols))
    if not left_out:
        return ()
    return (
        f"model.two_protocols: {left_out:,} of the {len(split.valid):,} validation rows are incomplete, so"
        " they follow the other annotation protocol and are not scored",
    )


def worker_notes(workers: int) -> tuple[str, ...]:
    """Return in one line that fastai does not use worker processes on macOS; nothing elsewhere."""
    if workers == 0 or sys.platform != "darwin":
        return ()
    return (f"training.workers: {workers} is not used, because fastai has no worker processes on macOS",)


def build_dataloaders(
    dataset: LandmarkDataset,
    split: Split,
    config: TrainConfig,
    statistics: PixelStatistics,
    *,
    path: Path,
    device: torch.device,
) -> DataLoaders:
    """Build the DataLoaders for training and validation.

    Parameters
    ----------
    dataset, split
        The data set, and its training and validation rows.
    config
        Determines input size, augmentation, batch size, multiplier and workers.
    statistics
        Statistics for normalization; their number of channels is that of the batches.
    path
        `Learner.path` of fastai: the folder that `export` writes to.
    device
        Device of the batches.

    Returns
    -------
    DataLoaders
        Batches of (TensorImage (B, C, S, S), TensorPoint (B, K, 2)), both normalized; (B, K, 3) if the
        network predicts visibility (`learns_visibility`). With `two_protocols`, training batches have 2 K
        points, and validation has the complete rows only (`scored_rows`).

    Raises
    ------
    UserError
        If batch normalization would see a single value per channel, because batches have one row and the
        input is small, or `two_protocols` is set but all training rows are complete or all are incomplete, or
        no validation row is complete.
    """
    size = config.model.input_size
    scored = scored_rows(dataset, split, config.model.two_protocols)
    batch_size = _batch_size(split, config)
    points = point_block(dataset, size, learns_visibility(config, dataset, split))
    block = DataBlock(
        blocks=(image_block(dataset, statistics.channels, size), points),
        get_items=lambda dataset: np.arange(len(dataset)),
        splitter=lambda items: (split.train, scored),
        batch_tfms=[
            *_batch_augmentation(dataset, split, config),
            Normalize.from_stats(list(statistics.mean), list(statistics.std), cuda=False),
        ],
    )
    dls = block.dataloaders(
        dataset,
        path=path,
        bs=batch_size,
        val_bs=128,
        device=device,
        num_workers=config.training.workers,
        dl_kwargs=[{"multiplier": config.data.multiplier, "n": None}, {}],
    )
    for loader in dls.loaders:  # fastai has seen only row numbers, but test_dl takes all that LoadImage takes
        loader.dataset.tls[0].types[0] = ITEM_TYPES
    return dls


def _batch_size(split: Split, config: TrainConfig) -> int:
    """Return the batch size, which is at most the number of rows per epoch."""
    per_epoch = len(split.train) * config.data.multiplier
    batch_size = min(config.training.batch_size, per_epoch)
    size = config.model.input_size
    if batch_size == 1 and size <= 32:  # the last stage is 1 x 1: batch normalization sees a single value
        raise UserError(
            f"training.batch_size: batches of one row cannot be used at {size} px; at least 2 rows per batch"
            f" are needed, and at least 2 training rows per epoch (there are {per_epoch})"
        )
    return batch_size


def _batch_augmentation(
    dataset: LandmarkDataset, split: Split, config: TrainConfig
) -> list[SplitProtocols | AugmentBatch]:
    """Return the transforms of training batches; the flip index covers both protocols if there are two."""
    check_mirroring(dataset.schema, config.augment)
    flip_index = dataset.schema.flip_index
    if not config.model.two_protocols:
        return [AugmentBatch(config.augment, config.model.input_size, flip_index)]
    complete = int(dataset.complete[split.train].sum())
    if complete in (0, len(split.train)):
        raise UserError(
            f"model.two_protocols: {complete:,} of {len(split.train):,} training rows are complete, so there"
            " is only one annotation protocol; set it to false"
        )
    both = (*flip_index, *(index + len(flip_index) for index in flip_index))
    return [SplitProtocols(), AugmentBatch(config.augment, config.model.input_size, both)]


# `sample` uses this name-mangled attribute of fastai; if it is renamed, fail at import, not in an epoch
assert "_DataLoader__idxs" in DataLoader.__iter__.__code__.co_names
