"""Interlaced videos become progressive, frame by frame and at the same times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import RATE, write_clip, write_gray_clip
from numpy.typing import NDArray

from landmarks_fastai.video.reader import VideoReader

av = pytest.importorskip("av")


def field(index: int) -> NDArray[np.uint8]:
    """Return the scene at one half of a frame duration: a bright bar that moves 4 pixels per field."""
    image = np.full((96, 128, 3), 40, np.uint8)
    image[:, 8 + 4 * index : 24 + 4 * index] = 220
    return image


def woven(index: int) -> NDArray[np.uint8]:
    """Return a frame whose odd rows were recorded before its even rows."""
    frame = field(2 * index).copy()
    frame[::2] = field(2 * index + 1)[::2]
    return frame


def combing(image: NDArray[np.uint8]) -> float:
    """Return the mean difference between a row and the mean of its neighbors."""
    rows = image[..., 1].astype(float)
    return float(abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def write_interlaced(path: Path, count: int = 10) -> Path:
    options = {"qp": "0", "x264-params": "bff=1"}
    return write_clip(path, [woven(index) for index in range(count)], options=options)


def test_interlaced_frames_lose_their_combing(tmp_path: Path) -> None:
    with VideoReader(write_interlaced(tmp_path / "a.mp4")) as reader:
        frames = list(reader)
        assert reader.notes == ("interlaced, and therefore deinterlaced",)
        assert reader.damage is None
    assert [frame.time for frame in frames] == [index / RATE for index in range(10)]
    assert combing(woven(5)) > 10
    for index, frame in enumerate(frames[1:-1], 1):
        assert combing(frame.image) < 3
        # the frame shows the time of its first field
        position = np.flatnonzero(frame.image[48, :, 1] > 130).mean()
        assert position == pytest.approx(15.5 + 8 * index, abs=2)


@pytest.mark.parametrize(
    ("options", "count"), [({"start": 0.2}, 5), ({"end": 0.2}, 5), ({"fps": 50.0, "end": 0.2}, 10)]
)
def test_interlaced_span_has_all_frames(tmp_path: Path, options: dict[str, float], count: int) -> None:
    with VideoReader(write_interlaced(tmp_path / "a.mp4"), **options) as reader:
        frames = list(reader)
        assert reader.damage is None
    start = Fraction(options.get("start", 0)).limit_denominator(100)
    assert [frame.time for frame in frames] == [
        start + index / Fraction(options.get("fps", 25)) for index in range(count)
    ]


def test_interlaced_frames_after_progressive_ones_and_of_another_size(tmp_path: Path) -> None:
    first = write_gray_clip(tmp_path / "a.ts", 10).read_bytes()
    second = write_interlaced(tmp_path / "b.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(first + second + first)
    with VideoReader(tmp_path / "joined.ts") as reader:
        frames = list(reader)
        assert "interlaced, and therefore deinterlaced" in reader.notes
    assert len(frames) == 30
    assert all(frame.image.shape == (48, 64, 3) for frame in frames)
    # the first and last frames are untouched
    grays = [round((float(frame.image[20, 30, 1]) - 20) / 4) for frame in (*frames[:10], *frames[20:])]
    assert grays == [*range(10), *range(10)]


def test_progressive_frames_are_not_filtered(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [woven(index) for index in range(5)], options={"qp": "0"})
    with VideoReader(path) as reader:
        assert all(combing(frame.image) > 10 for frame in reader)
        assert reader.notes == ()
