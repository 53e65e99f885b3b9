"""Decoded frames become upright RGB images with square pixels and the colors of the source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import (
    quadrant_colors,
    quadrant_frame,
    read_single_frame,
    set_display_matrix,
    write_clip,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.video.conversion import FrameToRGB, fit_size
from landmarks_fastai.video.reader import VideoReader

av = pytest.importorskip("av")


# colors of the quadrants of an upright image if RGBW is stored and displayed by (a b / c d)
@pytest.mark.parametrize(
    ("matrix", "colors"),
    [
        ((1, 0, 0, 1), "RGBW"),
        ((0, 1, -1, 0), "BRWG"),  # clockwise, as written by phones held upright
        ((-1, 0, 0, -1), "WBGR"),
        ((0, -1, 1, 0), "GWRB"),
        ((-1, 0, 0, 1), "GRWB"),
        ((1, 0, 0, -1), "BWRG"),
        ((0, 1, 1, 0), "RBGW"),
        ((0, -1, -1, 0), "WGBR"),
    ],
)
def test_display_matrix_is_applied(tmp_path: Path, matrix: tuple[int, int, int, int], colors: str) -> None:
    path = set_display_matrix(write_clip(tmp_path / "a.mp4", [quadrant_frame()]), matrix)
    image = read_single_frame(path)
    assert quadrant_colors(image) == colors
    assert image.shape == ((64, 48, 3) if matrix[0] == 0 else (48, 64, 3))
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (128, 48)), (Fraction(2, 3), (64, 72))])
def test_pixel_aspect_ratio_becomes_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    image = read_single_frame(write_clip(tmp_path / "a.mp4", [quadrant_frame()], aspect=aspect))
    assert (image.shape[1], image.shape[0]) == size
    assert quadrant_colors(image) == "RGBW"


def write_yuv_clip(path: Path, size: tuple[int, int], matrix: int, full: bool) -> Path:
    """Write a uniform frame of Y, Cb, Cr = 120, 90, 180, tagged with a color matrix of ITU-T H.273."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height = size
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 2 if full else 1
        frame = av.VideoFrame(*size, "yuv420p")
        for plane, value in zip(frame.planes, (120, 90, 180), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts = 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return path


@pytest.mark.parametrize(
    ("size", "matrix", "full", "rgb"),
    [
        # R = 255 ((Y - 16) / 219 + 2 (1 - kr) (Cr - 128) / 224) and so on, calculated by hand
        ((64, 48), 1, False, (214.3, 101.5, 40.8)),
        ((64, 48), 5, False, (204.1, 93.7, 44.4)),
        ((64, 48), 1, True, (201.9, 102.8, 49.5)),
        ((64, 48), 2, False, (204.1, 93.7, 44.4)),
        ((64, 720), 2, False, (214.3, 101.5, 40.8)),
    ],
)
def test_color_matrix_and_range_are_applied(
    tmp_path: Path, size: tuple[int, int], matrix: int, full: bool, rgb: tuple[float, float, float]
) -> None:
    image = read_single_frame(write_yuv_clip(tmp_path / "a.mp4", size, matrix, full))
    np.testing.assert_allclose(image[20, 30], rgb, atol=2)


def yuv_frame(matrix: int, primaries: int, transfer: int) -> av.VideoFrame:
    """Return a uniform frame of Y, Cb, Cr = 120, 90, 180 with tags of ITU-T H.273."""
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value in zip(frame.planes, (120, 90, 180), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = (
        matrix,
        primaries,
        transfer,
        1,
    )
    return frame


@pytest.mark.parametrize("tags", [(2, 0, 0), (2, 3, 3), (2, 255, 200)])
def test_reserved_tags_are_ignored(tags: tuple[int, int, int]) -> None:
    frame = yuv_frame(*tags)
    convert = FrameToRGB(frame, None)
    np.testing.assert_allclose(convert(frame)[20, 30], (204.1, 93.7, 44.4), atol=2)
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == tags
    assert convert.color_notes() == []


@pytest.mark.parametrize("matrix", [3, 8, 14])
def test_matrix_that_is_not_supported_is_noted(matrix: int) -> None:
    frame = yuv_frame(matrix, 1, 1)
    convert = FrameToRGB(frame, None)
    np.testing.assert_allclose(convert(frame)[20, 30], (204.1, 93.7, 44.4), atol=2)
    assert convert.color_notes() == [
        f"colors may be wrong: color matrix {matrix} of ITU-T H.273 is not supported"
    ]
    convert(yuv_frame(1, 1, 1))
    assert convert.color_notes() == []


@pytest.mark.parametrize("matrix", [0, 1, 4, 5, 6, 7, 9])
def test_supported_matrix_is_not_noted(matrix: int) -> None:
    assert FrameToRGB(yuv_frame(matrix, 2, 2), None).color_notes() == []


def test_palette_is_converted_to_rgb(tmp_path: Path) -> None:
    images = [
        Image.fromarray(quadrant_frame()).convert("P"),
        Image.fromarray(quadrant_frame()[::-1]).convert("P"),
    ]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100)
    with VideoReader(tmp_path / "a.gif") as reader:
        assert [(frame.time, quadrant_colors(frame.image)) for frame in reader] == [
            (0, "RGBW"),
            (Fraction(1, 10), "BWRG"),
        ]


@pytest.mark.parametrize(
    ("size", "inner"),
    [
        ((48, 64), (36, 48)),  # portrait in landscape
        ((128, 48), (64, 24)),
        ((128, 96), (64, 48)),
        ((32, 24), (64, 48)),
    ],
)
def test_frames_of_another_size_are_scaled_to_fit(
    tmp_path: Path, size: tuple[int, int], inner: tuple[int, int]
) -> None:
    parts = [
        write_clip(tmp_path / f"{index}.ts", [quadrant_frame(*each)] * 3, options={"qp": "0"}).read_bytes()
        for index, each in enumerate([(64, 48), size, (64, 48)])
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    with VideoReader(tmp_path / "a.ts") as reader:
        images = [frame.image for frame in reader]
        assert reader.size == (64, 48)
        (note,) = reader.notes
    assert note == (
        "the size of the frames changes at 0.12 s; frames of another size are scaled to fit into 64 x 48 px,"
        " with black borders"
    )
    assert len(images) == 9
    assert all(image.shape == (48, 64, 3) for image in images)
    assert [quadrant_colors(image) for image in images[:3] + images[6:]] == ["RGBW"] * 6
    width, height = inner
    left, top = (64 - width) // 2, (48 - height) // 2
    for image in images[3:6]:
        assert quadrant_colors(image[top : top + height, left : left + width]) == "RGBW"
        border = image.copy()
        border[top : top + height, left : left + width] = 0
        assert border.max() < 8


@settings(max_examples=200)
@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    target=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_fit_size_keeps_proportions(size: tuple[int, int], target: tuple[int, int]) -> None:
    width, height = fit_size(size, target)
    assert 1 <= width <= target[0]
    assert 1 <= height <= target[1]
    assert width == target[0] or height == target[1]
    scale = min(target[0] / size[0], target[1] / size[1])
    assert abs(width - max(1, scale * size[0])) <= 0.5 + 1e-9
    assert abs(height - max(1, scale * size[1])) <= 0.5 + 1e-9


def test_ten_bit_color_is_converted_to_rgb(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(quadrant_frame(), format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    assert quadrant_colors(read_single_frame(tmp_path / "a.mkv")) == "RGBW"
