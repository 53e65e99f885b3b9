"""The command `live`."""

from __future__ import annotations

from typing import Annotated

import typer

from landmarks_fastai.cli.options import (
    BackendOption,
    DetectorOption,
    DeviceOption,
    MinConfidenceOption,
    ModelsOption,
    NoSmoothOption,
    TrustOption,
)
from landmarks_fastai.utils.text import format_count


def live(
    camera: Annotated[
        str, typer.Option("--camera", help="Index of a camera, a video file or a URL.", metavar="CAMERA")
    ] = "0",
    models: ModelsOption = None,
    no_smooth: NoSmoothOption = False,
    detector: DetectorOption = "auto",
    min_confidence: MinConfidenceOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Show the video of a camera with landmarks in a window.

    The window also shows the track IDs and the frame rate; q or Esc closes it.

    For example:

      landmarks-fastai live

      landmarks-fastai live --camera 1 --model runs/default
    """
    from landmarks_fastai.cli.models import open_tracker
    from landmarks_fastai.commands.live import run_live
    from landmarks_fastai.commands.window import check_display

    check_display()
    tracker = open_tracker(models, device, trust_pickle, detector, not no_smooth, min_confidence, backend)
    result = run_live(camera, tracker)
    typer.echo(f"{format_count(result.frames, 'frame')}, {result.fps:.1f} frames/s")
