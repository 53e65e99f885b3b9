"""fastai's data block for landmarks: a table of faces in, whole batches out.

The images stand once in memory, as bytes, and a batch is taken whole by index: no Python runs for each
face. Points are pixels of the image until the last step scales them for the network, and `decode` takes
them back. Knows nothing about where faces come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.load import DataLoader
from fastai.vision.all import (
    DataBlock,
    DataLoaders,
    DisplayedTransform,
    IntToFloatTensor,
    ItemTransform,
    Normalize,
    PILImage,
    TensorImage,
    TensorPoint,
    TfmdDL,
    Transform,
    TransformBlock,
)
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from landmarks_fastai.config import Recipe
from landmarks_fastai.data.split import Split
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.images import read_image
from landmarks_fastai.network import scale_points, unscale_points
from landmarks_fastai.training.augment import AugmentBatch

ITEM_TYPES = (np.integer, int, str, Path, Image.Image, np.ndarray)
"""What `FaceImage` makes an image of."""


class FaceImage(Transform):
    """From a row number of the table, or an image of any kind, to a byte image (C, S, S)."""

    def __init__(self, table: FaceTable, channels: int) -> None:
        super().__init__()
        self.table: FaceTable | None = table
        self.size, self.channels = table.size, channels

    def encodes(self, item: object) -> TensorImage:
        """Return the image; one from outside the table is cut to its centred square first."""
        if isinstance(item, Integral) and self.table is not None:
            return TensorImage(self.take(np.array([int(item)]))[0])
        if isinstance(item, (str, Path)):
            item = read_image(item)
        picture = item if isinstance(item, Image.Image) else PILImage.create(item)
        mode = "L" if self.channels == 1 else "RGB"
        upright = ImageOps.exif_transpose(picture).convert(mode)
        square = ImageOps.fit(upright, (self.size, self.size), Image.Resampling.BILINEAR)
        return TensorImage(torch.from_numpy(np.array(square)).view(self.size, self.size, -1).permute(2, 0, 1))

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (B, C, S, S) bytes of the table's rows; gray is repeated where RGB is wanted."""
        assert self.table is not None, "the learner was exported without its faces"
        images = torch.from_numpy(self.table.images[rows]).permute(0, 3, 1, 2)
        return images.expand(-1, self.channels, -1, -1) if images.shape[1] == 1 else images

    def __getstate__(self) -> dict[str, Any]:
        """Leave the faces out of an exported learner."""
        return {**self.__dict__, "table": None}


class FacePoints(Transform):
    """From a row number of the table to its points (K, 2), pixels of the image, NaN where unlabelled."""

    def __init__(self, table: FaceTable) -> None:
        super().__init__()
        self.table: FaceTable | None = table

    def encodes(self, row: int) -> TensorPoint:
        """Return the row's points."""
        return TensorPoint(self.take(np.array([row]))[0])

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (B, K, 2) points of the table's rows."""
        assert self.table is not None, "the learner was exported without its faces"
        return torch.from_numpy(self.table.points[rows])

    __getstate__ = FaceImage.__getstate__


class WholeBatchDL(TfmdDL):
    """A fastai DataLoader that takes a batch of the table by index, in one step.

    Parameters
    ----------
    multiplier
        How often each row comes in an epoch. Acts on the loader it is given to alone; `new` starts
        again at 1, so that predictions on the training set meet each face once.

    The other parameters are fastai's `TfmdDL`'s, which calls this with keywords of its own.
    """

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
        """Return the epoch's order; torch's generator draws it, which a checkpoint keeps."""
        order = torch.randperm(self.n) if self.shuffle else torch.arange(self.n)
        return order.numpy() % max(len(self.dataset), 1)

    def sample(self) -> Iterator[NDArray[np.int64]]:
        """Cut the order into batches, and deal them out to the worker processes."""
        order = np.asarray(self._DataLoader__idxs)  # set by fastai's __iter__, in the main process
        stop = len(order) - len(order) % self.bs if self.drop_last else len(order)
        return (
            order[at : at + self.bs] for at in range(self.offs * self.bs, stop, self.bs * self.num_workers)
        )

    def create_batches(self, samps: Iterator[NDArray[np.int64]]) -> Iterator[tuple[Tensor, ...]]:
        """Make a batch of each array of indices."""
        items = self.dataset.items
        if isinstance(items, np.ndarray) and np.issubdtype(items.dtype, np.integer):
            yield from (self._take(items[index]) for index in samps)
        else:  # a test_dl over files or arrays: one at a time
            for index in samps:
                yield self.do_batch([self.do_item(int(i)) for i in index])

    def _take(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        parts = []
        for one in self.dataset.tls:  # the images' pipeline, and the points' where there are labels
            step = next(step for step in one.tfms.fs if isinstance(step, (FaceImage, FacePoints)))
            kind = TensorImage if isinstance(step, FaceImage) else TensorPoint
            parts.append(kind(step.take(rows)))
        return tuple(parts)

    def chunkify(self, b: Any) -> Any:
        """Leave batches as they are: `sample` has cut them."""
        return b


class SplitSchemes(ItemTransform):
    """Ask complete and incomplete faces for different points: (B, K, 2) labels become (B, 2 K, 2).

    The first K are labelled in faces that have every label, the others in the rest, so that a network with
    two sets of outputs learns each way of labelling from the faces that were labelled so.
    """

    order = 19  # before augmentation moves points out of the frame, which leaves a face incomplete too
    split_idx = 0

    def encodes(self, batch: Any) -> Any:
        """Split the labels of (images, points)."""
        images, points = batch
        plain = points.as_subclass(Tensor)
        partial = plain.isnan().any(-1).any(-1)[:, None, None]
        first, second = plain.masked_fill(partial, math.nan), plain.masked_fill(~partial, math.nan)
        return images, TensorPoint(torch.cat([first, second], 1))


class FitInput(ItemTransform):
    """Bring image and points to the network's input size, where augmentation has not done so."""

    order = 30

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def encodes(self, batch: Any) -> Any:
        """Resize as Pillow does: bilinear, antialiased, edges on edges."""
        image, *points = batch
        scale = self.size / image.shape[-1]
        if scale == 1:
            return batch
        plain = image.as_subclass(Tensor)
        sized = functional.interpolate(plain, size=(self.size,) * 2, mode="bilinear", antialias=True)
        return (TensorImage(sized), *(TensorPoint((part + 0.5) * scale - 0.5) for part in points))


class ScalePoints(DisplayedTransform):
    """From pixels to the network's scale, where the image's edges are -1 and 1, and back.

    fastai's PointScaler puts pixel 0, not the edge, at -1: half a pixel beside what the warps do.
    """

    order = 40

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def encodes(self, points: TensorPoint) -> TensorPoint:
        """Scale pixels of the input to -1 … 1."""
        return TensorPoint(scale_points(points, self.size))

    def decodes(self, points: TensorPoint) -> TensorPoint:
        """Scale -1 … 1 to pixels of the input."""
        return TensorPoint(unscale_points(points, self.size))


def FaceBlock(table: FaceTable, channels: int, size: int) -> TransformBlock:
    """Return the block of the images: bytes in memory, numbers on the device."""
    return TransformBlock(
        type_tfms=FaceImage(table, channels),
        batch_tfms=[IntToFloatTensor(), FitInput(size)],
        dl_type=WholeBatchDL,
    )


def MaskedPointBlock(table: FaceTable, size: int) -> TransformBlock:
    """Return fastai's PointBlock with the half pixel right and NaN for unlabelled points."""
    return TransformBlock(type_tfms=FacePoints(table), batch_tfms=ScalePoints(size))


def pixel_statistics(images: NDArray[np.uint8], channels: int) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, of pixels from 0 to 1."""
    # a few hundred faces tell them to three digits, and converting all would double the memory
    sample = images[:: max(1, len(images) // 500)] / np.float32(255)
    mean = np.broadcast_to(sample.mean((0, 1, 2)), channels)
    std = np.broadcast_to(sample.std((0, 1, 2)), channels)
    return [round(float(x), 6) for x in mean], [max(round(float(x), 6), 1e-3) for x in std]


def face_dataloaders(
    table: FaceTable,
    split: Split,
    recipe: Recipe,
    mean: list[float],
    std: list[float],
    path: Path,
    device: torch.device,
) -> DataLoaders:
    """Build fastai's DataLoaders over a table.

    Parameters
    ----------
    table, split
        The faces, and which rows train and which validate.
    recipe
        Input size, augmentation, batch size, multiplier and workers are read from it.
    mean, std
        Of each channel that the network sees, for pixels from 0 to 1.
    path
        fastai's `Learner.path`: where `export` writes.
    device
        Where batches go.

    Returns
    -------
    DataLoaders
        Batches are (TensorImage (B, C, S, S), TensorPoint (B, K, 2)), normalised and scaled.

    Raises
    ------
    UserError
        If batches of one face are too small for the network, or two schemes are to be told apart where
        there is one.
    """
    size, channels = recipe.model.input_size, len(mean)
    flip_index, steps = table.schema.flip_index, []
    if recipe.model.two_schemes:
        complete = int(table.complete[split.train].sum())
        if complete in (0, len(split.train)):
            raise UserError(
                f"model.two_schemes: {complete:,} of the {len(split.train):,} faces to train on are complete,"
                " so there is one way of labelling; set it to false"
            )
        steps.append(SplitSchemes())
        flip_index = (*flip_index, *(index + len(flip_index) for index in flip_index))
    block = DataBlock(
        blocks=(FaceBlock(table, channels, size), MaskedPointBlock(table, size)),
        get_items=lambda table: np.arange(len(table)),
        splitter=lambda items: (split.train, split.valid),
        batch_tfms=[
            *steps,
            AugmentBatch(recipe.augment, size, flip_index),
            Normalize.from_stats(mean, std, cuda=False),
        ],
    )
    per_epoch = len(split.train) * recipe.data.multiplier
    batch_size = min(recipe.training.batch_size, per_epoch)
    if batch_size == 1 and size <= 32:  # the last stage is one cell: batch normalisation has one value
        raise UserError(
            f"one face a batch can't be learnt from at {size} px: use training.batch_size of at least 2,"
            f" and at least 2 faces to train on (there are {per_epoch})"
        )
    dls = block.dataloaders(
        table,
        path=path,
        bs=batch_size,
        val_bs=128,
        device=device,
        num_workers=recipe.training.workers,
        dl_kwargs=[{"multiplier": recipe.data.multiplier, "n": None}, {}],
    )
    for loader in dls.loaders:  # fastai has seen row numbers alone; `test_dl` takes what FaceImage takes
        loader.dataset.tls[0].types[0] = ITEM_TYPES
    return dls


# the loader relies on this name of fastai's; a rename should fail at import, not in an epoch
assert "_DataLoader__idxs" in DataLoader.__iter__.__code__.co_names
