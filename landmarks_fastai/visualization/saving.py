"""Writing images and figures as PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.visualization.style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_png(path: str | Path, image: NDArray[np.uint8] | Figure) -> None:
    """Write an image or a figure as PNG, atomically; an existing file is replaced.

    Parameters
    ----------
    path
        The file; its folder is created if needed.
    image
        (H, W, 3) or (H, W) uint8, or a matplotlib figure.

    Raises
    ------
    UserError, RunError
        If it cannot be written; see `atomic_write`.
    """
    data = encode_png(image)
    with atomic_write(Path(path)) as partial:
        partial.write_bytes(data)


def encode_png(image: NDArray[np.uint8] | Figure) -> memoryview:
    """Return an image or a figure as the bytes of a PNG; see `save_png`."""
    from PIL import Image

    memory = io.BytesIO()
    if isinstance(image, np.ndarray):
        Image.fromarray(image).save(memory, "png")
    else:
        image.savefig(memory, format="png", dpi=STYLE.dpi, facecolor=STYLE.paper)
    return memory.getbuffer()
