"""fastai transforms of the data block: loading rows, splitting protocols, resizing, normalizing points.

Points are in pixels of the image until `NormalizePoints`, their last step, whose `decodes` maps them back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.vision.all import (
    DisplayedTransform,
    ItemTransform,
    PILImage,
    TensorImage,
    TensorPoint,
    Transform,
)
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.geometry import center_crop, extract_crop
from landmarks_fastai.networks.coordinates import denormalize_points, normalize_points
from landmarks_fastai.training.resampling import resize_images
from landmarks_fastai.training.shared_images import SharedImages
from landmarks_fastai.utils.images import read_image


class _RowTransform(Transform):
    """Base of transforms that read rows of a data set, which are left out of an exported learner."""

    rows: Any

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the values of the given rows as one batch."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Leave the rows out of an exported learner, but not out of a worker process, which loads them."""
        return {**self.__dict__, "rows": None if get_spawning_popen() is None else self.rows}


class LoadImage(_RowTransform):
    """Load the image of a row of the data set, or any other image, as (C, S, S) uint8.

    Parameters
    ----------
    dataset
        The data set; its `size` is S.
    channels
        C; 1 for gray, 3 for RGB.
    """

    def __init__(self, dataset: LandmarkDataset, channels: int) -> None:
        super().__init__()
        self.rows = SharedImages(dataset.images)
        self.size, self.channels = dataset.size, channels
        self.on_device: Tensor | None = None

    def keep_on(self, device: torch.device) -> None:
        """Copy all images to a device, as bytes, from which batches are then taken."""
        images = self.rows.images
        self.on_device = torch.empty(images.shape, dtype=torch.uint8, device=device)
        start = 0
        for block in images.blocks():
            self.on_device[start : start + len(block)] = torch.from_numpy(np.ascontiguousarray(block))
            start += len(block)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the images on a device, too."""
        return {**super().__getstate__(), "on_device": None}

    def encodes(self, item: object) -> TensorImage:
        """Return the image of a row number, or the center crop of a path, PIL image or array."""
        if isinstance(item, Integral):
            return TensorImage(self.take(np.array([int(item)]))[0])
        pixels = read_image(item) if isinstance(item, (str, Path)) else _to_pixels(item)
        height, width = pixels.shape[:2]
        crop = extract_crop(pixels, center_crop(width, height), self.size, self.channels)
        return TensorImage(torch.from_numpy(crop.transpose(2, 0, 1).copy()))

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (B, C, S, S) uint8 images; gray is repeated if C is 3."""
        if self.on_device is None:
            taken = torch.from_numpy(self.rows.take(rows))
        else:
            taken = self.on_device[torch.from_numpy(rows).to(self.on_device.device, non_blocking=True)]
        images = taken.permute(0, 3, 1, 2)
        return images.expand(-1, self.channels, -1, -1) if images.shape[1] == 1 else images


def _to_pixels(item: object) -> NDArray[np.uint8]:
    """Return a PIL image or array as upright (H, W) or (H, W, 3) uint8."""
    image = item if isinstance(item, Image.Image) else PILImage.create(item)
    upright = ImageOps.exif_transpose(image)
    return np.asarray(upright if upright.mode in ("L", "RGB") else upright.convert("RGB"))


class LoadPoints(_RowTransform):
    """Load the labels of a row of the data set: points in pixels of its image and, if requested, visibility.

    Visibility is a third value of each point, not a tensor of its own: it then follows the point through
    mirroring, cropping and the split of protocols, and fastai still sees one target.

    Parameters
    ----------
    dataset
        The data set.
    visibility
        Load visibility: 1 where a landmark is visible, 0 where it is occluded, NaN where this is not labeled.
    """

    def __init__(self, dataset: LandmarkDataset, visibility: bool = False) -> None:
        super().__init__()
        self.rows = dataset.points
        if visibility:
            self.rows = np.concatenate([dataset.points, dataset.landmarks.visibility[..., None]], 2)

    def encodes(self, row: int) -> TensorPoint:
        """Return the labels of a row number."""
        return TensorPoint(self.take(np.array([row]))[0])

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (B, K, 2) points, or (B, K, 3) with visibility; NaN where unlabeled."""
        return torch.from_numpy(self.rows[rows])


class SplitProtocols(ItemTransform):
    """Assign complete and incomplete rows to two annotation protocols: (B, K, …) labels become (B, 2 K, …).

    The first K are the labels of complete rows and NaN in other rows, the last K those of incomplete rows, so
    that a network with 2 K landmarks learns each protocol from the rows labeled under it.
    """

    order = 19  # before augmentation, which makes rows incomplete when landmarks leave the image
    split_idx = 0

    def encodes(self, batch: Any) -> Any:
        """Split the labels of (images, points)."""
        images, points = batch
        labels = points.as_subclass(Tensor)
        incomplete = labels[..., :2].isnan().any(-1).any(-1)[:, None, None]
        by_protocol = [labels.masked_fill(incomplete, math.nan), labels.masked_fill(~incomplete, math.nan)]
        return images, TensorPoint(torch.cat(by_protocol, 1))


class ResizeToInput(ItemTransform):
    """Resize images and points to the input size of the network, unless augmentation has done so."""

    order = 30

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def encodes(self, batch: Any) -> Any:
        """Resize like the crops of a prediction."""
        image, *labels = batch
        scale = self.size / image.shape[-1]
        if scale == 1:
            return batch
        resized = resize_images(image.as_subclass(Tensor), self.size)
        return (TensorImage(resized), *(map_points(part, self._scale, scale) for part in labels))

    @staticmethod
    def _scale(points: Tensor, scale: float) -> Tensor:
        return (points + 0.5) * scale - 0.5


def map_points(labels: Tensor, function: Callable[[Tensor, Any], Tensor], argument: Any) -> TensorPoint:
    """Apply a function of points and one argument to (…, 2 or 3) labels; visibility stays the same."""
    plain = labels.as_subclass(Tensor)
    return TensorPoint(torch.cat([function(plain[..., :2], argument), plain[..., 2:]], -1))


class NormalizePoints(DisplayedTransform):
    """Map pixels to normalized coordinates, in which the edges of the image are -1 and 1, and back.

    fastai's PointScaler maps the center of pixel 0 to -1, half a pixel off from the convention of
    `grid_sample`.
    """

    order = 40

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def encodes(self, points: TensorPoint) -> TensorPoint:
        """Map pixels of the network input to normalized coordinates."""
        return map_points(points, normalize_points, self.size)

    def decodes(self, points: TensorPoint) -> TensorPoint:
        """Map normalized coordinates to pixels of the network input, without visibility, to show them."""
        return TensorPoint(denormalize_points(points[..., :2], self.size))
