"""Live preview: the frames of a camera with their landmarks, in a window."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.camera import latest_frames, open_capture, recorded_frames
from landmarks_fastai.commands.window import PreviewWindow, check_display, import_opencv, silence_opencv
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.interrupt import Interrupt
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.visualization.canvas import draw_text
from landmarks_fastai.visualization.landmarks import draw_landmarks, number_faces
from landmarks_fastai.visualization.style import STYLE

Image = NDArray[np.uint8]

RATE_WINDOW = 30
"""Number of frames over which the displayed frame rate is averaged."""


@dataclass(frozen=True)
class LiveResult:
    """Summary of a live preview.

    Parameters
    ----------
    frames
        Number of frames shown.
    fps
        Average number of frames per second; 0 for fewer than two frames.
    """

    frames: int
    fps: float


def run_live(
    camera: str,
    tracker: Callable[[Image, float], Landmarks],
    *,
    mirror: bool | None = None,
    opencv: Any = None,
) -> LiveResult:
    """Show frames and their landmarks until q, Esc, the window's close button, Ctrl-C or the end of a file.

    For a camera, the newest frame is shown and frames that arrive meanwhile are skipped. For a file, all
    frames are shown, at their own rate or as fast as `tracker` allows.

    Parameters
    ----------
    camera
        Index of a camera, or a file or URL that OpenCV can open.
    tracker
        A `Tracker`: called with each RGB frame and its time in seconds.
    mirror
        Mirror the image horizontally; names of landmarks still refer to the subject's own left. None: mirror
        if `camera` is an index.
    opencv
        The cv2 module. None: it is imported, after a check that a window can be opened.

    Raises
    ------
    UserError
        If there is no OpenCV, no display or no such camera, or the camera delivers no frames.
    RunError
        If a camera or stream stops delivering frames.
    """
    if opencv is None:
        opencv = import_opencv()
        check_display()
    if mirror is None:
        mirror = camera.isdecimal()
    rate = FrameRateCounter()
    with silence_opencv(opencv):
        capture = open_capture(opencv, camera)
        live = not os.path.isfile(camera) and capture.get(opencv.CAP_PROP_FRAME_COUNT) <= 0
        frames = latest_frames(capture) if live else recorded_frames(opencv, capture)
        with closing(frames), PreviewWindow(opencv) as window, Interrupt() as interrupt:
            for frame in frames:
                if frame is not None:
                    image = opencv.cvtColor(frame.image, opencv.COLOR_BGR2RGB)
                    landmarks = tracker(image, frame.time)
                    rate.count(time.monotonic())
                    window.show(_draw_frame(image, landmarks, mirror, rate.current))
                if interrupt.requested or window.should_close():
                    break
            else:
                _check_end(camera, live, rate.frames)
    return LiveResult(rate.frames, rate.overall)


class FrameRateCounter:
    """Counts frames and measures their rate.

    Attributes
    ----------
    frames
        Number of frames so far.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._first = 0.0
        self._recent: deque[float] = deque(maxlen=RATE_WINDOW)

    def count(self, now: float) -> None:
        """Count a frame shown at `now`, seconds."""
        self._first = self._first if self.frames else now
        self.frames += 1
        self._recent.append(now)

    @property
    def current(self) -> float:
        """Frames per second over the last `RATE_WINDOW` frames; 0 for fewer than two."""
        return self._per_second(len(self._recent), self._recent[0]) if self._recent else 0.0

    @property
    def overall(self) -> float:
        """Frames per second over all frames; 0 for fewer than two."""
        return self._per_second(self.frames, self._first) if self._recent else 0.0

    def _per_second(self, frames: int, first: float) -> float:
        """Return the rate of `frames` frames from time `first` to the last one."""
        seconds = self._recent[-1] - first
        return (frames - 1) / seconds if seconds > 0 else 0.0


def _draw_frame(image: Image, landmarks: Landmarks, mirror: bool, fps: float) -> Image:
    """Draw the landmarks of all faces, and the frame rate and the track IDs in a corner."""
    if mirror:
        image, landmarks = _mirror(image, landmarks)
    canvas = draw_landmarks(image, landmarks, captions=number_faces(landmarks))
    track_ids = ", ".join(str(track_id) for track_id in landmarks.track_ids or ())
    text = f"{fps:.1f} fps   " + (f"track IDs: {track_ids}" if len(landmarks) else "no face")
    size = max(12, len(canvas) // 30)
    draw_text(canvas, size // 2, size // 2, text, size, STYLE.truth, STYLE.outline)
    return canvas


def _mirror(image: Image, landmarks: Landmarks) -> tuple[Image, Landmarks]:
    """Mirror an image and the positions of its landmarks; names still refer to the subject's own left."""
    points = landmarks.points.copy()
    points[..., 0] = image.shape[1] - 1 - points[..., 0]
    return image[:, ::-1], replace(landmarks, points=points)


def _check_end(camera: str, live: bool, frames: int) -> None:
    """Raise an error if there were no frames, or if a camera or stream has stopped."""
    if not frames:
        raise UserError(
            f"--camera {camera}: opened, but delivers no frames; check whether another program is using it"
        )
    if live:
        raise RunError(
            f"--camera {camera}: stopped after {format_count(frames, 'frame')}; check that it is still"
            " connected"
        )
