"""The video command, from its options to its files, on whatever people will give it."""

from __future__ import annotations

import csv
import os
import resource
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import RATE, clip, colours_of, noisy, numbered, quarters, read, turned
from numpy.typing import NDArray

from landmarks_fastai.cli import run
from landmarks_fastai.data.synthetic import draw_picture
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.videofile import VideoReader

Video = Callable[..., str]


@pytest.fixture
def video(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Video:
    """Run the command on the centred square with a small model; give back what it said."""
    model = str(workplace / "runs" / "quick")

    def command(*options: str | Path, code: int = 0, detector: str = "none") -> str:
        arguments = ["video", *map(str, options), "--model", model, "--detector", detector, "--device", "cpu"]
        capsys.readouterr()
        assert run(arguments) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        if code:
            assert "a fault of ours" not in said.err
            return said.err
        return said.out

    return command


def images(path: Path) -> list[NDArray[np.uint8]]:
    with VideoReader(path) as reader:
        return [frame.image for frame in reader]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_frames_keep_their_uneven_times(video: Video, tmp_path: Path) -> None:
    ticks = [0, 3, 4, 9, 30, 31, 32]
    source = clip(tmp_path / "a.mp4", [numbered(i) for i in range(7)], unit=Fraction(1, 30), ticks=ticks)
    out, points = tmp_path / "out.mp4", tmp_path / "points.csv"
    said = video(source, "--out", out, "--landmarks", points)
    assert "7 frames, 1 face" in said
    times = [frame / Fraction(30) for frame in ticks]
    assert read(out)[0] == times
    found = rows(points)
    assert len(found) == 7 * 15
    assert [float(row["time"]) for row in found[::15]] == pytest.approx(
        [float(time) for time in times], abs=1e-6
    )
    assert list(found[0]) == ["frame", "time", "face", "point", "x", "y", "confidence"]


def test_a_phone_s_clip_comes_out_upright(video: Video, tmp_path: Path) -> None:
    source = turned(clip(tmp_path / "a.mp4", [quarters(480, 320)] * 3), (0, 1, -1, 0))
    video(source, "--out", tmp_path / "out.mp4", "--frames", tmp_path / "frames")
    for image in images(tmp_path / "out.mp4"):
        assert image.shape == (480, 320, 3)
        assert colours_of(image) == "BRWG"
    assert len(list((tmp_path / "frames").glob("*.png"))) == 3


@pytest.mark.parametrize("size", [(320, 239), (319, 240), (319, 239)])
def test_an_odd_size_is_padded(video: Video, tmp_path: Path, size: tuple[int, int]) -> None:
    source = clip(tmp_path / "a.mkv", [numbered(i, size) for i in range(3)], codec="ffv1")
    video(source, "--out", tmp_path / "out.mp4", "--landmarks", tmp_path / "p.csv")
    assert [image.shape for image in images(tmp_path / "out.mp4")] == [(240, 320, 3)] * 3


def test_one_frame(video: Video, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [numbered(5)])
    assert "1 frame, 1 face" in video(source, "--out", tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4") == ([0], [5])


def test_frames_without_a_face_are_there_too(video: Video, tmp_path: Path) -> None:
    face, _ = draw_picture(0, (160, 120))
    blank = np.full_like(face, 90)
    shown = [blank] * 3 + [face] * 5 + [blank] * 2
    source = clip(tmp_path / "a.mp4", shown)
    out, points = tmp_path / "out.mp4", tmp_path / "p.csv"
    assert "10 frames" in video(source, "--out", out, "--landmarks", points, detector="centerface")
    assert len(images(out)) == 10
    with_face = {int(row["frame"]) for row in rows(points)}
    assert {3, 4, 5, 6, 7} & with_face
    assert not {0, 1, 2} & with_face


def test_4k(video: Video, tmp_path: Path) -> None:
    source = clip(
        tmp_path / "a.mp4", [numbered(i, (3840, 2160)) for i in range(2)], options={"preset": "ultrafast"}
    )
    video(source, "--out", tmp_path / "out.mp4")
    found = images(tmp_path / "out.mp4")
    assert [image.shape for image in found] == [(2160, 3840, 3)] * 2


def test_what_is_cut_off_is_done_as_far_as_it_goes(video: Video, tmp_path: Path) -> None:
    source = noisy(tmp_path / "a.mp4", faststart=True)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    out, points = tmp_path / "out.mp4", tmp_path / "p.csv"
    said = video(source, "--out", out, "--landmarks", points, code=1)
    done = len(images(out))
    assert 20 <= done <= 32
    assert f"until {(done - 1) / 25:.2f} s is whole" in said
    assert "cut off or damaged" in said
    assert len(rows(points)) == 15 * done


def test_what_is_no_video(video: Video, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("notes\n" * 100)
    (tmp_path / "empty.mp4").touch()
    reasons = {"notes.mp4": "not a video", "empty.mp4": "0 bytes", "none.mp4": "no such file"}
    for name, reason in reasons.items():
        said = video(tmp_path / name, "--out", tmp_path / "out.mp4", code=2)
        assert name in said
        assert reason in said
    assert not (tmp_path / "out.mp4").exists()


def test_what_is_there_is_only_replaced_when_asked(video: Video, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [numbered(0)])
    out = tmp_path / "out.mp4"
    out.write_bytes(b"what was there")
    said = video(source, "--out", out, code=2)
    assert "out.mp4 is there already" in said
    assert "--overwrite" in said
    assert out.read_bytes() == b"what was there"
    video(source, "--out", out, "--overwrite")
    assert len(images(out)) == 1
    assert "the source itself" in video(source, "--out", source, "--overwrite", code=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(video: Video, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", [numbered(0)])
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "Permission denied" in video(source, "--out", closed / "out.mp4", code=1)


def test_a_full_disk(video: Video, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    source = clip(tmp_path / "a.mp4", [noise.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(30)])
    out = tmp_path / "out" / "b.mp4"
    out.parent.mkdir()
    # a limit on the size of files makes the very write fail that a full disk would
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        said = video(source, "--out", out, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "b.mp4: can't be written" in said
    assert "make room" in said
    assert os.listdir(out.parent) == []


def test_ctrl_c_leaves_what_was_done(video: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = clip(tmp_path / "a.mp4", [numbered(i) for i in range(20)])
    follow = Tracker.__call__
    seen = []

    def press(tracker: Tracker, image: NDArray[np.uint8], time: float) -> object:
        seen.append(time)
        if len(seen) == 8:
            signal.raise_signal(signal.SIGINT)
        return follow(tracker, image, time)

    monkeypatch.setattr(Tracker, "__call__", press)
    out, points = tmp_path / "out.mp4", tmp_path / "p.csv"
    said = video(source, "--out", out, "--landmarks", points)
    assert "8 frames" in said
    assert "stopped by you at 0.28 s" in said
    assert read(out)[0] == [i / RATE for i in range(8)]
    assert len(rows(points)) == 8 * 15
