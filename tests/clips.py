"""Small videos, made without anything of ours, whose frames tell their number or which way is up."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from landmarks_fastai.videofile import VideoReader

av = pytest.importorskip("av")

RATE = Fraction(25)
RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 220)


def numbered(index: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Draw a frame whose gray tells its number, up to 55."""
    return np.full((size[1], size[0], 3), 20 + 4 * index, np.uint8)


def number(image: NDArray[np.uint8]) -> int:
    """Read the number of a frame, off a corner, where no points are drawn."""
    return round((float(image[:4, :4].mean()) - 20) / 4)


def quarters(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Draw red, green, blue and white quarters: no two turns of it are the same."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def colours_of(image: NDArray[np.uint8]) -> str:
    """Name the quarters of a picture, in reading order."""
    height, width = image.shape[:2]
    spots = [image[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    known = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
    return "".join(
        min(known, key=lambda name: np.abs(known[name] - spot.astype(int)).sum()) for spot in spots
    )


def clip(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    unit: Fraction = 1 / RATE,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    sound: str | None = None,
    aspect: Fraction | None = None,
    faststart: bool = False,
    options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Make a video without anything of ours; its sound is noise, as long as the pictures at 25 a second."""
    noise = np.random.default_rng(0)
    with av.open(
        str(path), "w", format=container, container_options={"movflags": "+faststart"} if faststart else {}
    ) as output:
        video = output.add_stream(codec, rate=RATE if ticks else 1 / unit, options=options or {})
        video.height, video.width = images[0].shape[:2]
        video.codec_context.time_base = unit
        if codec == "mpeg4":
            video.codec_context.bit_rate = 4_000_000
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        audio = None if sound is None else output.add_stream(sound, rate=48000)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (ticks[index] if ticks else index), unit
            output.mux(video.encode(frame))
            if audio is not None:
                samples = noise.integers(-3000, 3000, (1, 2 * 1920), np.int16)
                heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
                heard.sample_rate, heard.pts, heard.time_base = 48000, index * 1920, Fraction(1, 48000)
                output.mux(audio.encode(heard))
        for stream in (video, audio):
            if stream is not None:
                output.mux(stream.encode(None))
    return path


def read(path: Path, **options: float) -> tuple[list[Fraction], list[int]]:
    """Read the times and the numbers of the frames."""
    with VideoReader(path, **options) as reader:
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [frame.time for frame in frames], [number(frame.image) for frame in frames]


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write into an MP4 by which (a b / c d) it is to be shown."""
    content = bytearray(path.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def noisy(path: Path, faststart: bool = False) -> Path:
    """Make 50 frames that don't compress, so that where the file is hurt is where the video is."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    frames = [np.roll(noise, i, 1) for i in range(50)]
    return clip(path, frames, codec=codec, options={"g": "10"}, faststart=faststart)
