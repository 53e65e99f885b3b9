"""The server of the web page.

Unless told otherwise it listens on this machine only, the page loads nothing from other servers, and uploads
and results are deleted when their page is closed, at the latest when the server stops.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.face_detection import AUTO
from landmarks_fastai.web.limits import MEGABYTE, Limits
from landmarks_fastai.web.temporary import temporary_folder
from landmarks_fastai.web.uploads import Uploads
from landmarks_fastai.web.worker_service import WorkerService

if TYPE_CHECKING:
    from uvicorn import Server

HOST = "127.0.0.1"
PORT = 7860

LOOPBACK_HOSTS = frozenset({HOST, "localhost", "::1"})

STYLE = Path(__file__).with_name("style.css")


def serve(
    models: Sequence[Path],
    *,
    detector: str = AUTO,
    host: str = HOST,
    port: int = PORT,
    open_browser: bool = False,
    limits: Limits | None = None,
) -> None:
    """Serve the page, and print its address, until Ctrl-C or SIGTERM.

    Parameters
    ----------
    models
        Run folders or model files, at least one; the first is selected when the page opens.
    detector
        Name of the face detector; see `choose_detector`.
    host
        Address to listen on. If other machines can reach it, a warning is printed on stderr.
    port
        Port; 0 selects a free one.
    open_browser
        Open the page in the user's browser.
    limits
        Limits of files, time, memory and storage.

    Raises
    ------
    UserError
        If gradio is not installed, or the first model cannot be opened.
    RunError
        If the port cannot be used.
    """
    limits = limits or Limits()
    with (
        listen(host, port) as listener,
        temporary_folder() as folder,
        closing(WorkerService(models, detector, limits, folder)) as service,
        Uploads(folder, limits) as uploads,
    ):
        server = build_server(service, uploads, host)
        service.start()  # so that the first photo does not wait for it
        _print_warnings(service, host)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        # the port is already open, so a browser that connects before the server runs simply waits
        print(f"{address}  (Ctrl-C to stop)", flush=True)
        if open_browser:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):  # which the server raises after it has stopped
            server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port of an address of this machine.

    Raises
    ------
    RunError
        If the address is not one of this machine, the port is in use, or listening on it is not permitted.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:
        raise RunError(f"--host {host[:100]}: not an address of this machine; use {HOST}") from error
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(
            f"--host {host[:100]} --port {port}: cannot be used ({reason}); choose another port, such as"
            f" {PORT + 1}"
        ) from error


def build_server(service: WorkerService, uploads: Uploads, host: str = HOST) -> Server:
    """Return the server of the page: `run(sockets=[…])` starts it, and `should_exit` stops it.

    Gradio's own `launch` is not used because it requests the page through the user's proxy first.

    Parameters
    ----------
    service
        Predicts what the page shows. It is closed as soon as the server begins to stop.
    uploads
        The files of the page.
    host
        Address that the server listens on.

    Raises
    ------
    UserError
        If gradio is not installed.
    """
    # gradio has no parameters for these
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.root / "gradio")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError("the page needs another package: pip install 'landmarks-fastai[web]'") from error
    import uvicorn
    from fastapi import FastAPI

    from landmarks_fastai.web.gate import SECURITY_HEADERS, Gate, add_file_routes
    from landmarks_fastai.web.page import build_page

    class PageServer(uvicorn.Server):
        """Server that stops the predictions in progress first, which it would otherwise wait for."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.close()
            await super().shutdown(sockets)

    app = FastAPI(openapi_url=None)
    add_file_routes(app, uploads)
    gr.mount_gradio_app(
        app,
        build_page(service, uploads),
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=round(service.limits.megabytes * MEGABYTE),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(
            primary_hue=gr.themes.colors.blue,
            font=("system-ui", "sans-serif"),
            font_mono=("ui-monospace", "monospace"),
        ).set(body_text_color_subdued="*neutral_500"),
        css=STYLE.read_text(encoding="utf-8"),
    )
    return PageServer(
        uvicorn.Config(
            Gate(app, uploads, service.limits, accepted_hosts(host)),
            log_level="critical",
            timeout_graceful_shutdown=1,
            limit_concurrency=service.limits.connections,
            headers=SECURITY_HEADERS,
        )
    )


def accepted_hosts(host: str) -> frozenset[str] | None:
    """Return the names by which a page that listens on `host` may be addressed; None for any."""
    return LOOPBACK_HOSTS | {host.lower()} if _is_loopback(host) else None


def _print_warnings(service: WorkerService, host: str) -> None:
    warning = service.warning(service.models[0])
    if warning is not None:
        print(f"warning: {warning[0].lower()}{warning[1:].rstrip('.')}", file=sys.stderr)
    if not _is_loopback(host):
        print(
            "warning: the page has no password; everybody who can reach this machine can use it",
            file=sys.stderr,
        )


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
