"""The video command, from its options to its files, and `annotate_video` with a stand-in for the tracker."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.clips import (
    RATE,
    gray_frame,
    quadrant_colors,
    quadrant_frame,
    read_gray_clip,
    set_display_matrix,
    write_clip,
    write_gray_clip,
    write_noise_clip,
)
from helpers.file_sizes import limited_file_size
from helpers.killing import run_killed
from numpy.typing import NDArray

from landmarks_fastai.cli.app import run
from landmarks_fastai.commands.video import VideoResult, annotate_video
from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.video.frame_folder import FrameFolderReader
from landmarks_fastai.video.io import read_video
from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.visualization.landmarks import draw_landmarks

VideoCommand = Callable[..., str]


@pytest.fixture
def video(trained_workspace: Path, capsys: pytest.CaptureFixture[str]) -> VideoCommand:
    """Return a function that runs the command on the center crop and returns its output or error message."""
    model = str(trained_workspace / "runs" / "quick")

    def command(*options: str | Path, code: int = 0, detector: str = "none") -> str:
        arguments = ["video", *map(str, options), "--model", model, "--detector", detector, "--device", "cpu"]
        capsys.readouterr()
        assert run(arguments) == code
        captured = capsys.readouterr()
        # the command warns that the model was trained on synthetic faces
        lines = [line for line in captured.err.splitlines() if not line.startswith("warning: ")]
        if code == 0:
            assert lines == []
            return captured.out
        (message,) = lines
        assert message.startswith("error: ")
        assert "internal error" not in message
        return message

    return command


def read_images(path: Path) -> list[NDArray[np.uint8]]:
    with VideoReader(path) as reader:
        return [frame.image for frame in reader]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- the command ----------------------------------------------------------------------------------


def test_video_variable_frame_rate_keeps_times(video: VideoCommand, tmp_path: Path) -> None:
    ticks = [0, 3, 4, 9, 30, 31, 32]
    source = write_gray_clip(tmp_path / "a.mp4", 7, time_base=Fraction(1, 30), ticks=ticks)
    out, landmarks = tmp_path / "out.mp4", tmp_path / "landmarks.csv"
    printed = video(source, "--out", out, "--landmarks", landmarks)
    assert printed.splitlines()[-1] == f"7 frames, 1 track: {out}, {landmarks}"
    times = [tick / Fraction(30) for tick in ticks]
    assert read_gray_clip(out)[0] == times
    rows = read_rows(landmarks)
    assert len(rows) == 7 * 15
    assert [float(row["time"]) for row in rows[::15]] == pytest.approx(
        [float(time) for time in times], abs=1e-6
    )
    assert list(rows[0]) == ["frame", "time", "track_id", "landmark", "x", "y", "confidence"]


def test_video_rotated_clip_is_written_upright(video: VideoCommand, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [quadrant_frame(480, 320)] * 3)
    source = set_display_matrix(clip, (0, 1, -1, 0))
    video(source, "--out", tmp_path / "out.mp4", "--frames", tmp_path / "frames")
    for image in read_images(tmp_path / "out.mp4"):
        assert image.shape == (480, 320, 3)
        assert quadrant_colors(image) == "BRWG"
    assert len(list((tmp_path / "frames").glob("*.png"))) == 3


@pytest.mark.parametrize("size", [(320, 239), (319, 240), (319, 239)])
def test_video_odd_size_is_padded(video: VideoCommand, tmp_path: Path, size: tuple[int, int]) -> None:
    source = write_clip(tmp_path / "a.mkv", [gray_frame(i, size) for i in range(3)], codec="ffv1")
    video(source, "--out", tmp_path / "out.mp4", "--landmarks", tmp_path / "p.csv")
    assert [image.shape for image in read_images(tmp_path / "out.mp4")] == [(240, 320, 3)] * 3


def test_video_single_frame_is_written(video: VideoCommand, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", [gray_frame(5)])
    assert "1 frame, 1 track" in video(source, "--out", tmp_path / "out.mp4")
    assert read_gray_clip(tmp_path / "out.mp4") == ([0], [5])


def test_video_frames_without_faces_are_written(video: VideoCommand, tmp_path: Path) -> None:
    face, _ = draw_synthetic_photo(0, (160, 120))
    blank = np.full_like(face, 90)
    source = write_clip(tmp_path / "a.mp4", [blank] * 3 + [face] * 5 + [blank] * 2)
    out, landmarks = tmp_path / "out.mp4", tmp_path / "p.csv"
    assert "10 frames" in video(source, "--out", out, "--landmarks", landmarks, detector="centerface")
    assert len(read_images(out)) == 10
    with_face = {int(row["frame"]) for row in read_rows(landmarks)}
    assert {3, 4, 5, 6, 7} & with_face
    assert not {0, 1, 2} & with_face


def test_video_4k_keeps_its_size(video: VideoCommand, tmp_path: Path) -> None:
    frames = [gray_frame(i, (3840, 2160)) for i in range(2)]
    source = write_clip(tmp_path / "a.mp4", frames, options={"preset": "ultrafast"})
    video(source, "--out", tmp_path / "out.mp4")
    assert [image.shape for image in read_images(tmp_path / "out.mp4")] == [(2160, 3840, 3)] * 2


def test_video_truncated_source_is_written_up_to_its_end(video: VideoCommand, tmp_path: Path) -> None:
    source = write_noise_clip(tmp_path / "a.mp4", faststart=True)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    out, landmarks = tmp_path / "out.mp4", tmp_path / "p.csv"
    message = video(source, "--out", out, "--landmarks", landmarks, code=1)
    count = len(read_images(out))
    assert 20 <= count <= 32
    assert f"the output is complete up to {(count - 1) / 25:.2f} s" in message
    assert "cut off or damaged" in message
    assert len(read_rows(landmarks)) == 15 * count


def test_video_invalid_source_is_refused(video: VideoCommand, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("notes\n" * 100)
    (tmp_path / "empty.mp4").touch()
    reasons = {"notes.mp4": "not a video", "empty.mp4": "0 bytes", "none.mp4": "no such file"}
    for name, reason in reasons.items():
        message = video(tmp_path / name, "--out", tmp_path / "out.mp4", code=2)
        assert name in message
        assert reason in message
    assert not (tmp_path / "out.mp4").exists()


def test_video_existing_output_is_replaced_only_with_overwrite(video: VideoCommand, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", [gray_frame(0)])
    out = tmp_path / "out.mp4"
    out.write_bytes(b"existing")
    message = video(source, "--out", out, code=2)
    assert "out.mp4: already exists" in message
    assert "--overwrite" in message
    assert out.read_bytes() == b"existing"
    video(source, "--out", out, "--overwrite")
    assert len(read_images(out)) == 1
    assert "is the source itself" in video(source, "--out", source, "--overwrite", code=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root has write permission everywhere")
def test_video_folder_without_permission_is_reported(video: VideoCommand, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", [gray_frame(0)])
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "Permission denied" in video(source, "--out", closed / "out.mp4", code=1)


def test_video_full_disk_leaves_no_file(video: VideoCommand, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(30)]
    source = write_clip(tmp_path / "a.mp4", frames)
    out = tmp_path / "out" / "b.mp4"
    out.parent.mkdir()
    with limited_file_size(100_000):
        message = video(source, "--out", out, code=1)
    assert "b.mp4: cannot be written" in message
    assert "free some space" in message
    assert os.listdir(out.parent) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_video_signal_keeps_the_frames_so_far(
    video: VideoCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 20)
    track = Tracker.__call__
    times = []

    def track_and_interrupt(tracker: Tracker, image: NDArray[np.uint8], time: float) -> Landmarks:
        times.append(time)
        if len(times) == 8:
            signal.raise_signal(number)
        return track(tracker, image, time)

    monkeypatch.setattr(Tracker, "__call__", track_and_interrupt)
    out, landmarks = tmp_path / "out.mp4", tmp_path / "p.csv"
    frames = tmp_path / "frames"
    message = video(source, "--out", out, "--landmarks", landmarks, "--frames", frames, code=1)
    assert message == f"error: {source}: interrupted; the output is complete up to 0.28 s"
    assert len(read_images(out)) == 8
    assert len(list(frames.glob("*.png"))) == 8
    assert read_gray_clip(out)[0] == [i / RATE for i in range(8)]
    assert len(read_rows(landmarks)) == 8 * 15


# --- the function ---------------------------------------------------------------------------------


class FakeTracker:
    """Stand-in for `Tracker` that returns faces with the given track IDs, all landmarks at one point.

    Parameters
    ----------
    track_ids
        Track IDs of each frame.
    """

    def __init__(self, *track_ids: tuple[int, ...]) -> None:
        self.predictor = SimpleNamespace(schema=KAGGLE15, predicts_visibility=False)
        self.times: list[float] = []
        self.discarded, self.min_confidence = 0, 0.5
        self._track_ids = iter(track_ids)

    def __call__(self, image: NDArray[np.uint8], time: float) -> Landmarks:
        self.times.append(time)
        track_ids = next(self._track_ids)
        points = np.full((len(track_ids), 15, 2), 40, np.float32)
        certain = np.ones(points.shape[:2], np.float32)
        return Landmarks(points, KAGGLE15, certain, certain, track_ids=track_ids)


def test_annotate_video_excerpt_shifts_the_video_and_keeps_times_of_landmarks(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 20)
    out, landmarks = tmp_path / "out.mp4", tmp_path / "p.csv"
    tracker, reported = FakeTracker((0,), (0, 3), (3,)), []
    result = annotate_video(
        source,
        out,
        tracker,
        start=0.4,
        end=0.52,
        draw=False,
        landmark_files=[landmarks],
        progress=lambda count, expected, unit="frames": reported.append((count, expected)),
    )
    assert result == VideoResult(frames=3, seconds=0.48, tracks=2, damage=None, interrupted=False)
    assert tracker.times == [0.4, 0.44, 0.48]
    assert read_gray_clip(out) == ([0, 1 / RATE, 2 / RATE], [10, 11, 12])
    rows = read_rows(landmarks)[::15]
    assert [(row["frame"], row["time"], row["track_id"]) for row in rows] == [
        ("0", "0.400000", "0"),
        ("1", "0.440000", "0"),
        ("1", "0.440000", "3"),
        ("2", "0.480000", "3"),
    ]
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_annotate_video_labels_faces_once_there_are_two_tracks(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 4, options={"qp": "0"})
    frames = tmp_path / "frames"
    annotate_video(source, None, FakeTracker((), (5,), (5, 6), (6,)), frames=frames)
    with FrameFolderReader(frames) as reader:
        above = [frame.image[:30, 30:50] for frame in reader]
    changed = [int(np.abs(image - np.median(image)).max()) for image in above]
    assert max(changed[:2]) < 8  # no label
    assert min(changed[2:]) > 100


def test_annotate_video_in_threads_gives_the_same_frames_as_one_after_the_other(
    tmp_path: Path,
) -> None:
    source = write_noise_clip(tmp_path / "a.mp4")
    frames, landmarks = tmp_path / "frames", tmp_path / "p.csv"
    ids = [(), *[(0,)] * 5, *[(0, 1)] * 20, *[(1,)] * 24]
    annotate_video(source, None, FakeTracker(*ids), frames=frames, landmark_files=[landmarks])
    tracker, known, rows = FakeTracker(*ids), set(), 0
    with read_video(source) as reader, FrameFolderReader(frames) as annotated:
        for frame, result in zip(reader, annotated, strict=True):
            faces = tracker(frame.image, float(frame.time))
            known.update(faces.track_ids or ())
            captions = [str(one) for one in faces.track_ids or ()] if len(known) > 1 else None
            np.testing.assert_array_equal(result.image, draw_landmarks(frame.image, faces, captions=captions))
            rows += 15 * len(faces)
    assert len(read_rows(landmarks)) == rows
    assert [int(row["frame"]) for row in read_rows(landmarks)] == sorted(
        int(row["frame"]) for row in read_rows(landmarks)
    )


def test_annotate_video_error_while_drawing_ends_it_with_the_frames_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 12)
    calls = 0

    def draw_or_fail(image: NDArray[np.uint8], *_: object, **__: object) -> NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise ZeroDivisionError
        return image

    monkeypatch.setattr("landmarks_fastai.commands.video.draw_landmarks", draw_or_fail)
    out = tmp_path / "out.mp4"
    with pytest.raises(ZeroDivisionError):
        annotate_video(source, out, FakeTracker(*[(0,)] * 12))
    assert read_gray_clip(out)[1] == list(range(4))


def test_annotate_video_without_tracker_copies_frames(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 5)
    frames, out = tmp_path / "frames", tmp_path / "out.mp4"
    result = annotate_video(source, None, None, frames=frames)
    assert result == VideoResult(frames=5, seconds=0.16, tracks=0, damage=None, interrupted=False)
    annotate_video(frames, out, None)
    assert read_gray_clip(out) == ([i / RATE for i in range(5)], list(range(5)))


def test_annotate_video_removes_what_killed_processes_left(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 2)
    process = subprocess.Popen(["true"])
    process.wait()
    frames, out = tmp_path / "frames", tmp_path / "out.mp4"
    (frames / f".frames.{process.pid}").mkdir(parents=True)
    for name in (f".out.{process.pid}.mp4", f".out.{os.getppid()}.mp4", f".other.{process.pid}.mp4"):
        (tmp_path / name).touch()
    annotate_video(source, out, None, frames=frames)
    hidden = sorted(path.name for path in tmp_path.rglob(".*"))
    assert hidden == sorted([f".out.{os.getppid()}.mp4", f".other.{process.pid}.mp4"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_annotate_video_killed_at_random_moments_keeps_complete_files(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 12)

    def annotate(folder: Path, end: float | None = None) -> None:
        tracker = FakeTracker(*[(0,)] * 12)
        files, frames = [folder / "p.csv"], folder / "frames"
        annotate_video(
            source,
            folder / "out.mp4",
            tracker,
            end=end,
            draw=False,
            landmark_files=files,
            frames=frames,
            overwrite=True,
        )

    def content(path: Path) -> object:
        # the bytes of a video may depend on how its threads were scheduled
        return read_gray_clip(path) if path.suffix == ".mp4" else path.read_bytes()

    def contents(folder: Path) -> dict[str, object]:
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {str(path.relative_to(folder)): content(path) for path in files if "/." not in str(path)}

    folders = earlier, complete, killed = tmp_path / "earlier", tmp_path / "complete", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    annotate(earlier, end=0.2)
    began = time.monotonic()
    annotate(complete)
    duration = time.monotonic() - began
    before, expected = contents(earlier), contents(complete)
    assert len(before) == 2 + 5 + 1
    rng = np.random.default_rng(0)
    for _ in range(10):
        shutil.rmtree(killed)
        shutil.copytree(earlier, killed)
        run_killed(rng.uniform(0, duration), partial(annotate, killed))
        found = contents(killed)
        for name in ("out.mp4", "p.csv"):
            assert found[name] in (before[name], expected[name])
        for name in before.keys() - {"frames/times.csv"}:  # its absence marks an interrupted replacement
            assert found[name] in (before[name], expected[name])
        annotate(killed)
        assert contents(killed) == expected
        assert list(killed.rglob(".*")) == []


def test_annotate_video_interrupted_replaces_frames_as_it_does_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 6)
    frames, out = tmp_path / "frames", tmp_path / "out.mp4"
    annotate_video(source, out, None, frames=frames)

    def interrupt(count: int, total: int | None, unit: str = "frames") -> None:
        if count == 4:
            assert len(list(frames.glob("*.png"))) == 6
            signal.raise_signal(signal.SIGTERM)

    result = annotate_video(source, out, None, frames=frames, overwrite=True, progress=interrupt)
    assert (result.frames, result.interrupted) == (4, True)
    assert read_gray_clip(out)[1] == list(range(4))
    assert sorted(path.name for path in frames.iterdir()) == [
        *(f"frame_{number:06d}.png" for number in range(1, 5)),
        "times.csv",
    ]


def test_annotate_video_landmark_file_without_tracker_raises(tmp_path: Path) -> None:
    source = write_gray_clip(tmp_path / "a.mp4", 1)
    with pytest.raises(ValueError, match="landmark files need a tracker"):
        annotate_video(source, None, None, landmark_files=[tmp_path / "p.csv"])
