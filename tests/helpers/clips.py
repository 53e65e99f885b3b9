"""Small videos, written without the package, whose frames encode their index or their orientation."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.video.reader import VideoReader

av = pytest.importorskip("av")

RATE = Fraction(25)
SAMPLE_RATE = 48000
SAMPLES_PER_FRAME = 1920
RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 220)


def gray_frame(index: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Return a frame whose gray value encodes its index, up to 55."""
    return np.full((size[1], size[0], 3), 20 + 4 * index, np.uint8)


def gray_index(image: NDArray[np.uint8]) -> int:
    """Return the index of a `gray_frame`, read from a corner, where no landmarks are drawn."""
    return round((float(image[:4, :4].mean()) - 20) / 4)


def quadrant_frame(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a frame with red, green, blue and white quadrants: no two orientations of it are the same."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def quadrant_colors(image: NDArray[np.uint8]) -> str:
    """Return the initials of the colors of an image's quadrants, in reading order."""
    height, width = image.shape[:2]
    samples = [image[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    colors = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
    return "".join(
        min(colors, key=lambda name: np.abs(colors[name] - sample.astype(int)).sum()) for sample in samples
    )


def audio_frame(samples: NDArray[np.int16], layout: str, rate: int, pts: int) -> av.AudioFrame:
    """Return an audio frame of interleaved (1, channels * N) samples, at `pts` in units of 1/rate."""
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


def write_clip(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    time_base: Fraction = 1 / RATE,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    audio_codec: str | None = None,
    aspect: Fraction | None = None,
    faststart: bool = False,
    options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Write a video; its audio is noise of the duration of the frames at 25 per second.

    Parameters
    ----------
    path
        The file.
    images
        (H, W, 3) uint8 RGB frames.
    time_base
        Unit of `ticks` in seconds.
    ticks
        Time of each frame in units of `time_base`; by default its index.
    codec, audio_codec
        FFmpeg's names of the encoders; no audio if `audio_codec` is None.
    aspect
        Pixel aspect ratio.
    faststart
        Put the index of an MP4 first.
    options
        Options of the video encoder.
    container
        FFmpeg's name of the container; by default that of the suffix.
    """
    noise = np.random.default_rng(0)
    container_options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", format=container, container_options=container_options) as output:
        video = output.add_stream(codec, rate=RATE if ticks else 1 / time_base, options=options or {})
        video.height, video.width = images[0].shape[:2]
        video.codec_context.time_base = time_base
        if codec == "mpeg4":
            video.codec_context.bit_rate = 4_000_000
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        audio = None if audio_codec is None else output.add_stream(audio_codec, rate=SAMPLE_RATE)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (ticks[index] if ticks else index), time_base
            output.mux(video.encode(frame))
            if audio is not None:
                samples = noise.integers(-3000, 3000, (1, 2 * SAMPLES_PER_FRAME), np.int16)
                sound = audio_frame(samples, "stereo", SAMPLE_RATE, index * SAMPLES_PER_FRAME)
                output.mux(audio.encode(sound))
        for stream in (video, audio):
            if stream is not None:
                output.mux(stream.encode(None))
    return path


def write_gray_clip(path: Path, count: int, **options: object) -> Path:
    """Write a video of `count` gray frames; see `write_clip` for the options."""
    return write_clip(path, [gray_frame(index) for index in range(count)], **options)


def write_noise_clip(path: Path, faststart: bool = False) -> Path:
    """Write 50 incompressible frames, so that a fraction of the file is about that fraction of the video."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    frames = [np.roll(noise, index, 1) for index in range(50)]
    return write_clip(path, frames, codec=codec, options={"g": "10"}, faststart=faststart)


def write_wav(path: Path) -> Path:
    """Write two seconds of silence, without video."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.int16), "s16", "stereo")
        sound.sample_rate = 8000
        output.mux(stream.encode(sound))
    return path


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write the display matrix (a b / c d) into an MP4."""
    content = bytearray(path.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def read_gray_clip(path: Path, **options: float) -> tuple[list[Fraction], list[int]]:
    """Return the times and the encoded indices of the frames of a gray clip."""
    with VideoReader(path, **options) as reader:
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [frame.time for frame in frames], [gray_index(frame.image) for frame in frames]


def read_single_frame(path: Path) -> NDArray[np.uint8]:
    """Return the image of the only frame of a video."""
    with VideoReader(path) as reader:
        (frame,) = reader
    assert reader.size == (frame.image.shape[1], frame.image.shape[0])
    return frame.image


def assert_reader_refuses(path: Path, message: str, **options: float | None) -> None:
    """Check that `VideoReader` raises a UserError of one line that matches `message`."""
    with pytest.raises(UserError, match=message) as caught:
        VideoReader(path, **options)
    assert "\n" not in str(caught.value)
