"""The checks for a display and OpenCV, and the preview in a real window on a virtual display."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageGrab

from landmarks_fastai.commands.live import run_live
from landmarks_fastai.commands.window import check_display
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.visualization.style import STYLE

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux may have no display")


def no_faces(image: NDArray[np.uint8], seconds: float) -> Landmarks:
    return Landmarks.empty(KAGGLE15)


# --- display and OpenCV ---------------------------------------------------------------------------


@on_linux
def test_run_live_without_display_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match="there is no display"):
        run_live("0", no_faces)
    # a stale display, as left by ssh, on which Qt would abort this process
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(UserError, match="the display :987 cannot be opened"):
        run_live("0", no_faces)


def test_run_live_opencv_without_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    headless = SimpleNamespace(currentUIFramework=lambda: "", __spec__=ModuleSpec("cv2", None))
    monkeypatch.setitem(sys.modules, "cv2", headless)
    with pytest.raises(UserError, match="built without window support"):
        run_live("0", no_faces)


def test_run_live_without_opencv_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # not importable
    with pytest.raises(UserError, match=r"pip install opencv-python"):
        run_live("0", no_faces)


@on_linux
def test_check_display_without_opencv_names_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="OpenCV is not installed"):
        check_display()


@on_linux
def test_run_live_after_import_of_pyav_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setitem(sys.modules, "av", SimpleNamespace())
    with pytest.raises(UserError, match="after PyAV was imported"):
        run_live("0", no_faces)


# --- a real window --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """Start a virtual display with a free number."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    pytest.importorskip("cv2")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    command += ["-noreset"]  # else it resets when the last client leaves and refuses new ones meanwhile
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


SHOW_CLIP = """
import sys
import numpy as np
from landmarks_fastai.commands.live import run_live
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import KAGGLE15

landmarks = Landmarks.from_points(np.load(sys.argv[2]), KAGGLE15)
print(run_live(sys.argv[1], lambda image, time: landmarks).frames)
"""


def start_live(clip: Path, display: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DISPLAY": display}
    environment.pop("WAYLAND_DISPLAY", None)
    environment.pop("QT_QPA_FONTDIR", None)
    return subprocess.Popen(
        [sys.executable, "-c", SHOW_CLIP, str(clip), str(clip.with_suffix(".npy"))],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_face_clip(path: Path, frames: int, fps: float) -> NDArray[np.uint8]:
    """Write a synthetic face as a video, and its points next to it; return the RGB image."""
    import cv2

    face = draw_synthetic_faces(1, 4, 240, color=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (240, 240))
    for _ in range(frames):
        writer.write(np.ascontiguousarray(face.images[0][..., ::-1]))
    writer.release()
    np.save(path.with_suffix(".npy"), face.points[0])
    return face.images[0]


def grab_screen(display: str) -> NDArray[np.uint8]:
    return np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"))


def is_shown(image: NDArray[np.uint8], screenshot: NDArray[np.uint8]) -> bool:
    """Return True if the image is in the corner of the screen, apart from what is drawn on it."""
    side = len(image)
    small = [np.asarray(Image.fromarray(part).resize((24, 24))) for part in (screenshot[:side, :side], image)]
    return float(np.abs(small[0].astype(float) - small[1]).mean()) < 12


def run_xdotool(display: str, *action: str) -> None:
    """Perform an action on the window, if it exists."""
    command = ["xdotool", "search", "--name", "^landmarks_fastai$", *action]
    environment = {**os.environ, "DISPLAY": display}
    subprocess.run(command, env=environment, check=False, capture_output=True)


def test_live_window_shows_a_clip_to_its_end(display: str, tmp_path: Path) -> None:
    write_face_clip(tmp_path / "clip.avi", frames=5, fps=25)
    with start_live(tmp_path / "clip.avi", display) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out.strip(), err) == (0, "5", "")


def test_live_window_shows_landmarks_and_closes_with_q(display: str, tmp_path: Path) -> None:
    if shutil.which("xdotool") is None:
        pytest.skip("xdotool is not installed")
    image = write_face_clip(tmp_path / "clip.avi", frames=300, fps=2)
    points = np.load(tmp_path / "clip.npy")
    screenshot = None
    with start_live(tmp_path / "clip.avi", display) as process:
        try:
            for attempt in range(600):
                time.sleep(0.1)
                screenshot = grab_screen(display)
                if process.poll() is not None or is_shown(image, screenshot):
                    break
                if attempt % 20 == 19:  # on a busy machine the window may appear in another place
                    run_xdotool(display, "windowmove", "0", "0")
            for _ in range(100):  # on a busy machine the window gets its title some time after it appears
                run_xdotool(display, "key", "q")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
                    break
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert screenshot is not None
    assert is_shown(image, screenshot), (process.returncode, out, err)
    # the dot of the subject's left eye, in its color
    x, y = np.rint(points[0]).astype(int)
    np.testing.assert_allclose(screenshot[y, x], list(bytes.fromhex(STYLE.left[1:])), atol=6)
    assert process.returncode == 0
    assert err == ""
    assert 1 <= int(out) < 300
