"""The page in a headless Chromium, if there is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = 60_000
"""Timeout in milliseconds, long enough for a busy machine."""

PHONE_WIDTH = 400


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=options)
        yield running
        running.close()


@pytest.fixture
def page(server: Any, browser: Browser) -> Iterator[Page]:
    """Open the page; afterwards, check that neither browser nor server contacted another machine."""
    context = browser.new_context(viewport={"width": PHONE_WIDTH, "height": 800})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    requested: list[str] = []
    opened.on("request", lambda request: requested.append(request.url))
    opened.goto(server.address)
    opened.wait_for_selector("#photo")
    yield opened
    context.close()
    assert len(requested) > 5
    assert [url for url in requested if not url.startswith((server.address, "data:", "blob:"))] == []
    assert server.external == []


def test_photo_upload_shows_drawing_table_and_downloads(
    page: Page, models: list[Path], photo: Path, mean_shape: np.ndarray
) -> None:
    page.set_input_files("#photo input[type=file]", photo)
    page.wait_for_selector("#photo-table tbody tr")
    assert page.inner_text("#photo-note") == "café 1.png: 1 face, 120 × 80 px."
    head = page.locator("#photo-table th").all_inner_texts()
    assert head == ["face", "landmark", "x", "y", "confidence"]
    cells = page.locator("#photo-table tbody tr").nth(10).locator("td").all_inner_texts()
    x, y = mean_shape[10] * 80 + (20, 0) - 0.5
    assert cells == ["0", "nose_tip", f"{x:.1f}", f"{y:.1f}", "0.24"]
    page.wait_for_function("document.querySelector('#photo-drawing img')?.naturalWidth === 120")

    with page.expect_download() as download:
        page.get_by_text("JSON", exact=True).click()
    assert download.value.suggested_filename == "landmarks.json"
    assert json.loads(download.value.path().read_text())["images"][0]["image"] == "café 1.png"

    # nothing is wider than the phone
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH
    table = "document.querySelector('.landmark-table')"
    assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth")

    # choosing another model starts the prediction again; names from its file are escaped
    choose_model(page, models[1])
    page.wait_for_function("document.querySelectorAll('#photo-table tbody tr').length === 2")
    cells = page.locator("#photo-table tbody tr").first.locator("td").all_inner_texts()
    assert cells == ["0", "<b>tip</b>", "39.5", "39.5", "–"]


def test_model_trained_on_synthetic_data_shows_warning(page: Page, models: list[Path]) -> None:
    assert not page.is_visible("#model-note")
    choose_model(page, models[2])
    page.wait_for_selector("#model-note .warning")
    assert page.inner_text("#model-note").startswith("This model was trained on synthetic faces only")
    choose_model(page, models[0])
    page.wait_for_selector("#model-note", state="hidden")


def test_invalid_photo_shows_message_and_example_shows_landmarks(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("these are notes\n" * 20)
    page.set_input_files("#photo input[type=file]", tmp_path / "notes.jpg")
    page.wait_for_selector("#photo-note [role=alert]")
    assert page.inner_text("#photo-note").startswith("notes.jpg: not an image")
    assert not page.is_visible("#photo-drawing")

    page.locator("button.gallery-item:visible").last.click()
    page.wait_for_selector("#photo-table tbody tr")
    assert page.inner_text("#photo-note") == "synthetic 3.png: 1 face, 480 × 400 px."


def test_too_large_photo_is_refused_before_upload(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(2**20 + 1))
    page.set_input_files("#photo input[type=file]", tmp_path / "large.jpg")
    page.wait_for_selector("text=/exceed the maximum allowed size of 1.0 Mb/i")


def test_video_upload_shows_playable_drawing_and_downloads(
    page: Page, make_video: Any, tmp_path: Path
) -> None:
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#video input[type=file]", make_video(tmp_path / "long.mp4", 80))
    start = page.get_by_role("button", name="Predict landmarks")
    start.click()
    page.wait_for_selector("#video-note [role=alert]")
    message = "long.mp4: 3.20 s long, but the limit is 3 s; trim it first"
    assert page.inner_text("#video-note") == message

    page.locator("button.gallery-item:visible").click()
    page.wait_for_selector("#video-note [role=status]")
    start.click()
    page.wait_for_selector("#video-drawing video")
    page.wait_for_function("document.querySelector('#video-drawing video').duration === 2")
    assert page.inner_text("#video-note") == "synthetic.mp4: 1 face in 50 frames."
    with page.expect_download() as download:
        page.get_by_text("CSV", exact=True).locator("visible=true").click()
    assert len(download.value.path().read_text().splitlines()) == 1 + 50 * 15
    with page.expect_download() as download:
        page.get_by_text("JSON", exact=True).locator("visible=true").click()
    assert len(json.loads(download.value.path().read_text())["frames"]) == 50


def choose_model(page: Page, model: Path) -> None:
    """Select a model in the list of the page."""
    page.get_by_label("Model").click()
    page.get_by_role("option", name=model.name).click()
