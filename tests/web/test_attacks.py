"""The running page under requests that its own scripts do not send."""

from __future__ import annotations

import errno
import http.client
import http.server
import json
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from landmarks_fastai.web.uploads import NOT_THERE

JSON = {"Content-Type": "application/json"}


def without_ids(messages: str) -> list[Any]:
    """Return the data of the messages, without the identifiers and times that differ in every request."""
    answers = [json.loads(line.removeprefix("data: ")) for line in messages.split("\n\n") if line]
    return [answer["output"]["data"] for answer in answers if "output" in answer]


def file_data(path: str, **entries: Any) -> dict[str, Any]:
    """Return what gradio's scripts send for a file."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **entries}


@pytest.mark.parametrize("handler", ["predict", "predict_1"])
def test_only_uploads_are_opened_and_other_files_do_not_show_whether_they_exist(
    client: Any, photo: Path, tmp_path: Path, handler: str
) -> None:
    for path in (str(photo), str(tmp_path / "none.png"), "/etc/passwd", "../" * 9 + str(photo)):
        for upload in ({"path": path}, file_data(path), file_data(path, is_stream=True), path, [path]):
            answer = client.run(handler, [upload, "faces"], "s1")
            texts = [text for data in without_ids(answer) for text in data if isinstance(text, str)]
            assert NOT_THERE in json.dumps(texts)
            assert str(tmp_path) not in answer
            reference = without_ids(client.run(handler, [file_data("/none"), "faces"], "s1"))
            assert without_ids(answer) == reference


def test_address_in_the_place_of_a_file_is_not_fetched(client: Any, photo: Path) -> None:
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815  the name that the base class expects

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{other.server_port}/a.png"
        for upload in ({"path": address}, file_data(address), file_data(str(photo), url=address)):
            for handler in ("predict", "predict_1"):
                assert NOT_THERE in client.run(handler, [upload, "faces"], "s2")
        for route in ("file=", "file/", "proxy=", "stream/"):
            assert client.request("GET", f"/gradio_api/{route}{address}")[0] == 404
        other.shutdown()
    assert seen == []


def test_download_route_serves_uploads_and_examples_only(client: Any, photo: Path, server: Any) -> None:
    status, name = client.upload("page.html", b"<script>alert(1)</script>")
    assert status == 200
    assert client.request("GET", f"/gradio_api/file={name}") == (200, b"<script>alert(1)</script>")
    example = next((server.folder / "examples").glob("*.png"))
    assert client.request("GET", f"/gradio_api/file=examples/{example.name.replace(' ', '%20')}")[0] == 200
    answers = {
        client.request("GET", f"/gradio_api/file={quote(str(path), safe='/%')}")
        for path in (
            photo,
            "/none",
            example,
            "examples/none",
            "examples/..%2F..%2Fetc",
            "a/%00",
            "/etc/passwd",
        )
    }
    assert answers == {(404, NOT_THERE.encode())}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("GET", "/gradio_api/file"),
        ("GET", "/gradio_api/stream/s/r/1/playlist-file"),
        ("GET", "/login_check"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/predict"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/upload/"),
        ("POST", "/gradio_api//upload"),
        ("POST", "/login"),
        ("PUT", "/gradio_api/upload"),
        ("DELETE", "/"),
        ("OPTIONS", "/gradio_api/upload"),
    ],
)
def test_routes_that_the_page_does_not_need_are_closed(client: Any, method: str, path: str) -> None:
    assert client.request(method, path, b"{}" if method == "POST" else None, JSON) == (404, b"not found")


def test_requests_from_other_web_sites_are_refused(client: Any) -> None:
    body = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode()
    for origin in ("http://elsewhere.example", "null", "http://127.0.0.1:1"):
        headers = {**JSON, "Origin": origin}
        assert client.request("POST", "/gradio_api/queue/join", body, headers)[0] == 403
    assert client.request("POST", "/gradio_api/queue/join", body, {**JSON, "Origin": "http://["})[0] == 403
    for host in ("elsewhere.example", "[", "127.0.0.2"):
        assert client.request("GET", "/", headers={"Host": host})[0] == 400
    headers = {"Origin": f"http://{client.host}"}
    assert client.request("GET", "/", headers=headers)[0] == 200


def test_too_large_or_unmeasured_bodies_are_refused(client: Any, server: Any) -> None:
    status, answer = client.upload("a.png", bytes(2**20 + 2**17))
    assert (status, answer) == (413, "the limit is 1.06 MB; reduce the file's size")
    assert client.request("POST", "/gradio_api/queue/join", bytes(2**20 + 1), JSON)[0] == 413
    chunked = {"Transfer-Encoding": "chunked", "Content-Type": "multipart/form-data; boundary=x"}
    assert client.request("POST", "/gradio_api/upload", b"2\r\nab\r\n0\r\n\r\n", chunked)[0] == 411
    for body in (b"no json", b"[" * 100_000, b"[1]", b'{"data": 1'):
        assert client.request("POST", "/gradio_api/queue/join", body, JSON) == (400, b"not JSON")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x--\r\n", b"nothing"):
        assert client.request("POST", "/gradio_api/upload", body, headers)[0] == 400


def test_upload_that_cannot_be_saved_is_answered_in_one_line(
    client: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = set(server.folder.iterdir())
    monkeypatch.setattr(shutil, "copyfileobj", fail)
    answer = "the upload cannot be saved (No space left on device); try again later"
    assert client.upload("a.png", b"content") == (507, answer)
    assert set(server.folder.iterdir()) == before


def test_full_queue_gives_one_line_and_the_others_are_answered(client: Any, photo: Path, server: Any) -> None:
    _, name = client.upload("a.png", photo.read_bytes())
    sessions = [f"queue{index}" for index in range(12)]
    with server.service._photos._busy:  # as if the process were busy
        answers = {
            session: client.join("predict", [{"path": name}, "faces"], session) for session in sessions
        }
    refused = {session: answer for session, (status, answer) in answers.items() if status == 503}
    accepted = [session for session in sessions if session not in refused]
    assert 4 <= len(accepted) <= 6
    message = "the page is busy: 4 requests are waiting; try again in a minute"
    assert {json.loads(answer)["detail"] for answer in refused.values()} == {message}
    messages = [client.request("GET", f"/gradio_api/queue/data?session_hash={s}")[1] for s in accepted]
    # the upload belongs to the first session
    assert b"a.png: 1 face" in messages[0]
    assert all(NOT_THERE.encode() in answer for answer in messages[1:])


def test_upload_of_a_refused_request_is_deleted_with_its_session(
    client: Any, photo: Path, server: Any
) -> None:
    _, name = client.upload("a.png", photo.read_bytes())
    with server.service._photos._busy:
        while client.join("predict", [{"path": name}, "faces"], "full")[0] == 200:
            pass
        _, refused = client.upload("b.png", photo.read_bytes())
        assert client.join("predict", [{"path": refused}, "faces"], "refused")[0] == 503
    with suppress(http.client.IncompleteRead):  # gradio does not know the session
        client.request("GET", "/gradio_api/queue/data?session_hash=refused")
    wait_until_deleted(server.folder / refused.split("/")[0])


def test_photo_of_one_session_is_not_opened_for_another(client: Any, photo: Path) -> None:
    _, name = client.upload("a.png", photo.read_bytes())
    assert "a.png: 1 face, 120 × 80 px." in client.run("predict", [{"path": name}, "faces"], "s4")
    assert NOT_THERE in client.run("predict", [{"path": name}, "faces"], "s5")


def test_answers_contain_no_path_of_the_server(
    client: Any, photo: Path, models: list[Path], server: Any, tmp_path: Path
) -> None:
    _, name = client.upload("a.png", photo.read_bytes())
    _, wrong = client.upload("b.png", b"no image")
    answers = [client.request("GET", path)[1].decode() for path in ("/", "/config", "/gradio_api/info")]
    answers += [client.run("predict", [{"path": path}, "faces"], "s6") for path in (name, wrong)]
    assert "not an image" in answers[-1]
    folders = [str(folder) for folder in (server.folder, tmp_path, models[0].parent, Path.home(), Path.cwd())]
    found = [(folder, answer[:80]) for folder in folders for answer in answers if folder in answer]
    assert found == []


def test_files_are_deleted_when_the_session_ends(client: Any, photo: Path, server: Any) -> None:
    _, name = client.upload("a.png", photo.read_bytes())
    assert "1 face" in client.run("predict", [{"path": name}, "faces"], "s7")
    wait_until_deleted(server.folder / name.split("/")[0])


def wait_until_deleted(folder: Path) -> None:
    """Wait for the deletion of a folder of the page, which happens every few seconds."""
    end = time.monotonic() + 40
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not folder.exists()


def test_photo_with_more_pixels_than_the_limit_is_refused(client: Any, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (2000, 600)).save(tmp_path / "large.png")
    _, name = client.upload("large.png", (tmp_path / "large.png").read_bytes())
    message = "large.png: 2000 × 600 px are 1.2 megapixels, but the limit is 1; reduce its size"
    assert message in client.run("predict", [{"path": name}, "faces"], "s8")
