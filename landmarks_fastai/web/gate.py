"""The gate in front of gradio: which requests reach it, and how large they may be.

Gradio has many routes that the page does not need: among them are some that open files, fetch addresses, or
call functions without the queue. Only those that its scripts use are let through, and the routes of files are
replaced.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import anyio
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from landmarks_fastai.errors import UserError
from landmarks_fastai.web.limits import MEGABYTE, Limits
from landmarks_fastai.web.uploads import FILE_ROUTE, Uploads

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_ROUTE = "/gradio_api/upload"
JOIN_ROUTE = "/gradio_api/queue/join"

READABLE = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(static|assets|svelte)/.+"
    r"|/gradio_api/(theme\.css|startup-events|info|queue/data|heartbeat/[\w-]+|file=.+)"
)
WRITABLE = re.compile(r"/gradio_api/(queue/join|upload|cancel|reset)")
"""The routes that the scripts of the page use."""

BODY_BYTES = MEGABYTE
"""Maximum size of a request that is not an upload: a few references to files."""

FORM_BYTES = 2**16
"""Size that an upload may have beyond its file: boundaries and the name."""

UPLOAD_SECONDS = 600
"""Maximum time in which an upload must arrive."""

INLINE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "video/mp4"})
"""Media types that cannot contain scripts. Other files are downloaded instead of shown."""

SECURITY_HEADERS = [
    # makes the browser block all requests of gradio's scripts to other servers
    ("content-security-policy", "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "same-origin"),
]


class Gate:
    """ASGI middleware that lets through what the page needs, and tells `uploads` which sessions are open.

    Parameters
    ----------
    app
        The application behind the gate.
    uploads
        The files of the page.
    limits
        Limits of the requests.
    hosts
        Names by which the page may be addressed; None for any.
    """

    def __init__(
        self, app: ASGIApp, uploads: Uploads, limits: Limits, hosts: frozenset[str] | None = None
    ) -> None:
        self._app = app
        self._uploads = uploads
        self._limits = limits
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        session = _session(scope)
        if scope["path"] in ("/", "/config"):
            scope = {**scope, "query_string": b""}  # gradio would open a file that it names
        if scope["path"] == JOIN_ROUTE:
            try:
                receive = await self._without_file_marks(receive)
            except ValueError:
                await PlainTextResponse("not JSON", 400)(scope, _no_body, send)
                return
            send = self._explain_full_queue(scope, send)
        with self._connection(session):
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not let through, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # against DNS rebinding: another web site must not reach the page through a name for 127.0.0.1
        if self._hosts is not None and _split_address(f"//{host}").hostname not in self._hosts:
            return PlainTextResponse("unknown host; open the address that the terminal shows", 400)
        # against forged requests: a form or script of another web site
        origin = headers.get("origin")
        if origin is not None and _split_address(origin).netloc != host:
            return PlainTextResponse("requests from other web sites are refused", 403)
        if scope["method"] in ("GET", "HEAD"):
            allowed = READABLE.fullmatch(scope["path"])
            return None if allowed else PlainTextResponse("not found", 404)
        if scope["method"] != "POST" or not WRITABLE.fullmatch(scope["path"]):
            return PlainTextResponse("not found", 404)
        return self._refusal_of_body(scope["path"], headers)

    def _refusal_of_body(self, path: str, headers: Headers) -> Response | None:
        """Return the answer to a body of unknown or too large size, or None.

        The server reads no more than the size that a request states.
        """
        size = headers.get("content-length", "")
        if "transfer-encoding" in headers or not re.fullmatch(r"\d{1,15}", size):
            return PlainTextResponse("send a content-length", 411)
        limit = BODY_BYTES
        if path == UPLOAD_ROUTE:
            limit = upload_bytes(self._limits)
        if int(size) > limit:
            return PlainTextResponse(f"the limit is {limit / MEGABYTE:.3g} MB; reduce the file's size", 413)
        return None

    async def _without_file_marks(self, receive: Receive) -> Receive:
        """Return `receive` for the same JSON body without the marks of gradio's own files.

        Gradio opens, copies or fetches whatever path or address has such a mark, even if the event handler
        asks it not to; without it, a path is data like any other. The session that names an upload owns it,
        even if the queue is full.

        Raises
        ------
        ValueError
            If the body is not a JSON object, or nested too deeply.
        """
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        names: list[str] = []

        def drop_mark(entries: dict[str, Any]) -> dict[str, Any]:
            if isinstance(entries.get("path"), str):
                names.append(entries["path"])
            return {key: value for key, value in entries.items() if key != "meta"}

        try:
            content = json.loads(body, object_hook=drop_mark)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(content, dict):
            raise ValueError("not an object")
        session = content.get("session_hash")
        if isinstance(session, str):
            for name in names:
                self._uploads.claim(name, session)
        return _with_body(json.dumps(content).encode(), receive)

    @contextmanager
    def _connection(self, session: str | None) -> Iterator[None]:
        if session is None:
            yield
            return
        with self._uploads.connected(session):
            yield

    def _explain_full_queue(self, scope: Scope, send: Send) -> Send:
        """Replace gradio's answer if too many requests wait."""
        replaced = False

        async def send_explained(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 503:
                replaced = True
                busy = f"the page is busy: {self._limits.queue} requests are waiting; try again in a minute"
                await JSONResponse({"detail": busy}, 503)(scope, _no_body, send)
            elif not replaced:
                await send(message)

        return send_explained


def _split_address(address: str) -> SplitResult:
    """Return the parts of an address; all of them are empty if it is malformed."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _with_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body, and then what the original gives."""
    sent = False

    async def receive_body() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _session(scope: Scope) -> str | None:
    """Return the session to which a lasting connection belongs; None for other requests."""
    path: str = scope["path"]
    if path.startswith("/gradio_api/heartbeat/"):
        return path.rsplit("/", 1)[-1]
    if path == "/gradio_api/queue/data":
        sessions = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash")
        return sessions[0] if sessions else None
    return None


def upload_bytes(limits: Limits) -> int:
    """Return the maximum size of the request of an upload."""
    return round(limits.megabytes * MEGABYTE) + FORM_BYTES


def add_file_routes(app: FastAPI, uploads: Uploads) -> None:
    """Add the routes by which the page uploads and downloads files, in the place of gradio's."""

    @app.post(UPLOAD_ROUTE)
    async def upload(request: Request) -> Response:
        try:
            with uploads.reserve(int(request.headers["content-length"])), anyio.fail_after(UPLOAD_SECONDS):
                async with request.form(max_files=1, max_fields=0) as form:
                    file = form.get("files")
                    if not isinstance(file, UploadFile):
                        return PlainTextResponse("no file; choose one", 400)
                    name = await run_in_threadpool(uploads.save, file.file, file.filename or "file")
        except UserError as error:
            return PlainTextResponse(str(error), 507)
        except TimeoutError:
            return PlainTextResponse("the upload took too long; reduce the file's size", 408)
        except OSError as error:  # after TimeoutError, which is one
            return PlainTextResponse(f"the upload cannot be saved ({error.strerror}); try again later", 507)
        except (MultiPartException, HTTPException):
            return PlainTextResponse("one file per upload; choose one", 400)
        return JSONResponse([name])

    @app.api_route(FILE_ROUTE + "{name:path}", methods=["GET", "HEAD"])
    def download(name: str) -> Response:
        try:
            path = uploads.find({"path": name})
        except UserError as error:
            return PlainTextResponse(str(error), 404)
        kind = mimetypes.guess_type(path.name)[0]
        if kind in INLINE_TYPES:
            return FileResponse(path, media_type=kind)
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)
