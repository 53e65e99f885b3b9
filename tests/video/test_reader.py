"""Reading the frames of videos with their times, including excerpts and damaged files."""

from __future__ import annotations

import weakref
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.clips import (
    RATE,
    assert_reader_refuses,
    gray_frame,
    gray_index,
    read_gray_clip,
    write_clip,
    write_gray_clip,
    write_noise_clip,
)

from landmarks_fastai.video.reader import VideoReader

av = pytest.importorskip("av")

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


# --- frame times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.mp4", "libx264", None),
        ("a.mkv", "libx264", None),
        ("a.ts", "libx264", None),
        ("a.avi", "mpeg4", None),
        ("a.webm", "libvpx-vp9", None),
        ("a.h264", "libx264", "h264"),
        ("a name: with 100%03d [things].mov", "libx264", None),
    ],
)
def test_reader_yields_every_frame_once_at_its_time(
    tmp_path: Path, name: str, codec: str, container: str
) -> None:
    path = write_gray_clip(tmp_path / name, 20, codec=codec, container=container)
    times, indices = read_gray_clip(path)
    assert indices == list(range(20))
    assert times == [i / RATE for i in range(20)]
    with VideoReader(path) as reader:
        assert (reader.size, reader.rate) == ((64, 48), RATE)
        assert reader.expected in (20, 21, 22, None)
        assert list(reader)
        assert reader.damage is None


def test_reader_real_clip_has_expected_frames() -> None:
    path = SHARED / "video" / "talk.avi"
    if not path.is_file():
        pytest.skip("the shared clip is not available")
    with VideoReader(path) as reader:
        assert (reader.size, reader.rate, reader.expected) == ((320, 240), 25, 201)
        assert reader.duration == Fraction(201, 25)
        assert [frame.time for frame in reader] == [Fraction(i, 25) for i in range(201)]
        assert reader.damage is None


def test_reader_variable_frame_rate_keeps_times(tmp_path: Path) -> None:
    ticks = [0, 1, 500, 507, 3000, 9001]
    path = write_gray_clip(tmp_path / "a.mp4", 6, time_base=Fraction(1, 15360), ticks=ticks)
    assert read_gray_clip(path) == ([Fraction(tick, 15360) for tick in ticks], [0, 1, 2, 3, 4, 5])


def test_reader_nonzero_start_time_is_subtracted(tmp_path: Path) -> None:
    path = write_gray_clip(tmp_path / "a.ts", 20, ticks=range(70, 90))
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time > 90_000
    assert read_gray_clip(path, start=0.4)[0][0] == Fraction(2, 5)
    assert read_gray_clip(path)[0][0] == 0


def test_reader_decreasing_timestamps_become_increasing(tmp_path: Path) -> None:
    first = write_gray_clip(tmp_path / "a.ts", 20).read_bytes()
    second = write_clip(tmp_path / "b.ts", [gray_frame(i) for i in range(20, 40)]).read_bytes()
    (tmp_path / "joined.ts").write_bytes(first + second)
    times, indices = read_gray_clip(tmp_path / "joined.ts")
    assert indices == list(range(40))
    assert all(a < b for a, b in pairwise(times))


# --- start, end, fps ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv", ".h264"])
@pytest.mark.parametrize(
    ("start", "end", "first", "stop"),
    [(0.0, 0.2, 0, 5), (0.1, 0.3, 3, 8), (0.6, None, 15, 50), (1.32, 1.36, 33, 34), (1.96, 9.0, 49, 50)],
)
def test_reader_span_is_exact_wherever_key_frames_are(
    tmp_path: Path, suffix: str, start: float, end: float | None, first: int, stop: int
) -> None:
    container = "h264" if suffix == ".h264" else None
    path = write_gray_clip(tmp_path / f"a{suffix}", 50, options={"g": "16"}, container=container)
    options = {"start": start} if end is None else {"start": start, "end": end}
    assert read_gray_clip(path, **options) == (
        [i / RATE for i in range(first, stop)],
        list(range(first, stop)),
    )
    with VideoReader(path, **options) as reader:
        assert reader.expected is None or abs(reader.expected - (stop - first)) <= 1
        list(reader)
        assert reader.damage is None


def test_reader_seeks_instead_of_decoding_from_the_beginning(fifty_frames: Path) -> None:
    with VideoReader(fifty_frames, start=1.9) as reader:
        assert [gray_index(frame.image) for frame in reader] == [48, 49]
        assert reader.decoded <= 18


def test_reader_fps_repeats_and_drops_frames(fifty_frames: Path) -> None:
    assert read_gray_clip(fifty_frames, fps=10, end=1.0) == (
        [Fraction(i, 10) for i in range(10)],
        [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    )
    times, indices = read_gray_clip(fifty_frames, fps=50, start=1.5)
    assert indices == [37, *(i for i in range(38, 50) for _ in range(2))]
    assert times == [Fraction(3, 2) + Fraction(i, 50) for i in range(25)]
    with VideoReader(fifty_frames, fps=10, start=0.5) as reader:
        assert (reader.rate, reader.time_base, reader.expected) == (10, Fraction(1, 10), 15)


def test_reader_fps_of_the_source_changes_nothing_if_times_are_rounded(tmp_path: Path) -> None:
    unit = Fraction(1, 30)
    path = write_gray_clip(tmp_path / "a.mkv", 45, time_base=unit)
    assert read_gray_clip(path, fps=30) == ([i * unit for i in range(45)], list(range(45)))


def test_reader_repeated_frames_do_not_share_memory(fifty_frames: Path) -> None:
    with VideoReader(fifty_frames, fps=50, end=0.1) as reader:
        for frame in reader:
            assert gray_index(frame.image) == frame.index // 2
            frame.image[:] = 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 2.0}, r"there is no frame at --start 2 or later; the video is 2\.00 s long"),
        ({"start": 1e9}, r"--start 1e\+09 or later; the video is 2\.00 s long"),
        ({"start": 1.97, "end": 1.99}, r"--start 1\.97 and before --end 1\.99; the video is 2\.00 s long"),
        ({"start": -1.0}, "--start -1"),
        ({"start": float("nan")}, "--start nan"),
        ({"start": 1.0, "end": 1.0}, "--end 1: .* more than --start 1"),
        ({"end": float("inf")}, "--end inf"),
        ({"fps": 0.0}, "--fps 0"),
        ({"fps": -5.0}, "--fps -5"),
        ({"fps": float("nan")}, "--fps nan"),
        ({"fps": 1e6}, r"--fps 1e\+06"),
    ],
)
def test_reader_invalid_span_or_rate_is_refused(
    fifty_frames: Path, options: dict[str, float], message: str
) -> None:
    assert_reader_refuses(fifty_frames, message, **options)


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_reader_truncated_file_is_read_up_to_its_end(tmp_path: Path, name: str) -> None:
    path = write_noise_clip(tmp_path / name, faststart=name == "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with VideoReader(path) as reader:
        frames = list(reader)
    assert 20 <= len(frames) <= 32
    assert reader.damage is not None
    assert reader.damage.startswith(f"cut off or damaged after {float(frames[-1].time) + 0.04:.2f} of ")
    with VideoReader(path, end=0.5) as reader:
        assert len(list(reader)) == 13
        assert reader.damage is None


def test_reader_damaged_packet_is_skipped(tmp_path: Path) -> None:
    path = write_noise_clip(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 1500] = bytes(1500)
    path.write_bytes(content)
    with VideoReader(path) as reader:
        times = [frame.time for frame in reader]
    assert 40 <= len(times) < 50
    assert times[-1] == 49 / RATE
    assert reader.damage is not None
    assert reader.damage.startswith("damaged packets were skipped: ")


def test_reader_without_decodable_frame_is_refused(tmp_path: Path) -> None:
    path = write_noise_clip(tmp_path / "a.mp4", faststart=True)
    content = bytearray(path.read_bytes())
    data = content.index(b"mdat") + 4
    content[data:] = bytes(len(content) - data)
    path.write_bytes(content)
    assert_reader_refuses(path, r"a\.mp4: no frame can be decoded \(Invalid data .*\); get a complete copy")


# --- memory ---------------------------------------------------------------------------------------


def test_reader_keeps_at_most_two_images_alive(fifty_frames: Path) -> None:
    alive, most = 0, 0

    def finalized() -> None:
        nonlocal alive
        alive -= 1

    with VideoReader(fifty_frames) as reader:
        for frame in reader:
            alive += 1
            weakref.finalize(frame.image, finalized)
            most = max(most, alive)
    assert most <= 2
