"""The command `web`."""

from __future__ import annotations

from typing import Annotated

import typer

from landmarks_fastai.cli.options import RUNS, DetectorOption, MinConfidenceOption, ModelOption


def web(
    model: ModelOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines use the page.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 7860,
    detector: DetectorOption = "auto",
    min_confidence: MinConfidenceOption = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the page in a browser.")
    ] = False,
) -> None:
    """Serve a web page for photos and videos on this machine.

    The page shows the landmarks of uploaded photos and short videos, and offers them for download. Files are
    deleted when their page is closed.

    For example:

      landmarks-fastai web

      landmarks-fastai web --model runs/default --port 8000
    """
    from landmarks_fastai.cli.models import choose_models
    from landmarks_fastai.model_files.discovery import available_models
    from landmarks_fastai.web.app import serve
    from landmarks_fastai.web.limits import Limits

    paths = choose_models([model] if model is not None else None)
    choices = paths if model is not None else available_models(RUNS)
    serve(
        choices,
        detector=detector,
        limits=Limits(min_confidence=min_confidence),
        host=host,
        port=port,
        open_browser=not no_browser,
    )
