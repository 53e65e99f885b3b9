"""The preview window of OpenCV, and the checks that it can be opened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.opencv import SILENT, has_windows, opencv_log_level

TITLE = "landmarks_fastai"

OPEN_WINDOW = f"import cv2; cv2.namedWindow('{TITLE}')"
"""Program that fails if OpenCV cannot open a window."""

QUIT_KEYS = frozenset({ord("q"), ord("Q"), 27})
"""Keys that close the window; 27 is Esc."""

MAX_SIZE = (1280, 720)
"""Largest width and height of the window when it opens, pixels; larger frames are scaled down."""


def check_display() -> None:
    """Check that OpenCV can open a window.

    On Linux, OpenCV's Qt aborts the whole process if it cannot connect to the display, so a separate process
    tries first.

    Raises
    ------
    UserError
        If there is no display, or no OpenCV that can open a window.
    """
    if not sys.platform.startswith("linux"):
        return
    hint = "run it in a desktop session, or write a video with: landmarks-fastai video"
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display:
        raise UserError(f"there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set); {hint}")
    import_opencv()  # otherwise the separate process would fail because OpenCV is missing
    attempt = subprocess.run([sys.executable, "-c", OPEN_WINDOW], capture_output=True)
    if attempt.returncode:
        raise UserError(f"the display {display} cannot be opened; {hint}")


def import_opencv() -> Any:
    """Return the cv2 module.

    Raises
    ------
    UserError
        If it is not installed, has no window support, or cannot be imported because PyAV already was.
    """
    if find_spec("cv2") is None:
        raise UserError("OpenCV is not installed; pip install opencv-python")
    # on Linux, both bundle display libraries, and OpenCV's window would hang
    if "av" in sys.modules and "cv2" not in sys.modules and sys.platform.startswith("linux"):
        raise UserError("OpenCV cannot open a window after PyAV was imported; start a new process")
    import cv2

    if not has_windows(cv2):
        raise UserError(
            "this OpenCV was built without window support; pip uninstall opencv-python-headless, then"
            " pip install --force-reinstall opencv-python"
        )
    return cv2


class PreviewWindow:
    """A window that is open within its with block.

    Parameters
    ----------
    opencv
        The cv2 module.
    """

    def __init__(self, opencv: Any) -> None:
        self._opencv = opencv
        self._shown = False

    def __enter__(self) -> PreviewWindow:
        """Open the window."""
        cv2 = self._opencv
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the window."""
        with suppress(self._opencv.error):  # the user may have closed it already
            self._opencv.destroyWindow(TITLE)
        self._opencv.waitKey(1)  # some systems close the window only when events are processed

    def show(self, image: NDArray[np.uint8]) -> None:
        """Show an (H, W, 3) uint8 RGB image."""
        height, width = image.shape[:2]
        if not self._shown:
            scale = min(1.0, MAX_SIZE[0] / width, MAX_SIZE[1] / height)
            self._opencv.resizeWindow(TITLE, round(scale * width), round(scale * height))
            self._shown = True
        self._opencv.imshow(TITLE, self._opencv.cvtColor(image, self._opencv.COLOR_RGB2BGR))

    def should_close(self) -> bool:
        """Process pending events and return True if the user quits or has closed the window."""
        if self._opencv.waitKey(1) & 0xFF in QUIT_KEYS:
            return True
        if not self._shown:  # some systems report a window without an image as invisible
            return False
        try:
            return bool(self._opencv.getWindowProperty(TITLE, self._opencv.WND_PROP_VISIBLE) < 1)
        except self._opencv.error:  # Qt has no properties of a closed window
            return True


@contextmanager
def silence_opencv(opencv: Any) -> Iterator[None]:
    """Keep OpenCV, its FFmpeg and its Qt from writing to the terminal."""
    import matplotlib

    # OpenCV's wheel refers to a font folder that it does not contain; matplotlib has one
    fonts = str(Path(matplotlib.get_data_path(), "fonts", "ttf"))
    variables = {"OPENCV_FFMPEG_LOGLEVEL": "-8", "QT_QPA_FONTDIR": fonts}
    with opencv_log_level(opencv, SILENT), _environment(variables):
        yield


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables temporarily."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
