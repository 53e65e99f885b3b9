"""Written videos have the given frames, times and colors, and a failed write leaves no file."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import RATE, gray_frame, read_gray_clip, read_single_frame, write_gray_clip
from helpers.file_sizes import limited_file_size
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.video.writer import (
    ENCODING,
    LARGE_ENCODING,
    MAX_QUEUED,
    VideoWriter,
    check_video_suffix,
)

av = pytest.importorskip("av")


def write(path: Path, images: Sequence[NDArray[np.uint8]], times: Sequence[Fraction] | None = None) -> Path:
    height, width = images[0].shape[:2]
    time_base = 1 / RATE if times is None else Fraction(1, 15360)
    with VideoWriter(path, (width, height), RATE, time_base) as writer:
        for index, image in enumerate(images):
            writer.write(image, times[index] if times else index / RATE)
    return path


def open_writer(path: Path, **options: object) -> VideoWriter:
    return VideoWriter(path, (64, 48), RATE, 1 / RATE, **options)


# --- frames, times and colors ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.MKV", "new/folder/a.mp4"])
def test_writer_round_trip_keeps_frames_and_times(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [gray_frame(i) for i in range(30)])
    assert read_gray_clip(path) == ([i / RATE for i in range(30)], list(range(30)))
    assert os.listdir(path.parent) == [path.name]
    with VideoReader(path) as reader:
        assert (reader.size, reader.rate, reader.duration) == ((64, 48), RATE, Fraction(30, 25))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.codec.name, context.pix_fmt, context.profile) == ("h264", "yuv420p", "High")
        assert container.streams.audio == ()


@pytest.mark.parametrize(("size", "encoding"), [((1280, 720), ENCODING), ((1282, 720), LARGE_ENCODING)])
def test_writer_encodes_large_frames_with_a_faster_preset(
    tmp_path: Path, size: tuple[int, int], encoding: dict[str, str]
) -> None:
    width, height = size
    path = write(tmp_path / "a.mp4", [np.zeros((height, width, 3), np.uint8)])
    content = path.read_bytes()  # x264 writes its options into the first frame
    options = content[content.index(b"x264 - core") :][:2000]
    assert f" crf={encoding['crf']}.0 ".encode() in options
    # in this, among others, the presets differ
    assert (b" mbtree=0 " in options) == (encoding["preset"] == "superfast")


def test_writer_single_frame_is_readable(tmp_path: Path) -> None:
    assert read_gray_clip(write(tmp_path / "a.mp4", [gray_frame(7)])) == ([0], [7])


def test_writer_mp4_index_is_first(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mp4", [gray_frame(0)]).read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.integers(1, 20_000), min_size=0, max_size=20), first=st.integers(0, 3000))
def test_writer_keeps_times_exactly(tmp_path: Path, gaps: list[int], first: int) -> None:
    ticks = [first]
    for gap in gaps:
        ticks.append(ticks[-1] + gap)
    images = [gray_frame(i) for i in range(len(ticks))]
    path = write(tmp_path / "a.mp4", images, [Fraction(t, 15360) for t in ticks])
    # the reader counts from the first frame
    assert read_gray_clip(path) == ([Fraction(t - first, 15360) for t in ticks], list(range(len(ticks))))
    with av.open(str(path)) as container:
        # an MP4 stores the time before the first frame in milliseconds
        assert abs(container.streams.video[0].start_time - first) < 16


def test_writer_times_between_ticks_are_rounded_without_collision(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (64, 48), RATE, Fraction(1, 25)) as writer:
        for index in range(8):
            writer.write(gray_frame(index), (index + Fraction(1, 2)) / 25)
    assert read_gray_clip(tmp_path / "a.mp4")[1] == list(range(8))


@pytest.mark.parametrize("size", [(64, 48), (64, 720)])
def test_writer_uniform_colors_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    colors = [(r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)]
    images = [np.full((size[1], size[0], 3), color, np.uint8) for color in colors]
    path = write(tmp_path / "a.mp4", images)
    with VideoReader(path) as reader:
        for color, frame in zip(colors, reader, strict=True):
            np.testing.assert_allclose(frame.image[20:-20, 20:-20].mean((0, 1)), color, atol=5)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.colorspace == (1 if size[1] == 720 else 5)
        assert (context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1)


def test_writer_odd_size_is_padded_with_repeated_edge(tmp_path: Path) -> None:
    image = np.full((239, 321, 3), 60, np.uint8)
    image[-1], image[:, -1] = 220, 220
    written = read_single_frame(write(tmp_path / "a.mp4", [image]))
    assert written.shape == (240, 322, 3)
    np.testing.assert_allclose(written[100, [310, 320, 321], 1], [60, 220, 220], atol=25)
    np.testing.assert_allclose(written[[230, 238, 239], 100, 1], [60, 220, 220], atol=25)


def test_writer_limits_the_queue_of_the_encoder(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (640, 480), RATE, 1 / RATE) as writer:
        for index in range(50):
            writer.write(gray_frame(index, (640, 480)), index / RATE)
            assert index + 1 - writer.encoded <= MAX_QUEUED
    assert writer.encoded == 50


# --- invalid input --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.webm", "a.avi", "a"])
def test_writer_unsupported_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"written as \.mp4, \.mov or \.mkv"):
        VideoWriter(tmp_path / name, (64, 48), RATE, 1 / RATE)


def test_check_video_suffix_ignores_case() -> None:
    check_video_suffix("A.MP4")


def test_writer_file_in_place_of_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="a file exists where a folder is needed"),
        open_writer(tmp_path / "file/a.mp4"),
    ):
        pass


def test_writer_invalid_frame_is_refused(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.mp4") as writer:
        writer.write(gray_frame(0), Fraction(1))
        for time in (Fraction(1), Fraction(0), Fraction(-1)):
            with pytest.raises(ValueError, match="not later"):
                writer.write(gray_frame(0), time)
        with pytest.raises(ValueError, match="64 x 48"):
            writer.write(gray_frame(0, (48, 64)), Fraction(2))


# --- interruptions and failures -------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, UserError])
@pytest.mark.parametrize("frames", [1, 30])
def test_writer_exception_leaves_a_playable_file(
    tmp_path: Path, error: type[BaseException], frames: int
) -> None:
    source = write_gray_clip(tmp_path / "source.mp4", 50, audio_codec="aac")
    threads = threading.active_count()
    path = tmp_path / "out" / "a.mp4"

    def write_and_raise() -> None:
        with open_writer(path, audio_from=source) as writer:
            for index in range(frames):
                writer.write(gray_frame(index), index / RATE)
            raise error

    with pytest.raises(error):
        write_and_raise()
    assert read_gray_clip(path) == ([i / RATE for i in range(frames)], list(range(frames)))
    assert os.listdir(path.parent) == ["a.mp4"]
    with av.open(str(path)) as container:
        # the audio ends with the last frame
        assert frames / RATE <= Fraction(container.duration, 1_000_000) < frames / RATE + Fraction(1, 20)
    assert threading.active_count() == threads


def test_writer_without_frames_keeps_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"existing")
    with pytest.raises(KeyboardInterrupt), open_writer(path):
        raise KeyboardInterrupt
    with open_writer(path):
        pass
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert path.read_bytes() == b"existing"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_writer_full_disk_is_reported_and_keeps_the_existing_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"existing")
    noise = np.random.default_rng(0)

    def write_noise() -> None:
        with VideoWriter(path, (320, 240), RATE, 1 / RATE) as writer:
            for index in range(200):
                writer.write(noise.integers(0, 256, (240, 320, 3), np.uint8), index / RATE)

    with (
        limited_file_size(100_000),
        pytest.raises(RunError, match=rf"{name}: cannot be written \(.*\); free some space") as caught,
    ):
        write_noise()
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [name]
    assert path.read_bytes() == b"existing"


def test_writer_disk_full_at_final_rename_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_frame(error: BaseException | None) -> None:
        with open_writer(tmp_path / "a.mp4") as writer:
            writer.write(gray_frame(0), Fraction(0))
            if error is not None:
                raise error

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(RunError, match="No space left"):
        write_frame(None)
    with pytest.raises(KeyboardInterrupt):
        write_frame(KeyboardInterrupt())
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root has write permission everywhere")
def test_writer_folder_without_permission_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(RunError, match=r"a\.mp4: cannot be written \(Permission denied\)"),
        open_writer(tmp_path / "a.mp4"),
    ):
        pass
