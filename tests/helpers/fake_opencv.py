"""Stand-ins for OpenCV's camera and window."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB = (200, 120, 40)


class FakeCapture:
    """Stand-in for cv2.VideoCapture; frame i, counted from 1, has the blue value of `RGB` plus i.

    Parameters
    ----------
    times
        Times of the frames in seconds.
    recorded
        Whether it is a file, which reports its number of frames, instead of a camera.
    fps
        Frame rate that it reports.
    size
        Height and width of the frames.
    count
        Number of frames that a file reports; by default the true one.
    """

    def __init__(
        self,
        times: Sequence[float],
        recorded: bool = True,
        fps: float = 1000.0,
        size: tuple[int, int] = (60, 80),
        count: int | None = None,
    ) -> None:
        self.times, self.fps, self.size = times, fps, size
        self.count = (len(times) if count is None else count) if recorded else -1
        self.frames_read, self.released = 0, False
        self.isOpened = lambda: True

    def get(self, name: str) -> float:
        position = self.times[self.frames_read - 1] if self.frames_read else 0.0
        return {"fps": self.fps, "count": self.count, "msec": 1000 * position}[name]

    def read(self) -> tuple[bool, Any]:
        assert not self.released
        if self.frames_read == len(self.times):
            return False, None
        self.frames_read += 1
        return True, np.full((*self.size, 3), (RGB[2] + self.frames_read, RGB[1], RGB[0]), np.uint8)

    def release(self) -> None:
        self.released = True


class FakeOpenCV:
    """Stand-in for the parts of cv2 that `run_live` uses.

    Attributes
    ----------
    keys
        Maps a number of shown frames to the key that is then pressed.
    closed_at
        Number of shown frames after which the user closes the window.
    shown
        Images shown, as RGB.
    windows
        Titles of the open windows.
    opened
        Argument that VideoCapture was called with.
    size
        Width and height of the window.
    """

    error = RuntimeError
    WINDOW_NORMAL = WINDOW_KEEPRATIO = WINDOW_GUI_NORMAL = 0
    CAP_PROP_FPS, CAP_PROP_FRAME_COUNT, CAP_PROP_POS_MSEC = "fps", "count", "msec"
    COLOR_BGR2RGB = COLOR_RGB2BGR = WND_PROP_VISIBLE = 0

    def __init__(self, capture: FakeCapture) -> None:
        self.capture = capture
        self.utils = SimpleNamespace(
            logging=SimpleNamespace(LOG_LEVEL_SILENT=0, getLogLevel=lambda: 3, setLogLevel=lambda level: None)
        )
        self.keys: dict[int, int] = {}
        self.closed_at: int | None = None
        self.shown: list[NDArray[np.uint8]] = []
        self.windows: list[str] = []
        self.opened: int | str | None = None
        self.size: tuple[int, int] | None = None
        # under the names of cv2
        self.VideoCapture, self.cvtColor = self.open_capture, self.reverse_channels
        self.namedWindow, self.destroyWindow = self.open_window, self.close_window
        self.resizeWindow, self.getWindowProperty = self.resize, self.is_visible
        self.imshow, self.waitKey = self.show, self.next_key

    def open_capture(self, camera: int | str) -> FakeCapture:
        self.opened = camera
        return self.capture

    def open_window(self, title: str, flags: int) -> None:
        self.windows.append(title)

    def close_window(self, title: str) -> None:
        if self.closed_at is not None:
            raise RuntimeError("no such window")
        self.windows.remove(title)

    def resize(self, title: str, width: int, height: int) -> None:
        self.size = width, height

    def show(self, title: str, image: NDArray[np.uint8]) -> None:
        assert title in self.windows
        self.shown.append(image[..., ::-1])

    def next_key(self, milliseconds: int) -> int:
        return self.keys.get(len(self.shown), -1)

    def is_visible(self, title: str, name: int) -> float:
        return 0.0 if self.closed_at is not None and len(self.shown) >= self.closed_at else 1.0

    def reverse_channels(self, image: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
        return image[..., ::-1].copy()
