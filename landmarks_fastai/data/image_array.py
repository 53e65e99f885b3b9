"""`ImageArray`, the images of a data set, in memory or in a memory-mapped file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Rows = NDArray[np.int64]

BLOCK = 256
"""Number of images that `ImageArray.blocks` loads at a time."""


class ImageArray:
    """N square images of one size, of which only those that are indexed are loaded.

    Parameters
    ----------
    pixels
        (M, S, S, C) uint8, C = 1 (gray) or 3 (RGB); may be memory-mapped (`open_images`).
    rows
        (N,) int64, index in `pixels` of each image; all M images in order if None.
    ids
        (M,) uint64, the `image_id` of the source image of each of `pixels`; computed from `pixels`, when they
        are needed, if None.
    """

    def __init__(
        self, pixels: Pixels, rows: Rows | None = None, ids: NDArray[np.uint64] | None = None
    ) -> None:
        self.pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else rows
        self._ids = ids

    @classmethod
    def of(cls, images: Pixels | ImageArray) -> ImageArray:
        """Return `images` as an `ImageArray`."""
        return images if isinstance(images, ImageArray) else cls(images)

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, S, S, C)."""
        return (len(self), *self.pixels.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of dimensions, 4."""
        return self.pixels.ndim

    @property
    def ids(self) -> NDArray[np.uint64]:
        """(N,) uint64, the `image_id` of the image that each image was cropped from."""
        if self._ids is None:
            self._ids = np.array([image_id(image) for image in self.pixels], np.uint64)
        return np.asarray(self._ids[self.rows])

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | list[int]) -> Pixels: ...
    def __getitem__(self, index: Any) -> Pixels:
        """Load one image (S, S, C), or those of a slice, indices or a mask (n, S, S, C)."""
        return np.array(self.pixels[self.rows[index]])

    def __iter__(self) -> Iterator[Pixels]:
        """Load one image after the other."""
        return (image for block in self.blocks() for image in block)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Load all images."""
        return self[:] if dtype is None else self[:].astype(dtype)

    def blocks(self, size: int = BLOCK) -> Iterator[Pixels]:
        """Load `size` images at a time, in order."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def select(self, rows: Rows) -> ImageArray:
        """Return the images of the given indices, without loading them."""
        return ImageArray(self.pixels, self.rows[rows], self._ids)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a memory-mapped file as its path, and an array in memory as the selected images."""
        if isinstance(self.pixels, np.memmap) and self.pixels.filename is not None:
            return _reopen, (str(self.pixels.filename), self.rows, self._ids)
        return ImageArray, (self[:], None, None if self._ids is None else self.ids)


def open_images(path: Path) -> NDArray[np.uint8]:
    """Open a ``.npy`` file of images without loading it.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is truncated, or contains something else.
    """
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise ValueError(f"{path}: not images")
    return np.asarray(pixels) if not pixels.size else pixels


def _reopen(path: str, rows: Rows, ids: NDArray[np.uint64] | None) -> ImageArray:
    return ImageArray(open_images(Path(path)), rows, ids)


def image_id(pixels: Pixels) -> np.uint64:
    """Return a hash of an image's content, the same for gray stored as one channel and as three equal ones.

    Parameters
    ----------
    pixels
        (H, W, 1) or (H, W, 3) uint8.

    Returns
    -------
    uint64
        The first 64 bits of BLAKE2b: the chance that any two of a million images have the same is 3e-8.
    """
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).data)
    return np.uint64(int.from_bytes(digest.digest(), "big"))
