"""The server of the web page.

It listens on 127.0.0.1 only, the page loads nothing from other servers, and uploads and results are deleted
when the server stops.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.face_detection import AUTO
from landmarks_fastai.web.page import build_page
from landmarks_fastai.web.service import MEGABYTE, LandmarkService

if TYPE_CHECKING:
    from uvicorn import Server

HOST = "127.0.0.1"
PORT = 7860

STYLE = Path(__file__).with_name("style.css")

CONTENT_SECURITY_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""Makes the browser block all requests of gradio's scripts to other servers."""


def serve(
    models: Sequence[Path], *, detector: str = AUTO, port: int = PORT, open_browser: bool = False
) -> None:
    """Serve the page on this machine, and print its address, until Ctrl-C.

    Parameters
    ----------
    models
        Run folders or model files, at least one; the first is selected when the page opens.
    detector
        Name of the face detector; see `choose_detector`.
    port
        Port of 127.0.0.1; 0 selects a free one.
    open_browser
        Open the page in the user's browser.

    Raises
    ------
    UserError
        If gradio is not installed, or the first model cannot be opened.
    RunError
        If the port cannot be used.
    """
    service = LandmarkService(models, detector)
    service.open(service.models[0])  # so that the first photo does not wait for it
    with listen(port) as listener, tempfile.TemporaryDirectory(prefix="landmarks-fastai-") as folder:
        server = build_server(service, Path(folder))
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        # the port is already open, so a browser that connects before the server runs simply waits
        print(f"{address}  (Ctrl-C to stop)", flush=True)
        if open_browser:
            webbrowser.open(address)
        # SIGTERM must delete the temporary folder, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
        finally:
            service.close()  # a video still in progress writes to the folder


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of 127.0.0.1, which other machines cannot reach.

    Raises
    ------
    RunError
        If the port is in use, or listening on it is not permitted.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise RunError(
            f"--port {port}: cannot be used ({error.strerror}); choose another one, such as {PORT + 1}"
        ) from error


def build_server(service: LandmarkService, folder: Path) -> Server:
    """Return the server of the page: `run(sockets=[…])` starts it, and `should_exit` stops it.

    Gradio's own `launch` is not used because it requests the page through the user's proxy first.

    Parameters
    ----------
    service
        Predicts what the page shows.
    folder
        Existing folder for examples, uploads and results.

    Raises
    ------
    UserError
        If gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError("the page needs another package: pip install 'landmarks-fastai[web]'") from error
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")  # gradio has no parameter for it
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        build_page(service, folder),
        path="/",
        server_name=HOST,
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
    # against DNS rebinding: another web site must not reach the page through a name for 127.0.0.1
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="critical",
            timeout_graceful_shutdown=1,
            headers=[("content-security-policy", CONTENT_SECURITY_POLICY)],
        )
    )
