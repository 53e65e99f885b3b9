"""HDR and wide-gamut videos get the colors of the SDR video of the same scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.clips import quadrant_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.video.tone_mapping import (
    BT2020,
    BT2020_TO_BT709,
    HLG,
    PQ,
    ToneMapper,
    bt709_to_linear,
    compress_highlights,
    hlg_to_linear,
    linear_to_bt709,
    pq_to_luminance,
    tone_mapper_of,
)

av = pytest.importorskip("av")

BT709, BT2020_10BIT = 1, 14
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "cases" / "hdr"


@pytest.mark.parametrize(
    ("function", "signal", "expected"),
    [
        (hlg_to_linear, 0.0, 0.0),
        (hlg_to_linear, 0.5, 1 / 12),
        (hlg_to_linear, 0.75, 0.2650),
        (hlg_to_linear, 1.0, 1.0),
        (pq_to_luminance, 0.0, 0.0),
        (pq_to_luminance, 0.5081, 100.0),  # BT.2408, table 1: 51 %
        (pq_to_luminance, 0.5807, 203.0),  # 58 %
        (pq_to_luminance, 0.7518, 1000.0),
        (pq_to_luminance, 1.0, 10_000.0),
        (bt709_to_linear, 0.0405, 0.009),
        (bt709_to_linear, 0.5, 0.2597),
    ],
)
def test_transfer_function_has_value_of_recommendation(function, signal: float, expected: float) -> None:
    assert float(function(np.array(signal))) == pytest.approx(expected, rel=2e-3, abs=1e-6)


def test_bt709_transfer_function_is_inverted() -> None:
    signal = np.linspace(0, 1, 100)
    np.testing.assert_allclose(linear_to_bt709(bt709_to_linear(signal)), signal, atol=1e-3)


@given(level=st.floats(0, 20), peak=st.floats(1.1, 20))
@settings(max_examples=200)
def test_highlights_are_compressed_to_one(level: float, peak: float) -> None:
    one, more = compress_highlights(np.array([0.8 + level, 0.81 + level], np.float32), peak)
    assert 0.8 <= one <= more <= 1 + 1e-6
    assert one <= 0.8 + level + 1e-5
    assert compress_highlights(np.array([peak], np.float32), peak)[0] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("transfer", [PQ, HLG, BT2020_10BIT])
def test_gray_stays_gray_and_increases(transfer: int) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None], 3, 2)
    mapped = ToneMapper(transfer, BT2020)(ramp)[0].astype(int)
    assert (abs(mapped - mapped[:, :1]) <= 1).all()
    assert (np.diff(mapped[:, 0]) >= 0).all()
    assert (mapped[0, 0], mapped[-1, 0]) == (0, 255)


def test_sdr_of_bt709_is_not_converted() -> None:
    assert tone_mapper_of(BT709, BT709) is None
    assert tone_mapper_of(2, 2) is None
    assert tone_mapper_of(BT709, BT2020) is not None


def hlg_signal(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signal of BT.2100, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(linear <= 1 / 12, np.sqrt(3 * linear), a * np.log(np.maximum(12 * linear - b, 1e-9)) + c)


def pq_signal(luminance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signal of BT.2100, table 4."""
    power = (luminance / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def encode_scene(image: NDArray[np.uint8], transfer: int) -> NDArray[np.uint16]:
    """Return the 16-bit RGB image, with the primaries of BT.2020, of the scene of an SDR image."""
    signal = image / 255
    linear = signal**2.4 if transfer == PQ else bt709_to_linear(signal)
    wide = np.maximum(linear @ np.linalg.inv(BT2020_TO_BT709.astype(float)).T, 0)
    encoded = {PQ: lambda: pq_signal(203 * wide), HLG: lambda: hlg_signal(0.265 * wide)}.get(
        transfer, lambda: linear_to_bt709(wide)
    )()
    return np.rint(65535 * encoded).astype(np.uint16)


def to_yuv(rgb: NDArray[np.float64]) -> list[NDArray[np.uint16]]:
    """Return Y, Cb and Cr of 10 bits and limited range (BT.2020-2, tables 4 and 5)."""
    red, green, blue = np.moveaxis(rgb, 2, 0)
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    chroma = [(blue - luma) / 1.8814, (red - luma) / 1.4746]
    codes = [64 + 876 * luma, *(512 + 896 * each for each in chroma)]
    return [np.rint(each).astype(np.uint16) for each in codes]


def write_hdr_clip(path: Path, image: NDArray[np.uint16], transfer: int, matrix: int) -> Path:
    """Write one 10-bit frame of BT.2020, tagged with a transfer function and a matrix of ITU-T H.273."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = matrix, BT2020, transfer
        context.color_range = 1
        frame = av.VideoFrame(stream.width, stream.height, "yuv444p10le")
        for plane, codes in zip(frame.planes, to_yuv(image / 65535), strict=True):
            padded = np.zeros((stream.height, plane.line_size // 2), np.uint16)
            padded[:, : stream.width] = codes
            plane.update(padded.tobytes())
        frame.colorspace, frame.color_primaries, frame.color_trc = matrix, BT2020, transfer
        frame.color_range = 1
        frame.pts = 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return path


@pytest.mark.parametrize("matrix", [9, 2], ids=["BT.2020", "unspecified"])
@pytest.mark.parametrize(
    ("transfer", "note"),
    [
        (HLG, "HDR (HLG), tone mapped to BT.709"),
        (PQ, "HDR (PQ), tone mapped to BT.709"),
        (BT2020_10BIT, "BT.2020 colors, converted to BT.709"),
    ],
)
def test_hdr_clip_has_colors_of_sdr_image(tmp_path: Path, transfer: int, note: str, matrix: int) -> None:
    image = quadrant_frame()
    path = write_hdr_clip(tmp_path / "a.mkv", encode_scene(image, transfer), transfer, matrix)
    with VideoReader(path) as reader:
        (frame,) = reader
        assert reader.notes == (note,)
    for y, x in ((10, 10), (10, 50), (40, 10), (40, 50)):
        np.testing.assert_allclose(frame.image[y, x], image[y, x].astype(int), atol=8)


def test_hlg_clip_has_mean_of_sdr_clip() -> None:
    if not (SHARED / "hlg.mp4").is_file():
        pytest.skip("the shared clips are not available")
    means = []
    for name in ("hlg.mp4", "base.mp4"):
        with VideoReader(SHARED / name) as reader:
            means.append(next(iter(reader)).image.mean(axis=(0, 1)))
    np.testing.assert_allclose(*means, atol=10)
