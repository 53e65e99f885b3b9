"""Frames of cameras and recordings: which are yielded, and when."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_opencv import RGB, FakeCapture, FakeOpenCV

from landmarks_fastai.commands.camera import latest_frames, recorded_frames


def test_recorded_frames_without_times_follow_the_frame_rate() -> None:
    capture = FakeCapture([0.0, 0.0, 0.0, 0.5], fps=1000.0)
    with closing(recorded_frames(FakeOpenCV(capture), capture)) as frames:
        times = [frame.time for frame in frames if frame is not None]
    assert times == pytest.approx([0.0, 0.001, 0.002, 0.5])


def test_recorded_frames_are_never_early() -> None:
    capture = FakeCapture([0.0, 0.1, 0.3])
    started = time.monotonic()
    with closing(recorded_frames(FakeOpenCV(capture), capture)) as frames:
        for frame in frames:
            if frame is not None:
                # how late a frame is depends on the machine
                assert time.monotonic() - started >= frame.time
    assert time.monotonic() - started >= 0.3


def test_recorded_frames_after_a_delay_keep_their_intervals() -> None:
    capture = FakeCapture([0.0, 0.05, 0.1])
    shown = []
    with closing(recorded_frames(FakeOpenCV(capture), capture)) as frames:
        for frame in frames:
            if frame is not None:
                shown.append(time.monotonic())
                if len(shown) == 1:
                    time.sleep(0.2)
    assert shown[2] - shown[1] >= 0.04


class FastCamera(FakeCapture):
    """A camera that delivers 49 frames at once, and the last one when `resume` is set."""

    def __init__(self) -> None:
        super().__init__(range(50), recorded=False)
        self.waiting, self.resume = threading.Event(), threading.Event()

    def read(self) -> tuple[bool, Any]:
        if self.frames_read == 49:
            self.waiting.set()
            assert self.resume.wait(10)
        return super().read()


def test_latest_frames_skips_older_frames() -> None:
    capture = FastCamera()
    with closing(latest_frames(capture)) as frames:
        received = [next(frames)]
        assert capture.waiting.wait(10)
        received += [next(frames), next(frames)]
        assert received[-1] is None  # without a new frame, the window still processes events
        capture.resume.set()
        received += frames
    blues = [int(frame.image[0, 0, 0]) - RGB[2] for frame in received if frame is not None]
    assert blues[-2:] == [49, 50]
    assert len(blues) <= 3  # possibly one that was the newest at the first call
    assert capture.released


OPEN_CAMERAS = """
import sys
import cv2
from landmarks_fastai.commands.live import run_live
from landmarks_fastai.errors import UserError
assert "av" not in sys.modules, "OpenCV's windows would hang"
for camera in sys.argv[1:]:
    try:
        run_live(camera, None, opencv=cv2)
    except UserError as error:
        print(error)
"""


def test_run_live_source_that_cannot_be_opened_is_reported_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "notes.mp4").write_text("no video")
    # the header of an MP4 without content, for which FFmpeg logs many messages
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200))
    cameras = ["97", "9" * 30, "gone.mp4", "notes.mp4", "cut.mp4", "http://127.0.0.1:9/stream"]
    reasons = ["no such camera", "no such camera", "no such file", "not a video", "not a video", "address"]
    completed = subprocess.run(
        [sys.executable, "-c", OPEN_CAMERAS, *cameras],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.stderr == ""
    for camera, line, reason in zip(cameras, completed.stdout.splitlines(), reasons, strict=True):
        assert line.startswith(f"--camera {camera}: ")
        assert reason in line
