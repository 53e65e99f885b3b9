"""What a camera sees, with the points on it, in a window until somebody closes that.

Knows OpenCV's cameras and windows. Knows nothing of how faces are found and followed.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.drawing import STYLE, draw_points, write_text_line
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.tracking import TrackedFace, Tracker
from landmarks_fastai.interrupt import Interrupt
from landmarks_fastai.schema import Schema

Picture = NDArray[np.uint8]
Shots = Generator["tuple[Picture, float] | None", None, None]
"""Frames as OpenCV gives them, BGR, with their times in seconds; None while there is no new one."""

TITLE = "landmarks_fastai"
TRIAL = f"import cv2; cv2.namedWindow('{TITLE}')"
KEYS_THAT_END = frozenset({ord("q"), ord("Q"), 27})  # 27: Esc
LARGEST = (1280, 720)
"""Width and height of the window at first, px: a larger frame is shown smaller."""

WAIT = 0.02
"""Seconds between two looks at the keyboard while there is no new frame."""

RECENT = 30
"""Frames whose rate is shown."""


@dataclass(frozen=True)
class LiveOutcome:
    """What was seen.

    Parameters
    ----------
    frames
        How many were shown.
    fps
        How many a second, over all; 0 where there are not two.
    """

    frames: int
    fps: float


def watch(camera: str, tracker: Tracker, schema: Schema, *, mirror: bool | None = None) -> LiveOutcome:
    """Show a camera with its points, until q, Esc, the window's close button, Ctrl-C or the end of a file.

    A camera's newest frame is shown, whatever was missed meanwhile; a file is shown whole, at its own
    speed or as fast as `tracker` is.

    Parameters
    ----------
    camera
        A camera's number, or a file or URL as OpenCV takes it.
    tracker, schema
        Finds the faces, and what their points are called.
    mirror
        Show people as in a mirror; their left is still called left. None: where `camera` is a number.

    Raises
    ------
    UserError
        If there is no OpenCV, no screen, no such camera, or no picture comes from it.
    RunError
        If a camera or a stream stops.
    """
    cv2 = _opencv()
    check_screen()
    if mirror is None:
        mirror = camera.isdecimal()
    rate = _Rate()
    with _quiet(cv2):
        capture = _open(cv2, camera)
        live = not os.path.isfile(camera) and capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
        shots = newest(capture) if live else in_order(cv2, capture)
        with closing(shots), _Window(cv2) as window, Interrupt() as interrupt:
            for shot in shots:
                if shot is not None:
                    image = cv2.cvtColor(shot[0], cv2.COLOR_BGR2RGB)
                    faces = tracker(image, shot[1])
                    rate.count(time.monotonic())
                    window.show(_draw(image, faces, schema, mirror, rate.lately))
                if interrupt.asked or window.ended():
                    break
            else:
                _check_end(camera, live, rate.frames)
    return LiveOutcome(rate.frames, rate.overall)


def check_screen() -> None:
    """Refuse to open a window where there can be none.

    On Linux, OpenCV's Qt ends the whole process if it can't reach a screen: so a process of its own tries.

    Raises
    ------
    UserError
        If there is no screen, or no OpenCV to open a window with.
    """
    if not sys.platform.startswith("linux"):
        return
    remedy = "run it at a screen, or draw into a file with: landmarks-fastai video"
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError(f"there is no screen here (neither DISPLAY nor WAYLAND_DISPLAY is set); {remedy}")
    _opencv()  # else the trial would fail for want of it
    trial = subprocess.run([sys.executable, "-c", TRIAL], capture_output=True)
    if trial.returncode:
        screen = os.environ.get("DISPLAY") or os.environ["WAYLAND_DISPLAY"]
        raise UserError(f"the screen {screen} can't be opened; {remedy}")


def in_order(cv2: Any, capture: Any) -> Shots:
    """Yield each frame of a recording when its time has come, or later where the last one took longer."""
    step = 1 / (capture.get(cv2.CAP_PROP_FPS) or 25)
    started, at = time.monotonic(), -step
    try:
        while True:
            read, image = capture.read()
            if not read:
                return
            told = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            at = told if told > at else at + step  # some formats keep no times
            while (left := started + at - time.monotonic()) > 0:
                time.sleep(min(left, WAIT))
                yield None
            started -= left  # what came late shifts the rest, which else would come in a rush
            yield image, at
    finally:
        capture.release()


def newest(capture: Any) -> Shots:
    """Yield a camera's newest frame whenever there is one.

    A thread of its own empties the camera's queue, so that what is shown does not fall behind what is.
    """
    slot: queue.Queue[tuple[Picture, float]] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def drain() -> None:
        try:
            while not stop.is_set():
                read, image = capture.read()
                if not read:
                    return
                with suppress(queue.Empty):
                    slot.get_nowait()
                slot.put((image, time.monotonic()))
        finally:
            capture.release()  # here, and not while `read` may still be at work

    # a daemon, and not waited for without end: a lost network camera may block for half a minute
    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        while True:
            more = thread.is_alive()  # asked first: its last frame may come just now
            try:
                shot = slot.get(timeout=WAIT)
            except queue.Empty:
                if not more:
                    return
                yield None
            else:
                yield shot
    finally:
        stop.set()
        thread.join(timeout=2)


class _Rate:
    """Counts frames, and how many come in a second: lately, and over all."""

    def __init__(self) -> None:
        self.frames = 0
        self.first = 0.0
        self.recent: deque[float] = deque(maxlen=RECENT)

    def count(self, now: float) -> None:
        """Count a frame that is shown at `now`, in seconds."""
        self.first = self.first if self.frames else now
        self.frames += 1
        self.recent.append(now)

    @property
    def lately(self) -> float:
        return _per_second(len(self.recent) - 1, self.recent[-1] - self.recent[0])

    @property
    def overall(self) -> float:
        return _per_second(self.frames - 1, self.recent[-1] - self.first) if self.frames else 0.0


def _per_second(steps: int, seconds: float) -> float:
    return steps / seconds if seconds > 0 else 0.0


def _draw(image: Picture, faces: Sequence[TrackedFace], schema: Schema, mirror: bool, fps: float) -> Picture:
    """Draw the points of all faces, and in the corner how fast it goes and which faces there are."""
    width = image.shape[1]
    if mirror:
        image = image[:, ::-1]
    for face in faces:
        # names stay where they are: left is the subject's own in a mirror too
        points = np.array([width - 1, 0]) + [-1, 1] * face.points if mirror else face.points
        label = str(face.number) if len(faces) > 1 else None
        image = draw_points(image, points, schema, confidence=face.confidence, label=label)
    numbers = ", ".join(str(face.number) for face in faces)
    text = f"{fps:.1f} fps   " + (f"faces: {numbers}" if faces else "no face")
    image, size = np.array(image), max(12, len(image) // 30)
    write_text_line(image, size // 2, size // 2, text, size, STYLE.truth, STYLE.outline)
    return image


class _Window:
    """OpenCV's window, open from `with` to its end."""

    def __init__(self, cv2: Any) -> None:
        self.cv2 = cv2
        self.sized = False

    def __enter__(self) -> _Window:
        cv2 = self.cv2
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(self.cv2.error):  # it may have been closed by hand
            self.cv2.destroyWindow(TITLE)
        self.cv2.waitKey(1)  # without it, some systems leave the window standing

    def show(self, picture: Picture) -> None:
        """Show an RGB picture."""
        height, width = picture.shape[:2]
        if not self.sized:
            share = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
            self.cv2.resizeWindow(TITLE, round(share * width), round(share * height))
            self.sized = True
        self.cv2.imshow(TITLE, self.cv2.cvtColor(picture, self.cv2.COLOR_RGB2BGR))

    def ended(self) -> bool:
        """Let the window live for a moment, and tell whether somebody wants it closed."""
        if self.cv2.waitKey(1) & 0xFF in KEYS_THAT_END:
            return True
        if not self.sized:  # it has shown nothing: some systems call it invisible
            return False
        try:
            return bool(self.cv2.getWindowProperty(TITLE, self.cv2.WND_PROP_VISIBLE) < 1)
        except self.cv2.error:  # Qt no longer knows a window that was closed
            return True


def _open(cv2: Any, camera: str) -> Any:
    """Open a camera, file or URL, or say why not."""
    try:
        capture = cv2.VideoCapture(int(camera) if camera.isdecimal() else camera)
        if capture.isOpened():
            return capture
        capture.release()
    except cv2.error:  # a number beyond all cameras
        pass
    if camera.isdecimal():
        raise UserError(
            f"--camera {camera}: there is no such camera, or another program uses it;"
            " give another number, or a file or URL"
        )
    if "://" in camera:
        raise UserError(f"--camera {camera}: no video comes from there; check the address and the network")
    if not os.path.exists(camera):
        raise UserError(f"--camera {camera}: no such file")
    raise UserError(f"--camera {camera}: not a video that OpenCV can read")


def _check_end(camera: str, live: bool, frames: int) -> None:
    """Say so where the pictures have ended and should not have."""
    if not frames:
        raise UserError(f"--camera {camera}: it opens, but no picture comes; is another program using it?")
    if live:
        raise RunError(f"--camera {camera}: no more pictures came after {frames:,}; is it still connected?")


def _opencv() -> Any:
    if find_spec("cv2") is None:
        raise UserError("OpenCV is not installed; pip install opencv-python")
    # on Linux the two bring libraries of their own for the screen, and OpenCV's window waits for ever
    if "av" in sys.modules and "cv2" not in sys.modules and sys.platform.startswith("linux"):
        raise UserError("live: OpenCV opens no window after PyAV was imported; call it in a new process")
    import cv2

    if not cv2.currentUIFramework():
        raise UserError(
            "this OpenCV was built without windows; pip uninstall opencv-python-headless, then"
            " pip install --force-reinstall opencv-python"
        )
    return cv2


@contextmanager
def _quiet(cv2: Any) -> Iterator[None]:
    """Keep OpenCV, its ffmpeg and its Qt from writing to the terminal: what matters, our errors say."""
    import matplotlib

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # OpenCV's wheel names a folder of fonts that it does not bring along; matplotlib brings one
    fonts = str(Path(matplotlib.get_data_path(), "fonts", "ttf"))
    try:
        with _environment({"OPENCV_FFMPEG_LOGLEVEL": "-8", "QT_QPA_FONTDIR": fonts}):
            yield
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
