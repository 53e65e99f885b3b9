"""The command `web`."""

from __future__ import annotations

from typing import Annotated

import typer

from landmarks_fastai.cli.options import RUNS, DetectorOption, ModelOption


def web(
    model: ModelOption = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 7860,
    detector: DetectorOption = "auto",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the page in a browser.")
    ] = False,
) -> None:
    """Serve a web page for photos and videos on this machine.

    The page shows the landmarks of uploaded photos and short videos, and offers them for download.

    For example:

      landmarks-fastai web

      landmarks-fastai web --model runs/default --port 8000
    """
    from landmarks_fastai.cli.models import choose_models, warn_if_synthetic
    from landmarks_fastai.inference.predictor import Predictor
    from landmarks_fastai.model_files.discovery import available_models
    from landmarks_fastai.web.app import serve

    paths = choose_models([model] if model is not None else None)
    warn_if_synthetic(Predictor.open(paths[0], "cpu"))
    choices = paths if model is not None else available_models(RUNS)
    serve(choices, detector=detector, port=port, open_browser=not no_browser)
