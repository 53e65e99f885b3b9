"""Opening video files, choosing the video stream, and reading durations."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import (
    RATE,
    assert_reader_refuses,
    quadrant_frame,
    read_gray_clip,
    write_clip,
    write_gray_clip,
    write_noise_clip,
    write_wav,
)
from PIL import Image

from landmarks_fastai.video import container as container_module
from landmarks_fastai.video.container import duration_of, open_video, select_video_stream, video_streams
from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.video.writer import VideoWriter

av = pytest.importorskip("av")


@pytest.mark.parametrize(
    ("name", "codec", "duration"),
    [
        ("a.mp4", "libx264", Fraction(20, 25)),
        ("a.mkv", "libx264", Fraction(20, 25)),
        ("a.avi", "mpeg4", Fraction(20, 25)),
        ("a.webm", "libvpx-vp9", Fraction(20, 25)),
        ("a.h264", "libx264", None),
    ],
)
def test_duration_of_each_container(tmp_path: Path, name: str, codec: str, duration: Fraction | None) -> None:
    container = "h264" if name == "a.h264" else None
    path = write_gray_clip(tmp_path / name, 20, codec=codec, container=container)
    with open_video(path) as opened:
        assert duration_of(opened, select_video_stream(opened, path)) == duration


def test_video_streams_exclude_cover_image(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as output:
        stream = output.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        stream.disposition = av.stream.Disposition.attached_pic
        output.mux(stream.encode(av.VideoFrame.from_ndarray(quadrant_frame(), format="rgb24")))
    with open_video(tmp_path / "a.m4a") as opened:
        assert len(opened.streams.video) == 1
        assert video_streams(opened) == []
    assert_reader_refuses(tmp_path / "a.m4a", "a.m4a: has no video stream")


def test_open_video_missing_or_unusable_file_is_refused(tmp_path: Path) -> None:
    assert_reader_refuses(tmp_path / "none.mp4", r"none\.mp4: no such file")
    assert_reader_refuses(Path("http://127.0.0.1:9/a.mp4"), "no such file")
    assert_reader_refuses(tmp_path, "a folder, not a video")
    assert_reader_refuses(Path("/dev/null"), "not a regular file")
    (tmp_path / "empty.mp4").touch()
    assert_reader_refuses(tmp_path / "empty.mp4", "0 bytes")
    (tmp_path / "notes.mp4").write_text("these are notes, and no video\n" * 50)
    assert_reader_refuses(tmp_path / "notes.mp4", "not a video")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "renamed.mp4"])
def test_open_video_image_is_refused(tmp_path: Path, name: str) -> None:
    Image.fromarray(quadrant_frame()).save(tmp_path / name, "PNG" if name == "a.png" else "JPEG")
    assert_reader_refuses(tmp_path / name, "an image, not a video; use the predict command")


def test_select_video_stream_audio_file_is_refused(tmp_path: Path) -> None:
    assert_reader_refuses(write_wav(tmp_path / "a.wav"), "an audio file, not a video; it has no video stream")


@pytest.mark.parametrize(
    "tag",
    ["00:00:1e-99999999", "00:00:00001/0", "00:00:nan", "9" * 18, "-1:-1:-1", "::", "00:99999999999:00"],
)
def test_absurd_duration_tag_of_matroska_is_ignored(tmp_path: Path, tag: str) -> None:
    path = write_gray_clip(tmp_path / "a.mkv", 20)
    content = path.read_bytes()
    assert content.count(b"00:00:00.800000000") == 1
    path.write_bytes(content.replace(b"00:00:00.800000000", tag.encode().ljust(18, b"\0")))
    with open_video(path) as opened:
        # the only stream ends with the container
        assert duration_of(opened, select_video_stream(opened, path)) == Fraction(20, 25)
    assert read_gray_clip(path)[1] == list(range(20))


def test_video_of_large_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gray_clip(tmp_path / "a.ts", 20)
    monkeypatch.setattr(container_module, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    assert_reader_refuses(path, r"a\.ts: 64 x 48 px per frame, more than .*; reduce its size first")


def test_frames_that_become_large_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = write_gray_clip(tmp_path / "a.ts", 20).read_bytes()
    large = write_clip(tmp_path / "b.ts", [quadrant_frame(640, 480)] * 20).read_bytes()
    (tmp_path / "joined.ts").write_bytes(small + large)
    with VideoReader(tmp_path / "joined.ts") as reader:
        assert len(list(reader)) == 40
    monkeypatch.setattr(container_module, "MAX_FRAME_PIXELS", 200 * 200)
    with VideoReader(tmp_path / "joined.ts") as reader:
        assert len(list(reader)) <= 20
        assert reader.damage is not None


def test_open_video_does_not_follow_playlists(tmp_path: Path, fifty_frames: Path) -> None:
    (tmp_path / "a.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{fifty_frames}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "a.txt").write_text(f"ffconcat version 1.0\nfile {fifty_frames}\n")
    for name in ("a.m3u8", "a.txt"):
        assert_reader_refuses(tmp_path / name, "not a video")


def test_open_video_without_index_is_refused(tmp_path: Path) -> None:
    path = write_noise_clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_reader_refuses(path, r"its index \(moov\) is missing, .*; get a complete copy")


def test_duration_of_truncated_avi_is_that_of_its_header(tmp_path: Path) -> None:
    path = write_noise_clip(tmp_path / "a.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_video(path) as opened:
        assert duration_of(opened, select_video_stream(opened, path)) == 50 / RATE


def test_select_video_stream_after_audio_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        audio = output.add_stream("pcm_s16le", rate=8000)
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height = 64, 48
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.int16), "s16", "stereo")
        sound.sample_rate = 8000
        output.mux(audio.encode(sound))
        output.mux(video.encode(av.VideoFrame.from_ndarray(quadrant_frame(), format="rgb24")))
        output.mux([*video.encode(None), *audio.encode(None)])
    with open_video(path) as opened:
        assert select_video_stream(opened, path).index == 1


def test_opening_a_video_turns_off_messages_with_which_threads_would_wait_for_each_other(
    tmp_path: Path,
) -> None:
    path = write_noise_clip(tmp_path / "a.mp4")
    logging = pytest.importorskip("av.logging")
    logging.set_level(logging.ERROR)  # what torchvision 0.21 does
    open_video(path).close()
    assert logging.get_level() is None
    logging.set_level(logging.ERROR)
    with VideoWriter(tmp_path / "b.mp4", (64, 48), RATE, 1 / RATE) as writer:
        writer.write(quadrant_frame(), Fraction(0))
    assert logging.get_level() is None
