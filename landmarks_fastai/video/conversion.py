"""Conversion between encoded frames and RGB images: colors, pixel aspect ratio, size and orientation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.video.tone_mapping import HDR_NAMES, ToneMapper, tone_mapper_of

if TYPE_CHECKING:
    import av

BT709, UNSPECIFIED, BT601, BT2020_MATRIX = 1, 2, 5, 9
"""Codes of color matrices (ITU-T H.273, MatrixCoefficients)."""

CONVERTED_MATRICES = frozenset({0, BT709, 4, BT601, 6, 7, BT2020_MATRIX})
"""Codes of the color matrices that FFmpeg's swscale converts; it refuses frames with others."""

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
    """Converts the decoded frames of a stream to upright BT.709 RGB images with square pixels, of one size.

    A frame of another size than the first one is scaled to fit, with black borders.

    Parameters
    ----------
    frame
        A decoded frame of the stream; its display matrix and size apply to all frames.
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
        self._aspect = aspect
        self._scaled_size = _square_pixel_size(frame, aspect)
        self._matrix = _display_matrix(frame)
        self._colors: tuple[int, int] | None = None
        self._tone_mapper: ToneMapper | None = None
        self._refused_matrix: int | None = None
        height, width = self(frame).shape[:2]
        self.size = width, height

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 RGB image of a frame."""
        width, height = self._scaled_size
        fitted = fit_size(_square_pixel_size(frame, self._aspect), self._scaled_size)
        image = self._to_bt709(frame, fitted)
        if fitted != self._scaled_size:
            left, top = (width - fitted[0]) // 2, (height - fitted[1]) // 2
            canvas = np.zeros((height, width, 3), np.uint8)
            canvas[top : top + fitted[1], left : left + fitted[0]] = image
            image = canvas
        return np.ascontiguousarray(_orient(image, self._matrix))

    def has_other_size(self, frame: av.VideoFrame) -> bool:
        """Return True if a frame has to be scaled because the first one had another size."""
        return _square_pixel_size(frame, self._aspect) != self._scaled_size

    def color_notes(self) -> list[str]:
        """Return how the colors of the last frame were converted, and what is inaccurate, one line each."""
        notes = []
        if self._refused_matrix is not None:
            notes.append(
                f"colors may be wrong: color matrix {self._refused_matrix} of ITU-T H.273 is not supported"
            )
        if self._colors is not None and self._tone_mapper is not None:
            name = HDR_NAMES.get(self._colors[0])
            notes.append(f"{name}, tone mapped to BT.709" if name else "BT.2020 colors, converted to BT.709")
        return notes

    def _to_bt709(self, frame: av.VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the frame as RGB of a size, with the colors and the levels of BT.709."""
        colors = (int(frame.color_trc), int(frame.color_primaries))
        if colors != self._colors:
            self._colors, self._tone_mapper = colors, tone_mapper_of(*colors)
        matrix = int(frame.colorspace)
        self._refused_matrix = None
        if matrix not in CONVERTED_MATRICES:
            self._refused_matrix = None if matrix == UNSPECIFIED else matrix
            matrix = BT2020_MATRIX if self._tone_mapper is not None else color_matrix(frame.height)
        pixels = "rgb24" if self._tone_mapper is None else "rgb48le"
        with _only_matrix(frame, matrix):
            rgb = self._reformatter.reformat(frame, *size, format=pixels, threads=1).to_ndarray()
        if self._tone_mapper is None:
            return np.asarray(rgb, np.uint8)
        return self._tone_mapper(np.asarray(rgb, np.uint16))


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
    """Return a frame of an (H, W, 3) uint8 RGB image, whose memory it shares if it can.

    yuv420p needs an even width and height: an odd one is padded by repeating the last column or row.
    """
    import av

    height, width = image.shape[:2]
    if width % 2 or height % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")


@contextmanager
def _only_matrix(frame: av.VideoFrame, matrix: int) -> Iterator[None]:
    """Give a frame a color matrix, and neither transfer function nor primaries, while it is converted.

    PyAV 17 ignores BT.2020 as `src_colorspace`, and refuses frames with reserved codes.
    """
    tags = frame.colorspace, frame.color_trc, frame.color_primaries
    frame.colorspace, frame.color_trc, frame.color_primaries = matrix, UNSPECIFIED, UNSPECIFIED
    try:
        yield
    finally:
        frame.colorspace, frame.color_trc, frame.color_primaries = tags


def _square_pixel_size(frame: av.VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Return the width and height that make pixels square; neither is smaller than the stored one."""
    if aspect is None or not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT:
        return frame.width, frame.height
    return round(frame.width * max(aspect, Fraction(1))), round(frame.height / min(aspect, Fraction(1)))


def fit_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size with the proportions of `size` that fits into `target`, width and height."""
    if size == target:
        return size
    scale = min(target[0] / size[0], target[1] / size[1])
    return max(1, min(target[0], round(scale * size[0]))), max(1, min(target[1], round(scale * size[1])))


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
