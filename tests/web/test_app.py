"""The server: its port, starting and stopping, and isolation from other machines."""

from __future__ import annotations

import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.web import app
from landmarks_fastai.web.app import HOST, build_server, listen, serve
from landmarks_fastai.web.service import LandmarkService


def test_listen_on_used_port_names_it() -> None:
    with listen(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(RunError, match=f"--port {port}: cannot be used"):
            listen(port)


def test_serve_prints_address_and_stops_on_interrupt(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    class InterruptedServer:
        def run(self, sockets: list[socket.socket]) -> None:
            seen["port"] = sockets[0].getsockname()[1]
            raise KeyboardInterrupt

    def build(service: LandmarkService, folder: Path) -> InterruptedServer:
        assert folder.is_dir()
        seen["folder"], seen["service"] = folder, service
        return InterruptedServer()

    on_terminate = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(app, "build_server", build)
    monkeypatch.setattr("webbrowser.open", lambda address: seen.update(opened=address))
    try:
        serve([models[0] / "model.safetensors"], port=0, detector="none", open_browser=True)
    finally:
        signal.signal(signal.SIGTERM, on_terminate)
    address = f"http://{HOST}:{seen['port']}"
    assert seen["service"].models == [str(models[0])]
    assert seen["service"].closing
    assert seen["opened"] == address
    assert capsys.readouterr().out == f"{address}  (Ctrl-C to stop)\n"
    assert not seen["folder"].exists()


def test_build_server_without_gradio_says_how_to_install_it(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'landmarks-fastai\[web\]'"):
        build_server(LandmarkService(models, "none"), tmp_path)


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
