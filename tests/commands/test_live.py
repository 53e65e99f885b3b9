"""The live preview: how it ends, which frames it shows, and what it draws."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_opencv import RGB, FakeCapture, FakeOpenCV
from numpy.typing import NDArray

from landmarks_fastai.commands.live import RATE_WINDOW, FrameRateCounter, run_live
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.visualization.style import STYLE


def face_landmarks(*track_ids: int) -> Landmarks:
    """Return faces in the left half of the image, with all landmarks at the same point."""
    n = len(track_ids)
    points = np.full((n, 15, 2), (20.0, 40.0), np.float32)
    certain = np.ones((n, 15), np.float32)
    return Landmarks(points, KAGGLE15, certain, certain, track_ids=track_ids)


def track_one(image: NDArray[np.uint8], seconds: float) -> Landmarks:
    return face_landmarks(7)


@pytest.fixture
def opencv() -> FakeOpenCV:
    return FakeOpenCV(FakeCapture([0.0, 0.001, 0.002, 0.003]))


# --- frames shown and reasons to end --------------------------------------------------------------


def test_run_live_shows_every_frame_of_a_file(opencv: FakeOpenCV, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    tracked = []

    def track(image: NDArray[np.uint8], seconds: float) -> Landmarks:
        tracked.append((seconds, image[0, 0].tolist()))
        return track_one(image, seconds)

    result = run_live(str(clip), track, opencv=opencv)
    assert opencv.opened == str(clip)
    # the tracker gets RGB, although OpenCV reads BGR
    assert tracked == [(i / 1000, [200, 120, 41 + i]) for i in range(4)]
    assert result.frames == len(opencv.shown) == 4
    assert result.fps > 0
    assert opencv.windows == []
    assert opencv.capture.released
    assert opencv.size == (80, 60)
    image = opencv.shown[-1]
    np.testing.assert_array_equal(image[59, 79], [200, 120, 44])
    assert tuple(image[40, 20]) == tuple(bytes.fromhex(STYLE.middle[1:]))  # the landmark drawn last
    assert (image[:20, :70] != [200, 120, 44]).any(axis=-1).sum() > 50  # the text
    assert (opencv.shown[0][:20, :70, 0] != image[:20, :70, 0]).any()  # its frame rate was 0.0 at first


@pytest.mark.parametrize("key", [ord("q"), ord("Q"), 27])
def test_run_live_ends_on_quit_key(opencv: FakeOpenCV, key: int) -> None:
    opencv.keys = {1: ord("x"), 2: key}
    assert run_live("clip.mp4", track_one, opencv=opencv).frames == 2
    assert opencv.capture.released
    assert opencv.windows == []


def test_run_live_ends_on_close_button(opencv: FakeOpenCV) -> None:
    opencv.closed_at = 3
    assert run_live("clip.mp4", track_one, opencv=opencv).frames == 3
    assert opencv.capture.released


def test_run_live_ends_on_ctrl_c(opencv: FakeOpenCV) -> None:
    def track(image: NDArray[np.uint8], seconds: float) -> Landmarks:
        if opencv.capture.frames_read == 2:
            signal.raise_signal(signal.SIGINT)
        return face_landmarks()

    handler = signal.getsignal(signal.SIGINT)
    assert run_live("clip.mp4", track, opencv=opencv).frames == 2
    assert opencv.windows == []
    assert signal.getsignal(signal.SIGINT) is handler


def test_run_live_tracker_error_closes_everything(
    opencv: FakeOpenCV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    monkeypatch.setenv("QT_QPA_FONTDIR", "before")

    def track(image: NDArray[np.uint8], seconds: float) -> Landmarks:
        assert Path(os.environ["QT_QPA_FONTDIR"], "DejaVuSans.ttf").is_file()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_live("clip.mp4", track, opencv=opencv)
    assert opencv.capture.released
    assert opencv.windows == []
    assert os.environ["QT_QPA_FONTDIR"] == "before"
    assert "OPENCV_FFMPEG_LOGLEVEL" not in os.environ


def test_run_live_camera_that_stops_is_reported(opencv: FakeOpenCV) -> None:
    opencv.capture = FakeCapture([0.0, 0.1], recorded=False)
    message = r"--camera 0: stopped after (1 frame|2 frames); check that it is still connected"
    with pytest.raises(RunError, match=message):
        run_live("0", track_one, opencv=opencv)
    assert opencv.capture.released
    assert opencv.windows == []


@pytest.mark.parametrize("recorded", [True, False])
def test_run_live_source_without_frames_is_reported(opencv: FakeOpenCV, recorded: bool) -> None:
    opencv.capture = FakeCapture([], recorded, count=1)
    with pytest.raises(UserError, match="--camera 3: opened, but delivers no frames"):
        run_live("3", track_one, opencv=opencv)
    assert opencv.windows == []


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("camera", "mirror", "mirrored"),
    [("0", None, True), ("clip.mp4", None, False), ("0", False, False), ("clip.mp4", True, True)],
)
def test_run_live_mirrors_cameras_by_default(
    opencv: FakeOpenCV, camera: str, mirror: bool | None, mirrored: bool
) -> None:
    opencv.keys = {1: ord("q")}
    run_live(camera, track_one, mirror=mirror, opencv=opencv)
    assert opencv.opened == (0 if camera == "0" else camera)
    drawn = opencv.shown[0][40] != [200, 120, opencv.shown[0][59, 79, 2]]
    x = np.flatnonzero(drawn.any(axis=-1)).mean()
    assert x == pytest.approx(79 - 20 if mirrored else 20, abs=0.6)


def test_run_live_labels_several_faces(opencv: FakeOpenCV) -> None:
    def track(image: NDArray[np.uint8], seconds: float) -> Landmarks:
        return face_landmarks(7, 7) if opencv.capture.frames_read > 1 else face_landmarks()

    run_live("clip.mp4", track, opencv=opencv)
    unlabeled, labeled = (image[25:37, 10:30, 0] != RGB[0] for image in opencv.shown[:2])
    assert not unlabeled.any()
    assert labeled.sum() > 10  # above the landmarks


def test_run_live_large_frame_is_shown_in_a_smaller_window(opencv: FakeOpenCV) -> None:
    opencv.capture = FakeCapture([0.0], size=(2160, 3840))
    run_live("clip.mp4", track_one, opencv=opencv)
    assert opencv.size == (1280, 720)
    assert opencv.shown[0].shape == (2160, 3840, 3)


def test_frame_rate_counter_averages_the_last_frames() -> None:
    rate = FrameRateCounter()
    assert rate.overall == 0
    for now in [0.0, *(10 + i / 20 for i in range(RATE_WINDOW))]:
        rate.count(now)
    assert rate.current == pytest.approx(20)
    assert rate.overall == pytest.approx(RATE_WINDOW / (10 + (RATE_WINDOW - 1) / 20))
