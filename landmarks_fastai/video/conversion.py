"""Conversion between encoded frames and RGB images: color matrix, pixel aspect ratio and orientation."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av

BT709, UNSPECIFIED, BT601 = 1, 2, 5
"""Codes of color matrices (ITU-T H.273, MatrixCoefficients)."""

MPEG_RANGE = 1
"""FFmpeg's code of the limited color range: luma from 16 to 235."""

HD_HEIGHT = 720
"""Height in pixels from which players assume BT.709."""

MAX_ASPECT = 4
"""Pixel aspect ratios outside 1/4 to 4 are ignored as errors of the file."""


def color_matrix(height: int) -> int:
    """Return the color matrix that players assume for a video of this height that does not specify one."""
    return BT709 if height >= HD_HEIGHT else BT601


class FrameToRGB:
    """Converts the decoded frames of a stream to upright RGB images with square pixels.

    Parameters
    ----------
    frame
        A decoded frame of the stream; its display matrix applies to all frames.
    aspect
        Width of a pixel divided by its height; None if the stream does not state it.

    Attributes
    ----------
    size
        Width and height of the images, pixels.
    """

    def __init__(self, frame: av.VideoFrame, aspect: Fraction | None) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._scaled_size = _square_pixel_size(frame, aspect)
        self._matrix = _display_matrix(frame)
        height, width = self(frame).shape[:2]
        self.size = width, height

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 RGB image of a frame."""
        width, height = self._scaled_size
        rgb = self._reformatter.reformat(
            frame,
            width,
            height,
            format="rgb24",
            src_colorspace=color_matrix(frame.height) if frame.colorspace == UNSPECIFIED else None,
            threads=1,
        )
        return np.ascontiguousarray(_orient(np.asarray(rgb.to_ndarray(), np.uint8), self._matrix))


class RGBToYUV:
    """Converts RGB frames to yuv420p, which every player decodes, with the color matrix for their height."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the converted frame."""
        return self._reformatter.reformat(
            frame,
            format="yuv420p",
            dst_colorspace=color_matrix(frame.height),
            dst_color_range=MPEG_RANGE,
            threads=1,
        )


def rgb_frame(image: NDArray[np.uint8]) -> av.VideoFrame:
    """Return a frame with a copy of an (H, W, 3) uint8 RGB image.

    yuv420p needs an even width and height: an odd one is padded by repeating the last column or row.
    """
    import av

    height, width = image.shape[:2]
    if width % 2 or height % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def _square_pixel_size(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Return the width and height that make pixels square; neither is smaller than the stored one."""
    if aspect is None or not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT:
        return frame.width, frame.height
    return round(frame.width * max(aspect, Fraction(1))), round(frame.height / min(aspect, Fraction(1)))


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    """Return the (2, 2) matrix that maps stored pixels, as rows (x, y), to displayed ones, if any."""
    data = cast(Mapping[str, bytes], frame.side_data).get("DISPLAYMATRIX")  # typed too narrowly by PyAV
    return None if data is None else np.frombuffer(data, np.int32, 9).reshape(3, 3)[:2, :2]


def _orient(image: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Rotate by a multiple of 90 degrees and mirror, as close to the display matrix as possible."""
    if matrix is None:
        return image
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):
        image, matrix = image.swapaxes(0, 1), matrix[::-1]
    return image[:: -1 if matrix[1, 1] < 0 else 1, :: -1 if matrix[0, 0] < 0 else 1]
