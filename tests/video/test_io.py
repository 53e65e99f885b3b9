"""`read_video` and `write_video` round trips."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import (
    RATE,
    gray_frame,
    gray_index,
    read_gray_clip,
    write_clip,
    write_gray_clip,
)

from landmarks_fastai.errors import UserError
from landmarks_fastai.video import FrameFolderReader, FrameFolderWriter, VideoReader, read_video, write_video
from landmarks_fastai.video.reader import VideoFrame

av = pytest.importorskip("av")


def gray_frames(times: list[Fraction]) -> Iterator[VideoFrame]:
    return (VideoFrame(index, time, gray_frame(index)) for index, time in enumerate(times))


@pytest.mark.parametrize(
    "times",
    [
        [i / RATE for i in range(8)],
        [Fraction(1001 * i, 30000) for i in range(8)],
        [Fraction(0), Fraction(1, 1000), Fraction(1, 2), Fraction(4, 3)],
        [Fraction(0)],
    ],
)
def test_write_video_keeps_times_of_any_iterable(tmp_path: Path, times: list[Fraction]) -> None:
    write_video(tmp_path / "a.mp4", gray_frames(times))
    assert read_gray_clip(tmp_path / "a.mp4") == (times, list(range(len(times))))


def test_write_video_of_reader_keeps_times_and_rate(tmp_path: Path) -> None:
    ticks = [0, 1, 500, 507, 3000, 9001]
    source = write_gray_clip(tmp_path / "a.mp4", 6, time_base=Fraction(1, 15360), ticks=ticks)
    with read_video(source) as frames:
        assert isinstance(frames, VideoReader)
        write_video(tmp_path / "b.mp4", frames)
    assert read_gray_clip(tmp_path / "b.mp4") == ([Fraction(tick, 15360) for tick in ticks], list(range(6)))
    with VideoReader(tmp_path / "b.mp4") as written:
        assert written.time_base == Fraction(1, 15360)


def test_write_video_excerpt_begins_at_zero_with_its_audio(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 50, audio_codec="aac", options={"g": "16"})
    with read_video(source, start=0.4, end=1.2) as frames:
        write_video(tmp_path / "b.mp4", frames, audio_from=source)
    times, indices = read_gray_clip(tmp_path / "b.mp4")
    assert times == [i / RATE for i in range(20)]
    np.testing.assert_allclose(indices, range(10, 30), atol=1)  # encoded twice
    with av.open(str(tmp_path / "b.mp4")) as container:
        audio = container.streams.audio[0]
        # the audio ends with the last frame
        assert float(audio.duration * audio.time_base) == pytest.approx(0.8, abs=0.06)
        written = [bytes(packet) for packet in container.demux(audio) if packet.size]
    with av.open(str(source)) as container:
        audio = container.streams.audio[0]
        original = [
            bytes(packet)
            for packet in container.demux(audio)
            if packet.size and 0.35 <= packet.pts * packet.time_base < 1.2
        ]
    assert written == original[-len(written) :]
    assert len(original) - len(written) <= 2  # preroll


def test_write_video_fps_spaces_frames_evenly(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 7), Fraction(2), Fraction(3)]
    write_video(tmp_path / "a.mp4", gray_frames(times), fps=10)
    assert read_gray_clip(tmp_path / "a.mp4") == ([Fraction(i, 10) for i in range(4)], [0, 1, 2, 3])


def test_read_video_folder_round_trip_keeps_times(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 30), Fraction(1, 3), Fraction(2)]
    with FrameFolderWriter(tmp_path / "frames") as writer:
        for index, time in enumerate(times):
            writer.write(gray_frame(index), time)
    with read_video(tmp_path / "frames") as frames:
        assert isinstance(frames, FrameFolderReader)
        write_video(tmp_path / "a.mp4", frames)
    assert read_gray_clip(tmp_path / "a.mp4") == (times, [0, 1, 2, 3])


def test_read_video_fps_drops_frames(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 10)
    with read_video(source, fps=5) as frames:
        assert [(frame.time, gray_index(frame.image)) for frame in frames] == [(0, 0), (Fraction(1, 5), 5)]


@pytest.mark.parametrize("span", [{"start": 1.0}, {"end": 2.0}])
def test_read_video_span_of_folder_is_refused(tmp_path: Path, span: dict[str, float]) -> None:
    write_video(tmp_path / "a.mp4", gray_frames([Fraction(0)]))
    with pytest.raises(UserError, match="remove them for a folder of frames"):
        read_video(tmp_path, **span)


def test_write_video_invalid_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.mp4: there are no frames to write"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(UserError, match=r"written as \.mp4, \.mov or \.mkv"):
        write_video(tmp_path / "a.avi", gray_frames([Fraction(0)]))
    with pytest.raises(UserError, match="--fps 0"):
        write_video(tmp_path / "a.mp4", gray_frames([Fraction(0)]), fps=0)
    assert list(tmp_path.iterdir()) == []


def test_write_video_images_are_close_to_the_source(tmp_path: Path) -> None:
    gradient = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (48, 1, 3))
    source = write_clip(tmp_path / "a.mp4", [gradient] * 3)
    with read_video(source) as frames:
        write_video(tmp_path / "b.mp4", frames)
    with read_video(tmp_path / "b.mp4") as frames:
        for frame in frames:
            assert np.abs(frame.image.astype(int) - gradient).mean() < 3
