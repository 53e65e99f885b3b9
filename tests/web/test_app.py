"""The server: its port, starting and stopping, and isolation from other machines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.web import app
from landmarks_fastai.web.app import HOST, accepted_hosts, build_server, listen, serve
from landmarks_fastai.web.limits import Limits
from landmarks_fastai.web.uploads import Uploads
from landmarks_fastai.web.worker_service import WorkerService


def test_listen_on_used_port_names_it() -> None:
    with listen(HOST, 0) as listener:
        address, port = listener.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(RunError, match=f"--host 127.0.0.1 --port {port}: cannot be used"):
            listen(HOST, port)


def test_listen_on_address_of_another_machine_names_it() -> None:
    with pytest.raises(RunError, match=r"^--host 192\.0\.2\.1 --port 0: cannot be used"):
        listen("192.0.2.1", 0)
    with pytest.raises(RunError, match=r"^--host \.x: not an address of this machine; use 127\.0\.0\.1$"):
        listen(".x", 0)


def test_page_is_addressed_by_the_names_of_this_machine_and_the_one_it_listens_on() -> None:
    assert accepted_hosts("127.0.0.1") == {"127.0.0.1", "localhost", "::1"}
    assert accepted_hosts("127.0.0.2") == {"127.0.0.1", "127.0.0.2", "localhost", "::1"}
    assert accepted_hosts("0.0.0.0") is None


class FakeService:
    """A service without processes."""

    def __init__(self, models: Sequence[Path], detector: str, limits: Limits, folder: Path) -> None:
        self.models = [path.name for path in models]
        self.folder = folder
        self.closed = False

    def start(self) -> None:
        if self.models[0] == "damaged.safetensors":
            raise UserError("damaged.safetensors: damaged")

    def warning(self, model: str) -> str | None:
        return "This model is not good." if model == "synthetic.safetensors" else None

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_server(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the server by one that stops at once, and return what it was given."""
    seen: dict[str, Any] = {}

    class InterruptedServer:
        def run(self, sockets: list[socket.socket]) -> None:
            seen["address"] = sockets[0].getsockname()
            raise KeyboardInterrupt

    def build(service: FakeService, uploads: Uploads, host: str) -> InterruptedServer:
        assert uploads.root.is_dir()
        seen.update(folder=uploads.root, service=service, host=host)
        return InterruptedServer()

    monkeypatch.setattr(app, "build_server", build)
    monkeypatch.setattr(app, "WorkerService", FakeService)
    monkeypatch.setattr("webbrowser.open", lambda address: seen.update(opened=address))
    return seen


def test_serve_prints_address_and_stops_on_interrupt(
    fake_server: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    serve([Path("synthetic.safetensors")], port=0, detector="none", open_browser=True)
    address = f"http://{HOST}:{fake_server['address'][1]}"
    assert fake_server["service"].models == ["synthetic.safetensors"]
    assert fake_server["service"].folder == fake_server["folder"]
    assert fake_server["opened"] == address
    printed = capsys.readouterr()
    assert printed.out == f"{address}  (Ctrl-C to stop)\n"
    assert printed.err == "warning: this model is not good\n"
    assert not fake_server["folder"].exists()
    assert fake_server["service"].closed


def test_serve_warns_if_other_machines_can_use_the_page(
    fake_server: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    serve([Path("arrow.safetensors")], host="0.0.0.0", port=0, detector="none")
    assert fake_server["host"] == fake_server["address"][0] == "0.0.0.0"
    printed = capsys.readouterr()
    assert printed.out.startswith("http://0.0.0.0:")
    assert printed.err.startswith("warning: the page has no password; ")


def test_serve_with_damaged_model_raises_its_error_and_leaves_nothing(fake_server: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^damaged\.safetensors: damaged$"):
        serve([Path("damaged.safetensors")], port=0, detector="none")
    assert fake_server["service"].closed
    assert not fake_server["folder"].exists()


def test_build_server_without_gradio_says_how_to_install_it(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(variable, "")  # so that it is restored afterwards
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'landmarks-fastai\[web\]'"):
        build_server(WorkerService(models, "none"), Uploads(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signal_during_a_video_stops_page_and_processes_and_leaves_no_file(
    models: list[Path], make_video: Any, make_client: Any, tmp_path: Path, number: int
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with listen(HOST, 0) as listener:
        port = listener.getsockname()[1]
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = [sys.executable, "-m", "landmarks_fastai", "web", "--model", str(models[1])]
    command += ["--detector", "none", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("model: ")
    assert process.stdout.readline() == f"http://{HOST}:{port}  (Ctrl-C to stop)\n"
    client = make_client(f"http://{HOST}:{port}")
    _, name = client.upload("clip.mp4", make_video(tmp_path / "uploads" / "clip.mp4", 1400).read_bytes())
    assert client.join("predict_1", [{"path": name}, models[1].name], "me")[0] == 200
    end = time.monotonic() + 120
    while not list(folder.rglob("*clip_landmarks*")):  # the video is being processed
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 0
    assert list(folder.iterdir()) == []
    end = time.monotonic() + 60
    while has_processes(process.pid) and time.monotonic() < end:  # multiprocessing's own ends a little later
        time.sleep(0.1)
    assert not has_processes(process.pid)


def has_processes(group: int) -> bool:
    """Return whether a process of a process group exists."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_server_allows_no_external_content_or_hosts(server: Any) -> None:
    with urllib.request.urlopen(server.address) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        content = answer.read().decode()
    assert "fonts.googleapis" not in content
    assert ".landmark-table" in content  # style.css
    request = urllib.request.Request(server.address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    assert server.external == []
