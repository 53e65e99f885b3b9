"""Frames written to a folder and read again have the same pixels and times."""

from __future__ import annotations

import os
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.file_sizes import limited_file_size
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.video.frame_folder import FrameFolderReader, FrameFolderWriter, format_time, parse_time
from landmarks_fastai.video.timing import TIME_BASE


def indexed_frame(index: int, size: tuple[int, int] = (12, 8)) -> NDArray[np.uint8]:
    """Return a frame whose red value is its index."""
    return np.full((size[1], size[0], 3), (index, 2 * index, 200), np.uint8)


def write_folder(folder: Path, times: list[Fraction], overwrite: bool = False) -> Path:
    with FrameFolderWriter(folder, overwrite) as writer:
        for index, time in enumerate(times):
            writer.write(indexed_frame(index), time)
    return folder


def read_folder(folder: Path, fps: float | None = None) -> tuple[list[Fraction], list[int]]:
    """Return the times and the encoded indices of the frames."""
    with FrameFolderReader(folder, fps) as reader:
        frames = list(reader)
        assert reader.expected == len(frames)
        assert reader.damage is None
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [frame.time for frame in frames], [int(frame.image[0, 0, 0]) for frame in frames]


def assert_refused(folder: Path, message: str, fps: float | None = None) -> None:
    with pytest.raises(UserError, match=message) as caught:
        FrameFolderReader(folder, fps)
    assert "\n" not in str(caught.value)


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "times",
    [
        [Fraction(i, 25) for i in range(12)],
        [Fraction(1001 * i, 30000) for i in range(12)],
        [Fraction(1001 * i, 24000) for i in range(12)],
        [Fraction(0), Fraction(1, 1000), Fraction(1), Fraction(4, 3)],
        [Fraction(0)],
    ],
)
def test_frame_folder_round_trip_keeps_frames_and_times(tmp_path: Path, times: list[Fraction]) -> None:
    folder = write_folder(tmp_path / "new" / "frames", times)
    assert read_folder(folder) == (times, list(range(len(times))))
    with FrameFolderReader(folder) as reader:
        (first, *_) = reader
        np.testing.assert_array_equal(first.image, indexed_frame(0))
        assert reader.size == (12, 8)
        assert all(time % reader.time_base == 0 for time in times)
        if len(times) > 1:
            assert reader.rate == (len(times) - 1) / times[-1]
            assert reader.duration == times[-1] + 1 / reader.rate


def test_reader_average_rate_fits_into_32_bits(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [Fraction(0), TIME_BASE, 3 * TIME_BASE, Fraction(123_456_789, 360_000)])
    rate = FrameFolderReader(folder).rate
    assert float(rate) == pytest.approx(3 / 342.9355, rel=0.01)
    assert rate.numerator < 2**31
    write_folder(folder, [Fraction(0), Fraction(10**6)], overwrite=True)
    assert FrameFolderReader(folder).rate == Fraction(1, 5000)


@given(ticks=st.integers(0, 10**10))
def test_parse_time_restores_formatted_time_exactly(ticks: int) -> None:
    assert parse_time(format_time(ticks * TIME_BASE)) == ticks * TIME_BASE


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-inf", "1e999", "1e300", "-1e10", "1/3"])
def test_parse_time_of_other_text_is_none(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("text", "time"), [("1e-9999999", 0), ("1e-99999999999", 0), ("2.5e-1", Fraction(1, 4)), ("1e6", 10**6)]
)
def test_parse_time_of_small_exponent_is_fast(text: str, time: Fraction) -> None:
    assert parse_time(text) == time


def test_writer_times_file_has_name_and_seconds(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1, 30)])
    assert sorted(os.listdir(tmp_path)) == ["frame_000001.png", "frame_000002.png", "times.csv"]
    text = (tmp_path / "times.csv").read_text()
    assert text == "name,seconds\nframe_000001.png,0.000000000\nframe_000002.png,0.033333333\n"


def test_reader_without_times_file_uses_natural_order_and_a_fixed_rate(tmp_path: Path) -> None:
    for index, name in ((3, "10.bmp"), (2, "2.png"), (0, "1.png"), (1, "1b.tif")):
        Image.fromarray(indexed_frame(index)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert read_folder(tmp_path) == ([Fraction(i, 25) for i in range(4)], [0, 1, 2, 3])
    assert read_folder(tmp_path, 29.97002997)[0] == [Fraction(1001 * i, 30000) for i in range(4)]
    with FrameFolderReader(tmp_path, 10) as reader:
        assert (reader.rate, reader.time_base, reader.duration) == (10, Fraction(1, 10), Fraction(4, 10))


def test_reader_fps_overrides_times_file(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(5)])
    assert read_folder(tmp_path, 10)[0] == [0, Fraction(1, 10)]
    assert read_folder(tmp_path)[0] == [0, 5]


def test_reader_deleted_frames_shift_times_to_the_first_one(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(i, 10) for i in range(6)])
    for number in (1, 2, 5):
        (tmp_path / f"frame_{number:06d}.png").unlink()
    assert read_folder(tmp_path) == ([0, Fraction(1, 10), Fraction(3, 10)], [2, 3, 5])


def test_reader_times_file_with_byte_order_mark_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1)])
    text = "name,seconds\r\nframe_000001.png,2.5\r\nframe_000002.png,4\r\n"
    (tmp_path / "times.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_folder(tmp_path)[0] == [0, Fraction(3, 2)]


def test_reader_times_file_with_decimal_commas_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1)])
    (tmp_path / "times.csv").write_text("name;seconds\nframe_000001.png;2,5\nframe_000002.png;4\n")
    assert read_folder(tmp_path)[0] == [0, Fraction(3, 2)]


def test_reader_notes_skipped_files_and_bits_in_use(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(np.full((8, 12), 4000, np.uint16)).save(tmp_path / f"{index}.png")
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "times.csv").write_text("name,seconds\n0.png,0\n1.png,1\n2.png,2\n")
    with FrameFolderReader(tmp_path) as reader:
        assert next(iter(reader)).image.max() == 249
        assert list(reader)
        assert reader.notes == (
            f"{tmp_path}: 1 file skipped: .mp4 (1); videos are for the video command",
            f"{tmp_path / '0.png'}: 16 bits per level, of which 12 are in use; 4095 is shown as white",
        )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("seconds,name\n", r"times\.csv: the first line must be name,seconds; correct or delete times\.csv"),
        ("name,seconds\nframe_000001.png,0\n", r"has no row for frame_000002\.png"),
        (
            "name,seconds\nframe_000001.png,0\nframe_000002.png,soon\n",
            r"times\.csv, line 3: 'soon' is not a number of seconds",
        ),
        ("name,seconds\nframe_000001.png,nan\n", "line 2"),
        ("name,seconds\nframe_000001.png\n", "line 2"),
        (
            "name,seconds\nframe_000001.png,1\nframe_000002.png,1\n",
            r"time of frame_000002\.png is not later",
        ),
        ("", r"times\.csv: the file is empty"),
    ],
)
def test_reader_invalid_times_file_is_refused(tmp_path: Path, table: str, message: str) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1)])
    (tmp_path / "times.csv").write_text(table)
    assert_refused(tmp_path, message)
    assert read_folder(tmp_path, 1)[0] == [0, 1]


def test_reader_times_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1)])
    (tmp_path / "times.csv").write_bytes(b"name,seconds\n\xff\xfe")
    assert_refused(tmp_path, r"times\.csv: not .*UTF-8 text")


# --- images ---------------------------------------------------------------------------------------


def test_reader_invalid_folder_or_rate_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "not a folder of images")
    assert_refused(tmp_path, "no images directly in this folder")
    write_folder(tmp_path, [Fraction(0)])
    assert_refused(tmp_path / "frame_000001.png", "not a folder of images")
    assert_refused(tmp_path, "--fps 0", 0)


def test_reader_frame_of_other_size_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1), Fraction(2)])
    Image.fromarray(indexed_frame(1, (8, 12))).save(tmp_path / "frame_000002.png")
    with (
        pytest.raises(UserError, match=r"frame_000002\.png: 8 x 12 px, but frame_000001\.png is 12 x 8 px"),
        FrameFolderReader(tmp_path) as reader,
    ):
        list(reader)


def test_reader_damaged_frame_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1), Fraction(2)])
    (tmp_path / "frame_000002.png").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"frame_000002\.png: the file is empty"),
        FrameFolderReader(tmp_path) as reader,
    ):
        list(reader)


# --- writing --------------------------------------------------------------------------------------


def test_writer_overwrite_deletes_only_its_own_frames(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(i) for i in range(5)])
    with pytest.raises(UserError, match="not empty; choose another folder, or use --overwrite"):
        write_folder(tmp_path, [Fraction(0)])
    assert len(os.listdir(tmp_path)) == 6
    others = ["frame_1.png", "my frame_000001.png", "notes.txt"]
    for name in others:
        (tmp_path / name).touch()
    write_folder(tmp_path, [Fraction(0), Fraction(1)], overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["frame_000001.png", "frame_000002.png", "times.csv", *others]
    )


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_writer_exception_keeps_new_frames_or_those_that_they_would_replace(
    tmp_path: Path, frames: int
) -> None:
    def write_and_interrupt(count: int, offset: int) -> None:
        with FrameFolderWriter(tmp_path / "new", overwrite=True) as writer:
            for index in range(count):
                writer.write(indexed_frame(offset + index), Fraction(index, 25))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(0, 0)
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(3, 0)
    expected = [Fraction(index, 25) for index in range(3)], [0, 1, 2]
    assert read_folder(tmp_path / "new") == expected
    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(frames, 50)
    assert read_folder(tmp_path / "new") == expected
    assert len(os.listdir(tmp_path / "new")) == 4


def test_writer_without_frames_keeps_those_of_an_earlier_run(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1)])
    write_folder(tmp_path, [], overwrite=True)
    assert read_folder(tmp_path)[1] == [0, 1]


def test_writer_shows_no_new_frame_until_the_end(tmp_path: Path) -> None:
    write_folder(tmp_path, [Fraction(0), Fraction(1)])
    with FrameFolderWriter(tmp_path, overwrite=True) as writer:
        writer.write(indexed_frame(99), Fraction(0))
        assert read_folder(tmp_path)[1] == [0, 1]
    assert read_folder(tmp_path)[1] == [99]


@pytest.mark.parametrize("name", ["frame_000001.png", "FRAME_000002.png", "frame_000003.png", "times.csv"])
def test_writer_never_replaces_files_of_another_origin(tmp_path: Path, name: str) -> None:
    if name == "frame_000003.png":  # even next to frames of its own
        write_folder(tmp_path, [Fraction(0)])
    if name == "times.csv":
        (tmp_path / name).write_text("name,seconds\n")
    else:
        Image.fromarray(indexed_frame(7)).save(tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=rf"{name} would be replaced, but was not written by this program"):
        write_folder(tmp_path, [Fraction(0)], overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_writer_removes_frames_that_a_killed_process_left(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    stale = tmp_path / f".frames.{process.pid}"
    stale.mkdir()
    (stale / "frame_000001.png").touch()
    write_folder(tmp_path, [Fraction(0)])
    assert sorted(os.listdir(tmp_path)) == ["frame_000001.png", "times.csv"]


def test_writer_times_must_increase(tmp_path: Path) -> None:
    with FrameFolderWriter(tmp_path) as writer:
        writer.write(indexed_frame(0), Fraction(1))
        with pytest.raises(ValueError, match="not later"):
            writer.write(indexed_frame(1), Fraction(1))


def test_writer_file_in_place_of_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "frames"):
        with (
            pytest.raises(UserError, match="a file exists where a folder is needed"),
            FrameFolderWriter(path),
        ):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root has write permission everywhere")
def test_writer_folder_without_permission_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written"):
        write_folder(tmp_path, [Fraction(0)])


def test_writer_full_disk_keeps_complete_frames(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)

    def write_frames() -> None:
        with FrameFolderWriter(tmp_path) as writer:
            writer.write(indexed_frame(0), Fraction(0))
            writer.write(noise, Fraction(1))

    with (
        limited_file_size(50_000),
        pytest.raises(RunError, match=r"frame_000002\.png: cannot be written"),
    ):
        write_frames()
    assert sorted(os.listdir(tmp_path)) == ["frame_000001.png", "times.csv"]
