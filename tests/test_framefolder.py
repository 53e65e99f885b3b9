"""Frames that were taken apart and put together again come at the times that they had."""

from __future__ import annotations

import os
import resource
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.framefolder import TIME_BASE, FrameFolder, FrameWriter, _seconds


def numbered(index: int, size: tuple[int, int] = (12, 8)) -> NDArray[np.uint8]:
    return np.full((size[1], size[0], 3), (index, 2 * index, 200), np.uint8)


def extract(folder: Path, times: list[Fraction], overwrite: bool = False) -> Path:
    with FrameWriter(folder, overwrite) as writer:
        for index, time in enumerate(times):
            writer.write(numbered(index), time)
    return folder


def read(folder: Path, fps: float | None = None) -> tuple[list[Fraction], list[int]]:
    with FrameFolder(folder, fps) as reader:
        frames = list(reader)
        assert reader.expected == len(frames)
        assert reader.damage is None
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [frame.time for frame in frames], [int(frame.image[0, 0, 0]) for frame in frames]


def refused(folder: Path, said: str, fps: float | None = None) -> None:
    with pytest.raises(UserError, match=said) as caught:
        FrameFolder(folder, fps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "times",
    [
        [Fraction(i, 25) for i in range(12)],
        [Fraction(1001 * i, 30000) for i in range(12)],
        [Fraction(1001 * i, 24000) for i in range(12)],
        [Fraction(0), Fraction(1, 1000), Fraction(1), Fraction(4, 3), Fraction(90001, 90000)][:4],
        [Fraction(0)],
    ],
)
def test_pixels_and_times_survive(tmp_path: Path, times: list[Fraction]) -> None:
    folder = extract(tmp_path / "new" / "frames", times)
    assert read(folder) == (times, list(range(len(times))))
    with FrameFolder(folder) as reader:
        (first, *_) = reader
        np.testing.assert_array_equal(first.image, numbered(0))
        assert reader.size == (12, 8)
        assert all(time % reader.time_base == 0 for time in times)
        if len(times) > 1:
            assert reader.rate == (len(times) - 1) / times[-1]
            assert reader.duration == times[-1] + 1 / reader.rate


def test_the_average_rate_fits_into_a_video(tmp_path: Path) -> None:
    folder = extract(tmp_path, [Fraction(0), TIME_BASE, 3 * TIME_BASE, Fraction(123_456_789, 360_000)])
    rate = FrameFolder(folder).rate
    assert float(rate) == pytest.approx(3 / 342.9355, rel=0.01)
    assert rate.numerator < 2**31
    extract(folder, [Fraction(0), Fraction(10**6)], overwrite=True)
    assert FrameFolder(folder).rate == Fraction(1, 5000)


@given(ticks=st.integers(0, 10**10))
def test_a_time_in_the_table_is_near_enough_to_be_exact(ticks: int) -> None:
    assert _seconds(["a.png", f"{float(ticks * TIME_BASE):.9f}"]) == ticks * TIME_BASE


def test_the_table_of_times(tmp_path: Path) -> None:
    extract(tmp_path, [Fraction(0), Fraction(1, 30)])
    assert sorted(os.listdir(tmp_path)) == ["frame_000001.png", "frame_000002.png", "times.csv"]
    text = (tmp_path / "times.csv").read_text()
    assert text == "name,seconds\nframe_000001.png,0.000000000\nframe_000002.png,0.033333333\n"


def test_pictures_of_any_kind_in_natural_order_at_25_a_second_or_another_rate(tmp_path: Path) -> None:
    for index, name in ((3, "10.bmp"), (2, "2.png"), (0, "1.png"), (1, "1b.tif")):
        Image.fromarray(numbered(index)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert read(tmp_path) == ([Fraction(i, 25) for i in range(4)], [0, 1, 2, 3])
    assert read(tmp_path, 29.97002997)[0] == [Fraction(1001 * i, 30000) for i in range(4)]
    with FrameFolder(tmp_path, 10) as reader:
        assert (reader.rate, reader.time_base, reader.duration) == (10, Fraction(1, 10), Fraction(4, 10))


def test_fps_comes_before_the_table(tmp_path: Path) -> None:
    extract(tmp_path, [Fraction(0), Fraction(5)])
    assert read(tmp_path, 10)[0] == [0, Fraction(1, 10)]
    assert read(tmp_path)[0] == [0, 5]


def test_frames_may_be_taken_away_and_time_begins_with_the_first(tmp_path: Path) -> None:
    extract(tmp_path, [Fraction(i, 10) for i in range(6)])
    for number in (1, 2, 5):
        (tmp_path / f"frame_{number:06d}.png").unlink()
    assert read(tmp_path) == ([0, Fraction(1, 10), Fraction(3, 10)], [2, 3, 5])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("seconds,name\n", r"times\.csv: the first line is not name,seconds; correct or delete times\.csv"),
        ("name,seconds\nframe_000001.png,0\n", r"has no row for frame_000002\.png"),
        ("name,seconds\nframe_000001.png,0\nframe_000002.png,soon\n", r"times\.csv, line 3: not a name"),
        ("name,seconds\nframe_000001.png,nan\n", "line 2"),
        ("name,seconds\nframe_000001.png\n", "line 2"),
        ("name,seconds\nframe_000001.png,1\nframe_000002.png,1\n", r"frame_000002\.png is not later"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, table: str, said: str) -> None:
    extract(tmp_path, [Fraction(0), Fraction(1)])
    (tmp_path / "times.csv").write_text(table)
    refused(tmp_path, said)
    assert read(tmp_path, 1)[0] == [0, 1]
    (tmp_path / "times.csv").write_bytes(b"name,seconds\n\xff\xfe")
    refused(tmp_path, r"times\.csv: can't be read")


def test_what_is_no_folder_of_frames(tmp_path: Path) -> None:
    refused(tmp_path / "none", "not a folder of pictures")
    refused(tmp_path, "no pictures right in this folder")
    extract(tmp_path, [Fraction(0)])
    refused(tmp_path / "frame_000001.png", "not a folder of pictures")
    refused(tmp_path, "--fps 0", 0)


def test_a_frame_of_another_size_or_damaged_is_named(tmp_path: Path) -> None:
    extract(tmp_path, [Fraction(0), Fraction(1), Fraction(2)])
    Image.fromarray(numbered(1, (8, 12))).save(tmp_path / "frame_000002.png")
    with (
        pytest.raises(UserError, match=r"frame_000002\.png: 8 x 12 px, and frame_000001\.png is 12 x 8"),
        FrameFolder(tmp_path) as reader,
    ):
        list(reader)
    (tmp_path / "frame_000002.png").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"frame_000002\.png: the file is empty"),
        FrameFolder(tmp_path) as reader,
    ):
        list(reader)


def test_only_own_frames_are_overwritten(tmp_path: Path) -> None:
    extract(tmp_path, [Fraction(i) for i in range(5)])
    with pytest.raises(UserError, match="not empty; choose another folder, or use --overwrite"):
        extract(tmp_path, [Fraction(0)])
    assert len(os.listdir(tmp_path)) == 6
    others = ["frame_1.png", "my frame_000001.png", "notes.txt"]
    for name in others:
        (tmp_path / name).touch()
    extract(tmp_path, [Fraction(0), Fraction(1)], overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["frame_000001.png", "frame_000002.png", "times.csv", *others]
    )


def test_times_are_written_whatever_ends_it(tmp_path: Path) -> None:
    def work(frames: int) -> None:
        with FrameWriter(tmp_path, overwrite=True) as writer:
            for index in range(frames):
                writer.write(numbered(index), Fraction(index, 7))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(3)
    assert read(tmp_path)[1] == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        work(0)
    assert os.listdir(tmp_path) == []


def test_times_increase(tmp_path: Path) -> None:
    with FrameWriter(tmp_path) as writer:
        writer.write(numbered(0), Fraction(1))
        with pytest.raises(ValueError, match="not later"):
            writer.write(numbered(1), Fraction(1))


def test_a_folder_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "frames"):
        with pytest.raises(UserError, match="a file stands where a folder should be"), FrameWriter(path):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="can't be written"):
        extract(tmp_path, [Fraction(0)])


def test_a_full_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)

    def work() -> None:
        with FrameWriter(tmp_path) as writer:
            writer.write(numbered(0), Fraction(0))
            writer.write(noise, Fraction(1))

    # a limit on the size of files makes the very write fail that a full disk would
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RunError, match=r"frame_000002\.png: can't be written"):
            work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path)) == ["frame_000001.png", "times.csv"]
