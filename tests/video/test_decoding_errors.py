"""Frames that cannot be decoded in the middle of a video are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.clips import RATE, write_clip

from landmarks_fastai.video.reader import VideoReader

av = pytest.importorskip("av")

DAMAGED = (14, 25, 26)
"""Indices of the packets that are damaged."""


def write_damaged(path: Path, codec: str) -> Path:
    """Write 50 incompressible frames, and overwrite the middle of some packets with zeros."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    options = {"x265-params": "keyint=10:log-level=none"} if codec == "libx265" else {"g": "10"}
    write_clip(path, [np.roll(noise, index, 1) for index in range(50)], codec=codec, options=options)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for position, size in (packets[index] for index in DAMAGED):
        content[position + size // 3 : position + 2 * size // 3] = bytes(2 * size // 3 - size // 3)
    path.write_bytes(content)
    return path


def test_frames_that_raise_no_error_and_are_missing_are_counted(tmp_path: Path) -> None:
    with VideoReader(write_damaged(tmp_path / "a.mp4", "libx265")) as reader:
        times = [frame.time for frame in reader]
        missing = sorted({index / RATE for index in range(50)} - set(times))
        assert missing
        assert reader.damage == (
            f"left out because they cannot be decoded: {len(missing)} frames"
            f" (the first at {float(missing[0]):.2f} s)"
        )


def test_errors_before_the_end_of_the_span_are_reported(tmp_path: Path) -> None:
    path = write_damaged(tmp_path / "a.mp4", "libx264")
    with VideoReader(path, end=1.6) as reader:
        assert list(reader)
        assert reader.damage is not None
        assert reader.damage.startswith("damaged packets were skipped: ")
    with VideoReader(path, end=0.4) as reader:
        assert len(list(reader)) == 10
        assert reader.damage is None
    with VideoReader(path, start=1.5) as reader:
        assert list(reader)
        assert reader.damage is None


def test_frames_decoded_in_part_are_noted(tmp_path: Path) -> None:
    with VideoReader(write_damaged(tmp_path / "a.avi", "mpeg4")) as reader:
        assert len(list(reader)) == 50
        assert reader.damage is None
        assert reader.notes == ("decoded only in part: 3 frames (the first at 0.56 s)",)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "bframes=3:b-pyramid=normal:open-gop=1:keyint=8"}),
        ("a.mkv", "libx265", {"x265-params": "keyint=8:open-gop=1:log-level=none"}),
        ("a.ts", "libx264", {"x264-params": "tff=1:keyint=8"}),
        ("a.webm", "libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    ],
)
@pytest.mark.parametrize("start", [0.0, 0.7])
def test_intact_video_has_no_damage(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], start: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    frames = [np.roll(noise, index, 1) for index in range(50)]
    with VideoReader(
        write_clip(tmp_path / name, frames, codec=codec, options=options), start=start
    ) as reader:
        assert len(list(reader)) == 50 - np.ceil(start * 25)
        assert reader.damage is None
        assert not [note for note in reader.notes if "decoded" in note]
