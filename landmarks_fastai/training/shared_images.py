"""The images of a data set as worker processes of a DataLoader read them: without a copy of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landmarks_fastai.data.image_array import ImageArray


class SharedImages:
    """N images that are pickled as the path of their file, or else as a reference to shared memory.

    A process that is started with the methods spawn or forkserver gets its data by pickling. Images in memory
    (`load_or_build` keeps them there if the cache is not writable) are therefore moved to shared memory, once
    for all processes.

    Parameters
    ----------
    images
        The images.
    """

    def __init__(self, images: ImageArray) -> None:
        self.images = images
        self._shared: Tensor | None = None

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Load the images of the given rows, (n, S, S, C)."""
        return self.images[rows]

    def __getstate__(self) -> ImageArray | Tensor:
        """Return the images if they are memory-mapped, else a tensor in shared memory.

        A tensor is pickled as a reference by the pickler that starts processes, and by value by others.
        """
        if isinstance(self.images.pixels, np.memmap):
            return self.images
        if self._shared is None:
            empty = torch.empty(self.images.shape, dtype=torch.uint8)
            self._shared = empty.share_memory_()  # type: ignore[no-untyped-call]
            pixels, start = self._shared.numpy(), 0
            for block in self.images.blocks():  # a single copy would need the memory twice
                pixels[start : start + len(block)] = block
                start += len(block)
        return self._shared

    def __setstate__(self, state: Any) -> None:
        """Restore the images in the new process."""
        self.images = ImageArray(state.numpy()) if isinstance(state, Tensor) else state
        self._shared = None
