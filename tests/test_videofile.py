"""Frames come upright and at their own times from whatever plays; what is written plays as it was given."""

from __future__ import annotations

import errno
import os
import resource
import threading
import weakref
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips import (
    RATE,
    clip,
    colours_of,
    noisy,
    number,
    numbered,
    quarters,
    read,
    turned,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.videofile import VideoReader
from landmarks_fastai.videowriter import WAITING, VideoWriter, check_video_name

av = pytest.importorskip("av")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def only_image(path: Path) -> NDArray[np.uint8]:
    with VideoReader(path) as reader:
        (frame,) = reader
    assert reader.size == (frame.image.shape[1], frame.image.shape[0])
    return frame.image


def refused(path: Path, said: str, **options: float | None) -> None:
    with pytest.raises(UserError, match=said) as caught:
        VideoReader(path, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def fifty(tmp_path: Path) -> Path:
    """Two seconds with a key frame every 16 frames, so that seeking has something to find."""
    return clip(tmp_path / "fifty.mp4", [numbered(i) for i in range(50)], options={"g": "16"})


# --- reading --------------------------------------------------------------------------------------


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
def test_every_frame_comes_once_at_its_time(tmp_path: Path, name: str, codec: str, container: str) -> None:
    path = clip(tmp_path / name, [numbered(i) for i in range(20)], codec=codec, container=container)
    times, numbers = read(path)
    assert numbers == list(range(20))
    assert times == [i / RATE for i in range(20)]
    with VideoReader(path) as reader:
        assert (reader.size, reader.rate) == ((64, 48), RATE)
        assert reader.expected in (20, 21, 22, None)
        assert list(reader)
        assert reader.damage is None


def test_a_real_clip() -> None:
    path = SHARED / "video" / "talk.avi"
    if not path.is_file():
        pytest.skip("the shared clip is not here")
    with VideoReader(path) as reader:
        assert (reader.size, reader.rate, reader.expected) == ((320, 240), 25, 201)
        assert reader.duration == Fraction(201, 25)
        assert [frame.time for frame in reader] == [Fraction(i, 25) for i in range(201)]
        assert reader.damage is None


def test_each_frame_of_a_variable_rate_keeps_its_time(tmp_path: Path) -> None:
    ticks = [0, 1, 500, 507, 3000, 9001]
    path = clip(tmp_path / "a.mp4", [numbered(i) for i in range(6)], unit=Fraction(1, 15360), ticks=ticks)
    assert read(path) == ([Fraction(tick, 15360) for tick in ticks], [0, 1, 2, 3, 4, 5])


def test_a_source_that_does_not_begin_at_0(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.ts", [numbered(i) for i in range(20)], ticks=range(70, 90))
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time > 90_000
    assert read(path, start=0.4)[0][0] == Fraction(2, 5)
    assert read(path)[0][0] == 0


def test_stamps_that_jump_back_do_not_stop_the_clock(tmp_path: Path) -> None:
    first = clip(tmp_path / "a.ts", [numbered(i) for i in range(20)]).read_bytes()
    second = clip(tmp_path / "b.ts", [numbered(i) for i in range(20, 40)]).read_bytes()
    (tmp_path / "joined.ts").write_bytes(first + second)
    times, numbers = read(tmp_path / "joined.ts")
    assert numbers == list(range(40))
    assert all(a < b for a, b in pairwise(times))


# what an upright picture has in its quarters, when stored as RGBW is shown by (a b / c d)
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), "RGBW"),
        ((0, 1, -1, 0), "BRWG"),  # clockwise, as phones held upright write
        ((-1, 0, 0, -1), "WBGR"),
        ((0, -1, 1, 0), "GWRB"),
        ((-1, 0, 0, 1), "GRWB"),
        ((1, 0, 0, -1), "BWRG"),
        ((0, 1, 1, 0), "RBGW"),
        ((0, -1, -1, 0), "WGBR"),
    ],
)
def test_frames_are_turned_upright(tmp_path: Path, matrix: tuple[int, int, int, int], shown: str) -> None:
    image = only_image(turned(clip(tmp_path / "a.mp4", [quarters()]), matrix))
    assert colours_of(image) == shown
    assert image.shape == ((64, 48, 3) if matrix[0] == 0 else (48, 64, 3))
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (128, 48)), (Fraction(2, 3), (64, 72))])
def test_pixels_are_made_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    image = only_image(clip(tmp_path / "a.mp4", [quarters()], aspect=aspect))
    assert (image.shape[1], image.shape[0]) == size
    assert colours_of(image) == "RGBW"


def yuv_clip(path: Path, size: tuple[int, int], matrix: int, full: bool) -> Path:
    """Make a flat frame of Y, Cb, Cr = 120, 90, 180, tagged with a matrix (1: BT.709, 2: none, 5: BT.601)."""
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
        # R = 255 ((Y - 16) / 219 + 2 (1 - kr) (Cr - 128) / 224) and so on, by hand
        ((64, 48), 1, False, (214.3, 101.5, 40.8)),
        ((64, 48), 5, False, (204.1, 93.7, 44.4)),
        ((64, 48), 1, True, (201.9, 102.8, 49.5)),
        ((64, 48), 2, False, (204.1, 93.7, 44.4)),
        ((64, 720), 2, False, (214.3, 101.5, 40.8)),
    ],
)
def test_colours_are_those_that_the_source_means(
    tmp_path: Path, size: tuple[int, int], matrix: int, full: bool, rgb: tuple[float, float, float]
) -> None:
    image = only_image(yuv_clip(tmp_path / "a.mp4", size, matrix, full))
    np.testing.assert_allclose(image[20, 30], rgb, atol=2)


def test_palettes_and_10_bits(tmp_path: Path) -> None:
    pictures = [Image.fromarray(quarters()).convert("P"), Image.fromarray(quarters()[::-1]).convert("P")]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    with VideoReader(tmp_path / "a.gif") as reader:
        assert [(frame.time, colours_of(frame.image)) for frame in reader] == [
            (0, "RGBW"),
            (Fraction(1, 10), "BWRG"),
        ]
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(quarters(), format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    assert colours_of(only_image(tmp_path / "a.mkv")) == "RGBW"


def test_a_cover_is_no_video_and_the_video_is_found_behind_the_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as output:
        stream = output.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        stream.disposition = av.stream.Disposition.attached_pic
        output.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
    refused(tmp_path / "a.m4a", "a.m4a: has no video stream")


# --- a part of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv", ".h264"])
@pytest.mark.parametrize(
    ("start", "end", "first", "behind"),
    [(0.0, 0.2, 0, 5), (0.1, 0.3, 3, 8), (0.6, None, 15, 50), (1.32, 1.36, 33, 34), (1.96, 9.0, 49, 50)],
)
def test_the_span_is_exact_wherever_key_frames_lie(
    tmp_path: Path, suffix: str, start: float, end: float | None, first: int, behind: int
) -> None:
    container = "h264" if suffix == ".h264" else None
    frames = [numbered(i) for i in range(50)]
    path = clip(tmp_path / f"a{suffix}", frames, options={"g": "16"}, container=container)
    options = {"start": start} if end is None else {"start": start, "end": end}
    assert read(path, **options) == ([i / RATE for i in range(first, behind)], list(range(first, behind)))
    with VideoReader(path, **options) as reader:
        assert reader.expected is None or abs(reader.expected - (behind - first)) <= 1
        list(reader)
        assert reader.damage is None


def test_what_lies_before_the_span_is_not_decoded(fifty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    time = VideoReader._time

    def counted(self: VideoReader, frame: object, before: Fraction | None) -> Fraction:
        nonlocal decoded
        decoded += 1
        return time(self, frame, before)

    monkeypatch.setattr(VideoReader, "_time", counted)
    assert read(fifty, start=1.9)[1] == [48, 49]
    assert decoded <= 18


def test_fps_repeats_and_drops(fifty: Path) -> None:
    assert read(fifty, fps=10, end=1.0) == (
        [Fraction(i, 10) for i in range(10)],
        [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    )
    times, numbers = read(fifty, fps=50, start=1.5)
    assert numbers == [
        37,
        38,
        38,
        39,
        39,
        40,
        40,
        41,
        41,
        42,
        42,
        43,
        43,
        44,
        44,
        45,
        45,
        46,
        46,
        47,
        47,
        48,
        48,
        49,
        49,
    ]
    assert times == [Fraction(3, 2) + Fraction(i, 50) for i in range(25)]
    with VideoReader(fifty, fps=10, start=0.5) as reader:
        assert (reader.rate, reader.time_base, reader.expected) == (10, Fraction(1, 10), 15)


def test_the_same_fps_changes_nothing_even_where_times_are_rounded(tmp_path: Path) -> None:
    unit = Fraction(1, 30)
    path = clip(tmp_path / "a.mkv", [numbered(i) for i in range(45)], unit=unit)
    assert read(path, fps=30) == ([i * unit for i in range(45)], list(range(45)))


def test_repeated_frames_do_not_share_their_pixels(fifty: Path) -> None:
    with VideoReader(fifty, fps=50, end=0.1) as reader:
        for frame in reader:
            assert number(frame.image) == frame.index // 2
            frame.image[:] = 255


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 2.0}, r"no frame comes at --start 2 or later; the video is 2\.00 s long"),
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
def test_a_span_that_can_not_be(fifty: Path, options: dict[str, float], said: str) -> None:
    refused(fifty, said, **options)


# --- what is no video, or not a whole one -----------------------------------------------------------


def test_what_is_no_video(tmp_path: Path) -> None:
    refused(tmp_path / "none.mp4", r"none\.mp4: no such file")
    refused(Path("http://127.0.0.1:9/a.mp4"), "no such file")
    refused(tmp_path, "a folder, not a video")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "0 bytes")
    (tmp_path / "notes.mp4").write_text("these are notes, and no video\n" * 50)
    refused(tmp_path / "notes.mp4", "not a video")
    for name in ("a.jpg", "a.png", "called.mp4"):
        Image.fromarray(quarters()).save(tmp_path / name, "PNG" if name == "a.png" else "JPEG")
        refused(tmp_path / name, "a picture, not a video; use predict")
    with av.open(str(tmp_path / "a.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "stereo")
        sound.sample_rate = 8000
        output.mux(stream.encode(sound))
    refused(tmp_path / "a.wav", "has no video stream")


def test_a_list_of_files_is_not_followed(tmp_path: Path, fifty: Path) -> None:
    (tmp_path / "a.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{fifty}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "a.txt").write_text(f"ffconcat version 1.0\nfile {fifty}\n")
    for name in ("a.m3u8", "a.txt"):
        refused(tmp_path / name, "not a video")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_file_that_is_cut_off_plays_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    path = noisy(tmp_path / name, faststart=name == "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with VideoReader(path) as reader:
        frames = list(reader)
    assert 20 <= len(frames) <= 32
    assert reader.damage is not None
    assert reader.damage.startswith(f"cut off or damaged after {float(frames[-1].time) + 0.04:.2f} of ")
    with VideoReader(path, end=0.5) as reader:
        assert len(list(reader)) == 13
        assert reader.damage is None


def test_a_recording_without_its_index(tmp_path: Path) -> None:
    path = noisy(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, r"its index \(moov\) is missing, .*; get a whole copy")


def test_a_damaged_packet_in_the_middle_is_left_out(tmp_path: Path) -> None:
    path = noisy(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 1500] = bytes(1500)
    path.write_bytes(content)
    with VideoReader(path) as reader:
        times = [frame.time for frame in reader]
    assert 40 <= len(times) < 50
    assert times[-1] == 49 / RATE
    assert reader.damage is not None
    assert reader.damage.startswith("damaged packets left out: ")


def test_damage_before_the_first_frame_is_an_error(tmp_path: Path) -> None:
    path = noisy(tmp_path / "a.mp4", faststart=True)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin:] = bytes(len(content) - begin)
    path.write_bytes(content)
    refused(path, r"a\.mp4: no frame can be decoded \(Invalid data .*\); get a whole copy")


# --- memory and threads ---------------------------------------------------------------------------


def test_reading_holds_one_picture_however_long_the_video(fifty: Path) -> None:
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    with VideoReader(fifty) as reader:
        for frame in reader:
            alive += 1
            weakref.finalize(frame.image, gone)
            most = max(most, alive)
    assert most <= 2


def test_few_frames_wait_for_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = 0
    encode = VideoWriter._encode

    def counted(self: VideoWriter, frame: object) -> None:
        nonlocal encoded
        encode(self, frame)
        encoded += 1

    monkeypatch.setattr(VideoWriter, "_encode", counted)
    with VideoWriter(tmp_path / "a.mp4", (640, 480), RATE, 1 / RATE) as writer:
        for index in range(50):
            writer.write(numbered(index, (640, 480)), index / RATE)
            assert index + 1 - encoded <= WAITING
    assert encoded == 50


# --- writing --------------------------------------------------------------------------------------


def write(path: Path, images: Sequence[NDArray[np.uint8]], times: Sequence[Fraction] | None = None) -> Path:
    height, width = images[0].shape[:2]
    unit = 1 / RATE if times is None else Fraction(1, 15360)
    with VideoWriter(path, (width, height), RATE, unit) as writer:
        for index, image in enumerate(images):
            writer.write(image, times[index] if times else index / RATE)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.MKV", "new/folder/a.mp4"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [numbered(i) for i in range(30)])
    assert read(path) == ([i / RATE for i in range(30)], list(range(30)))
    assert os.listdir(path.parent) == [path.name]
    with VideoReader(path) as reader:
        assert (reader.size, reader.rate, reader.duration) == ((64, 48), RATE, Fraction(30, 25))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.codec.name, context.pix_fmt, context.profile) == ("h264", "yuv420p", "High")
        assert container.streams.audio == ()


def test_browsers_find_the_index_in_front(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mp4", [numbered(0)]).read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.integers(1, 20_000), min_size=0, max_size=20), first=st.integers(0, 3000))
def test_times_are_kept_exactly(tmp_path: Path, gaps: list[int], first: int) -> None:
    ticks = [first]
    for gap in gaps:
        ticks.append(ticks[-1] + gap)
    path = write(
        tmp_path / "a.mp4", [numbered(i) for i in range(len(ticks))], [Fraction(t, 15360) for t in ticks]
    )
    # the reader counts from the beginning of the video
    assert read(path) == ([Fraction(t - first, 15360) for t in ticks], list(range(len(ticks))))
    with av.open(str(path)) as container:
        # what comes before the first is told in milliseconds
        assert abs(container.streams.video[0].start_time - first) < 16


def test_times_that_fall_between_are_rounded_and_never_meet(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (64, 48), RATE, Fraction(1, 25)) as writer:
        for index in range(8):
            writer.write(numbered(index), (index + Fraction(1, 2)) / 25)
    assert read(tmp_path / "a.mp4")[1] == list(range(8))


@pytest.mark.parametrize("size", [(64, 48), (64, 720)])
def test_flat_colours_stay_within_a_few_levels(tmp_path: Path, size: tuple[int, int]) -> None:
    colours = [(r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)]
    images = [np.full((size[1], size[0], 3), colour, np.uint8) for colour in colours]
    path = write(tmp_path / "a.mp4", images)
    with VideoReader(path) as reader:
        for colour, frame in zip(colours, reader, strict=True):
            np.testing.assert_allclose(frame.image[20:-20, 20:-20].mean((0, 1)), colour, atol=5)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.colorspace == (1 if size[1] == 720 else 5)
        assert (context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1)


def test_odd_sizes_grow_by_a_repeated_edge(tmp_path: Path) -> None:
    image = np.full((239, 321, 3), 60, np.uint8)
    image[-1], image[:, -1] = 220, 220
    read_back = only_image(write(tmp_path / "a.mp4", [image]))
    assert read_back.shape == (240, 322, 3)
    np.testing.assert_allclose(read_back[100, [310, 320, 321], 1], [60, 220, 220], atol=25)
    np.testing.assert_allclose(read_back[[230, 238, 239], 100, 1], [60, 220, 220], atol=25)


def test_one_frame(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.mp4", [numbered(7)])) == ([0], [7])


def test_what_can_not_be_written(tmp_path: Path) -> None:
    for name in ("a.webm", "a.avi", "a"):
        with pytest.raises(UserError, match=r"written as \.mp4, \.mov or \.mkv"):
            VideoWriter(tmp_path / name, (64, 48), RATE, 1 / RATE)
    check_video_name("A.MP4")
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="a file stands where a folder should be"),
        writing(tmp_path / "file/a.mp4"),
    ):
        pass
    with writing(tmp_path / "a.mp4") as writer:
        writer.write(numbered(0), Fraction(1))
        for time in (Fraction(1), Fraction(0), Fraction(-1)):
            with pytest.raises(ValueError, match="not later"):
                writer.write(numbered(0), time)
        with pytest.raises(ValueError, match="64 x 48"):
            writer.write(numbered(0, (48, 64)), Fraction(2))


def writing(path: Path, **options: object) -> VideoWriter:
    return VideoWriter(path, (64, 48), RATE, 1 / RATE, **options)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, UserError])
@pytest.mark.parametrize("frames", [1, 30])
def test_what_was_done_before_an_exception_is_playable(
    tmp_path: Path, error: type[BaseException], frames: int
) -> None:
    source = clip(tmp_path / "source.mp4", [numbered(i) for i in range(50)], sound="aac")
    before = threading.active_count()
    path = tmp_path / "out" / "a.mp4"

    def work() -> None:
        with writing(path, audio_from=source) as writer:
            for index in range(frames):
                writer.write(numbered(index), index / RATE)
            raise error

    with pytest.raises(error):
        work()
    assert read(path) == ([i / RATE for i in range(frames)], list(range(frames)))
    assert os.listdir(path.parent) == ["a.mp4"]
    with av.open(str(path)) as container:
        # the sound ends with the picture
        assert frames / RATE <= Fraction(container.duration, 1_000_000) < frames / RATE + Fraction(1, 20)
    assert threading.active_count() == before


def test_nothing_is_left_without_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"what was there")
    with pytest.raises(KeyboardInterrupt), writing(path):
        raise KeyboardInterrupt
    with writing(path):
        pass
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert path.read_bytes() == b"what was there"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"what was there")
    noise = np.random.default_rng(0)

    def work() -> None:
        with VideoWriter(path, (320, 240), RATE, 1 / RATE) as writer:
            for index in range(200):
                writer.write(noise.integers(0, 256, (240, 320, 3), np.uint8), index / RATE)

    # a limit on the size of files makes the very write fail that a full disk would
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError, match=rf"{name}: can't be written \(.*\); make room") as caught:
            work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [name]
    assert path.read_bytes() == b"what was there"


def test_a_disk_that_is_full_only_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work(error: BaseException | None) -> None:
        with writing(tmp_path / "a.mp4") as writer:
            writer.write(numbered(0), Fraction(0))
            if error is not None:
                raise error

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left"):
        work(None)
    with pytest.raises(KeyboardInterrupt):
        work(KeyboardInterrupt())
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(RunError, match=r"a\.mp4: can't be written \(Permission denied\)"),
        writing(tmp_path / "a.mp4"),
    ):
        pass


# --- sound ----------------------------------------------------------------------------------------


def packets(path: Path) -> tuple[str, list[tuple[float, bytes]]]:
    """Return the codec of the sound, and its packets at their times from the beginning of the video."""
    with av.open(str(path)) as container:
        audio, video = container.streams.audio[0], container.streams.video[0]
        begin = video.start_time * video.time_base
        return audio.codec_context.codec.canonical_name, [
            (float(packet.pts * packet.time_base - begin), bytes(packet))
            for packet in container.demux(audio)
            if packet.size
        ]


def with_sound(path: Path, source: Path, first: int = 0, behind: int = 50, **span: float) -> Path:
    with writing(path, audio_from=source, **span) as writer:
        for index in range(first, behind):
            writer.write(numbered(index), (index - first) / RATE)
    return path


@pytest.mark.parametrize(
    ("source", "codec", "name"),
    [
        ("a.mp4", "aac", "b.mp4"),
        ("a.mp4", "aac", "b.mkv"),
        ("a.mkv", "aac", "b.mov"),
        ("a.mkv", "libopus", "b.mp4"),
        ("a.avi", "libmp3lame", "b.mp4"),
        ("a.mkv", "pcm_s16le", "b.mov"),
    ],
)
def test_sound_is_copied_to_the_bit(tmp_path: Path, source: str, codec: str, name: str) -> None:
    video = "mpeg4" if source == "a.avi" else "libx264"
    clip(tmp_path / source, [numbered(i) for i in range(50)], sound=codec, codec=video)
    before, expected = packets(tmp_path / source)
    after, copied = packets(with_sound(tmp_path / name, tmp_path / source))
    assert after == before
    assert b"".join(content for _, content in copied) == b"".join(content for _, content in expected)
    if codec != "pcm_s16le":  # which each container cuts into packets as it likes
        np.testing.assert_allclose([t for t, _ in copied], [t for t, _ in expected], atol=0.0021)
    assert read(tmp_path / name) == ([i / RATE for i in range(50)], list(range(50)))


def loudness(path: Path) -> NDArray[np.float64]:
    """Return the loudness of every hundredth of a second of what is heard with the pictures."""
    heard = np.zeros(48000 * 3)
    with av.open(str(path)) as container:
        audio, video = container.streams.audio[0], container.streams.video[0]
        begin = video.start_time * video.time_base
        resample = av.AudioResampler(format="fltp", layout="mono", rate=48000)
        for frame in container.decode(audio):
            at = round((frame.pts * audio.time_base - begin) * 48000)
            for piece in resample.resample(frame):
                samples = piece.to_ndarray()[0][max(0, -at) :]
                heard[max(0, at) : max(0, at) + len(samples)] = samples
                at += piece.samples
    return np.sqrt((heard.reshape(-1, 480) ** 2).mean(1))


def knocking(path: Path, codec: str = "aac", offset: int = 0) -> Path:
    """Make two seconds of silence with a knock of 20 ms at 1.24 s, where the picture turns white."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"g": "12"})
        video.width, video.height = 64, 48
        audio = output.add_stream(codec, rate=48000)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(numbered(50 if index >= 31 else 0), format="rgb24")
            frame.pts, frame.time_base = index + offset, 1 / RATE
            output.mux(video.encode(frame))
            samples = np.zeros((1, 2 * 1920), np.int16)
            if index == 31:
                samples[0, : 2 * 960] = 12_000 * np.sign(np.sin(np.arange(2 * 960) / 40))
            sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
            sound.sample_rate, sound.time_base = 48000, Fraction(1, 48000)
            sound.pts = (index + offset) * 1920
            output.mux(audio.encode(sound))
        output.mux([*video.encode(None), *audio.encode(None)])
    return path


@pytest.mark.parametrize(
    ("source", "codec"), [("a.mp4", "aac"), ("a.ts", "aac"), ("a.ts", "mp2"), ("a.mkv", "pcm_s16le")]
)
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize("span", [(0.0, None), (0.5, 1.5), (1.1, None)])
def test_sound_stays_with_the_picture(
    tmp_path: Path, source: str, codec: str, name: str, span: tuple[float, float | None]
) -> None:
    knocking(tmp_path / source, codec, offset=40 if source == "a.ts" else 0)
    start, end = span
    with VideoReader(tmp_path / source, start=start, end=end) as reader:
        options = {"audio_from": tmp_path / source, "start": start, "end": end}
        with VideoWriter(tmp_path / name, reader.size, reader.rate, reader.time_base, **options) as writer:
            for frame in reader:
                writer.write(frame.image, frame.time - Fraction(start))
    assert packets(tmp_path / name)[0] == ("aac" if name == "b.mp4" else codec)
    # no more than a decoder's run-up comes before the picture
    assert packets(tmp_path / name)[1][0][0] > -0.1
    heard = loudness(tmp_path / name)
    loud = np.flatnonzero(heard > heard.max() / 2) / 100
    with VideoReader(tmp_path / name) as reader:
        white = next(float(frame.time) for frame in reader if number(frame.image) > 25)
    assert white == pytest.approx(1.24 - start, abs=0.021)
    assert loud[0] == pytest.approx(white, abs=0.031)
    assert loud[-1] == pytest.approx(white + 0.01, abs=0.031)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration / 1e6 == pytest.approx((end or 2.0) - start, abs=0.1)


@pytest.mark.parametrize(("layout", "rate"), [("mono", 8000), ("5.1", 44100), ("stereo", 88200)])
def test_what_no_player_knows_becomes_aac_that_sounds_alike(tmp_path: Path, layout: str, rate: int) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height = 64, 48
        audio = output.add_stream("pcm_s16le", rate=rate, layout=layout)
        channels = audio.codec_context.layout.nb_channels
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = index, 1 / RATE
            output.mux(video.encode(frame))
            wave = 8000 * np.sin(np.arange(rate // 25 * channels) / channels / 5)
            sound = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout=layout)
            sound.sample_rate, sound.pts, sound.time_base = rate, index * (rate // 25), Fraction(1, rate)
            output.mux(audio.encode(sound))
        output.mux([*video.encode(None), *audio.encode(None)])
    with_sound(tmp_path / "b.mp4", path, behind=25)
    with av.open(str(tmp_path / "b.mp4")) as container:
        context = container.streams.audio[0].codec_context
        assert (context.codec.canonical_name, context.sample_rate) == ("aac", rate)
        assert context.layout.nb_channels == channels
    a, b = loudness(path)[5:90], loudness(tmp_path / "b.mp4")[5:90]
    assert np.median(b) == pytest.approx(np.median(a), rel=0.1)


def test_a_source_without_sound_and_one_without_pictures(tmp_path: Path, fifty: Path) -> None:
    with_sound(tmp_path / "a.mp4", fifty)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio == ()
    with av.open(str(tmp_path / "a.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.int16), "s16", "stereo")
        sound.sample_rate = 8000
        output.mux(stream.encode(sound))
    with_sound(tmp_path / "b.mp4", tmp_path / "a.wav")
    assert packets(tmp_path / "b.mp4")[0] == "aac"
    with (
        pytest.raises(UserError, match=r"none\.mp4: no such file"),
        writing(tmp_path / "c.mp4", audio_from=tmp_path / "none.mp4"),
    ):
        pass
    assert not list(tmp_path.glob("*c.*"))


def test_sound_goes_along_as_pictures_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = clip(tmp_path / "a.mp4", [numbered(i) for i in range(50)], sound="aac")
    from landmarks_fastai import videosound

    taken = 0
    demuxed = videosound._demuxed

    def counted(container: object, stream: object) -> Iterator[object]:
        nonlocal taken
        for packet in demuxed(container, stream):
            taken += 1
            yield packet

    monkeypatch.setattr(videosound, "_demuxed", counted)
    with writing(tmp_path / "b.mp4", audio_from=source) as writer:
        for index in range(50):
            writer.write(numbered(index), index / RATE)
            assert taken <= (index / RATE) * 48000 / 1024 + 3
    assert taken > 90
