"""Gray and color levels of more than 8 bits, scaled to 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.encoded_files import EncodedFile

LOW_DEPTHS = (8, 10, 12, 14)
"""Bits per level of cameras and scanners whose images are stored with 16 bits per level."""

FULL_DEPTH = 16

STRIP_PIXELS = 1 << 22
"""Number of pixels that are converted at a time, so that the copies take little memory."""


def depth_in_use(maximum: float) -> int:
    """Return the smallest of 8, 10, 12, 14 and 16 bits in which the largest level of an image fits.

    A 12-bit camera that stores its levels unchanged as 16 bits uses a sixteenth of the range, and the image
    would be nearly black. An image of all zeros has no levels to scale: 16.
    """
    if maximum <= 0:
        return FULL_DEPTH
    return next((depth for depth in LOW_DEPTHS if maximum <= 2**depth - 1), FULL_DEPTH)


def depth_note(path: Path | EncodedFile, depth: int) -> str:
    """Return the message about an image whose levels were scaled by the bits in use."""
    return f"{path}: 16 bits per level, of which {depth} are in use; {2**depth - 1} is shown as white"


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield parts of a decoded image and the rows that they contain, from top to bottom."""
    rows = max(1, STRIP_PIXELS // max(1, image.width))
    if rows >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def gray_maximum(image: Image.Image, path: Path | EncodedFile) -> float:
    """Return the largest level of a decoded image of 16 bits, or of Pillow's mode I or F.

    Raises
    ------
    UserError
        If a level is NaN or infinite, or if the largest one does not fit in 16 bits.
    """
    maximum = 0.0
    for _, strip in strips(image):
        levels = np.asarray(strip)
        if not np.isfinite(levels).all():
            raise UserError(
                f"{path}: some pixels are NaN or infinite; save it as 8-bit or 16-bit gray or RGB"
            )
        maximum = max(maximum, float(levels.max()))
    if maximum > 2**FULL_DEPTH - 1:
        raise UserError(f"{path}: gray values up to {maximum:g}; save it as 8-bit or 16-bit gray or RGB")
    return maximum


def white_level(mode: str, maximum: float) -> tuple[float, int]:
    """Return the level that becomes 255, and the bits in use.

    Parameters
    ----------
    mode
        Mode of the image in Pillow. Levels of mode F that do not exceed 1 are assumed to range up to 1.
    maximum
        The largest level.
    """
    if mode == "F" and maximum <= 1:
        return 1.0, FULL_DEPTH
    depth = depth_in_use(maximum)
    # 8-bit levels stored as floating-point numbers are no rarity, and not worth a message
    return 2.0**depth - 1, FULL_DEPTH if mode == "F" and depth == min(LOW_DEPTHS) else depth


def to_uint8(levels: NDArray[np.generic], white: float) -> NDArray[np.uint8]:
    """Scale levels from 0 to `white` to uint8; those below 0 become 0."""
    return np.rint(levels.astype(np.float32).clip(0) * (255 / white)).astype(np.uint8)


def is_deep_color(image: Image.Image) -> bool:
    """Return True if a color image that is not decoded yet has 16 bits per level, of which Pillow keeps 8."""
    tiles = getattr(image, "tile", None) or [("", None, 0, "")]
    arguments = tiles[0][3] or ("",)
    raw_mode = arguments if isinstance(arguments, str) else arguments[0]
    return isinstance(raw_mode, str) and raw_mode.startswith(("RGB", "LA")) and ";16" in raw_mode


def read_deep_color(path: Path | EncodedFile) -> NDArray[np.uint16] | None:
    """Return the (H, W, 3 or 4) uint16 RGB or RGBA levels of a PNG or TIFF with 16 bits per level.

    None if OpenCV cannot read it.
    """
    import cv2

    with path.open("rb") as file:
        levels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16 or levels.ndim != 3 or levels.shape[2] not in (3, 4):
        return None
    order = [2, 1, 0, 3][: levels.shape[2]]
    return np.asarray(levels[..., order], np.uint16)
