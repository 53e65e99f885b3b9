"""Frames of cameras, files and streams, read with OpenCV."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError

POLL_SECONDS = 0.02
"""Longest wait for a new frame in seconds; between waits, the window processes events."""

JOIN_SECONDS = 2
"""Longest wait in seconds for the reading thread to end, which a lost network camera may block for longer."""

DEFAULT_FPS = 25


class CapturedFrame(NamedTuple):
    """A frame of a camera or recording.

    Parameters
    ----------
    image
        (H, W, 3) uint8 BGR, as OpenCV returns it.
    time
        Seconds, from an arbitrary origin.
    """

    image: NDArray[np.uint8]
    time: float


CapturedFrames = Generator[CapturedFrame | None, None, None]
"""Frames; None after each `POLL_SECONDS` without a new one."""


def open_capture(opencv: Any, camera: str) -> Any:
    """Open a camera, file or URL as a `cv2.VideoCapture`.

    Parameters
    ----------
    opencv
        The cv2 module.
    camera
        Index of a camera, or a file or URL.

    Raises
    ------
    UserError
        If it cannot be opened.
    """
    try:
        capture = opencv.VideoCapture(int(camera) if camera.isdecimal() else camera)
        if capture.isOpened():
            return capture
        capture.release()
    except opencv.error:  # the index of the camera is out of range
        pass
    if camera.isdecimal():
        raise UserError(
            f"--camera {camera}: no such camera, or another program is using it; choose another index, a"
            " file or a URL"
        )
    if "://" in camera:
        raise UserError(f"--camera {camera}: no video at this address; check the URL and the network")
    if not os.path.exists(camera):
        raise UserError(f"--camera {camera}: no such file")
    raise UserError(f"--camera {camera}: not a video that OpenCV can read")


def recorded_frames(opencv: Any, capture: Any) -> CapturedFrames:
    """Yield every frame of a recording at its time, or later if the caller is slower.

    `capture` is released at the end.
    """
    frame_duration = 1 / (capture.get(opencv.CAP_PROP_FPS) or DEFAULT_FPS)
    started, position = time.monotonic(), -frame_duration
    try:
        while True:
            success, image = capture.read()
            if not success:
                return
            reported = capture.get(opencv.CAP_PROP_POS_MSEC) / 1000
            # some formats do not report times
            position = reported if reported > position else position + frame_duration
            while (remaining := started + position - time.monotonic()) > 0:
                time.sleep(min(remaining, POLL_SECONDS))
                yield None
            started -= remaining  # a delay shifts all later frames, whose intervals stay the same
            yield CapturedFrame(image, position)
    finally:
        capture.release()


def latest_frames(capture: Any) -> CapturedFrames:
    """Yield the newest frame of a camera whenever there is one.

    A thread empties the camera's queue, so that the preview does not fall behind. `capture` is released at
    the end.
    """
    slot: queue.Queue[CapturedFrame] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def read_frames() -> None:
        try:
            while not stop.is_set():
                success, image = capture.read()
                if not success:
                    return
                with suppress(queue.Empty):
                    slot.get_nowait()
                slot.put(CapturedFrame(image, time.monotonic()))
        finally:
            capture.release()  # in this thread, because `read` may still be running

    thread = threading.Thread(target=read_frames, daemon=True)
    thread.start()
    try:
        while True:
            alive = thread.is_alive()  # before reading the slot: the last frame may arrive in between
            try:
                frame = slot.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if not alive:
                    return
                yield None
            else:
                yield frame
    finally:
        stop.set()
        thread.join(timeout=JOIN_SECONDS)
